"""A study where one is asked for: itself, its run directory, nothing else; and in a notebook."""

from __future__ import annotations

import html

import pytest

import scvitune
from scvitune._study import take_study
from scvitune.errors import InputError


def test_a_study_is_taken_as_itself_or_by_its_run_directory(small_run) -> None:
    study = scvitune.load(small_run.layout.root)
    assert take_study(study) is study
    for given in (small_run.layout.root, str(small_run.layout.root)):
        assert take_study(given).best_trial_id == study.best_trial_id


@pytest.mark.parametrize("function", [scvitune.replay, scvitune.learning_curve])
def test_what_is_neither_is_refused_with_what_to_give(function, tmp_path) -> None:
    with pytest.raises(InputError, match="study is an object of type int. Give a Study, as"):
        function(5)
    with pytest.raises(InputError, match="is no run directory"):
        function(tmp_path)


def test_a_notebook_shows_the_result(small_run) -> None:
    small_run.trial("00009", {"lr": "<script>"}, values={4.0: 1.0})
    study = scvitune.load(small_run.layout.root)
    assert study._repr_html_().endswith(f">{html.escape(study.summary())}</pre>")
    assert "<script>" not in study._repr_html_()
