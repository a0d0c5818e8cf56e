"""What is said where a result is asked of a study that has none."""

from __future__ import annotations

import fcntl
import shlex
from collections.abc import Callable

import pytest

import scvitune
from scvitune.errors import ScvituneError
from scvitune.study import Study

WANTED: dict[str, Callable[[Study], object]] = {
    "best model": lambda study: study.best_model(),
    "best trial": lambda study: study.best_config,
    "UMAP": lambda study: study.plot("umap"),
}
EACH = pytest.mark.parametrize("wanted", WANTED)


@EACH
def test_an_interrupted_study_without_a_result_says_how_to_go_on(new_run, wanted) -> None:
    run = new_run("of two words")
    run.driver("start")
    run.trial("00000", status="interrupted", origin="default")
    run.trial("00001", started=False, status=None)
    run.driver("interrupted")
    with pytest.raises(ScvituneError) as error:
        WANTED[wanted](scvitune.load(run.layout.root))
    said = str(error.value)
    assert f"has a result yet, so there is no {wanted}." in said
    assert "2 (1 interrupted, 1 waiting)" in said
    assert f"`scvitune resume {shlex.quote(str(run.layout.root))}`" in said


@EACH
def test_before_the_first_trial(new_run, wanted) -> None:
    run = new_run()
    with pytest.raises(ScvituneError, match="Trials: none yet.*`scvitune resume "):
        WANTED[wanted](scvitune.load(run.layout.root))


def test_where_all_were_lost_the_reason_is_told(new_run) -> None:
    run = new_run()
    run.driver("start")
    run.trial(
        "00000", status="failed", reason="OutOfMemoryError: of 3 GB.\nTrace", origin="default"
    )
    run.trial("00001", values={1.0: 2.0}, status="diverged", reason="NaN loss")
    run.driver("end")
    with pytest.raises(ScvituneError) as error:
        scvitune.load(run.layout.root).best_model()
    said = str(error.value)
    assert "Trials: 2 (1 diverged, 1 failed)." in said
    assert "lost: OutOfMemoryError: of 3 GB. study.trials" in said
    assert "--num-samples N" in said
    assert "yet" not in said


def test_a_study_at_work_is_waited_for(new_run) -> None:
    run = new_run()
    run.driver("start")
    run.trial("00000", status=None, origin="default")
    with run.layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ScvituneError, match=r"study\.refresh\(\)") as error:
            scvitune.load(run.layout.root).best_model()
    assert "scvitune resume" not in str(error.value)
