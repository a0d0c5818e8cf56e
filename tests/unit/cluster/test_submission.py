"""Writing and submitting scripts, with stand-ins for Slurm's programs that note their calls."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from scvitune.cluster import SlurmRequest, describe_submission, prepare_submission, read_status
from scvitune.errors import InputError


def test_a_study_without_a_name_gets_one_that_stays(config, no_slurm):
    done = prepare_submission(config, [], SlurmRequest(), submit=False)
    assert done.run_dir.parent == config.parent / "my runs"
    assert done.run_dir.name.startswith("SCVI-")
    assert f'name="{done.run_dir.name}"' in done.script.read_text()
    assert stat.S_IMODE(done.script.stat().st_mode) == 0o600
    assert describe_submission(done)[-1] == f"Submit:  sbatch '{done.script}'"
    status = read_status(done.run_dir)
    assert status is not None
    assert status.state == "written"


def test_submitting(config, slurm):
    done = prepare_submission(config, ["name=mine"], SlurmRequest(), submit=True)
    assert done.job_id == "123"
    assert (slurm / "sbatch.called").read_text().splitlines() == [
        f"--test-only {done.script}",
        f"--parsable {done.script}",
    ]
    told = "\n".join(describe_submission(done))
    for part in ("123", "tail -n 50 -F", "slurm-123.out", "scvitune status"):
        assert part in told


def test_what_slurm_refuses_is_not_submitted(config, slurm):
    (slurm / "sbatch.code").write_text("1")
    (slurm / "sbatch.answer").write_text("")
    (slurm / "sbatch.error").write_text("sbatch: error: invalid partition specified: gpuu\n")
    with pytest.raises(InputError, match="Slurm refuses the job: .*invalid partition"):
        prepare_submission(config, ["name=mine"], SlurmRequest(partition="gpuu"), submit=True)
    assert len((slurm / "sbatch.called").read_text().splitlines()) == 1


def test_submitting_without_slurm(config, no_slurm):
    with pytest.raises(InputError, match="sbatch, which is not here"):
        prepare_submission(config, [], SlurmRequest(), submit=True)
    assert not (config.parent / "my runs").exists()


def test_faults_of_the_study_and_of_the_job_come_together(config, no_slurm):
    with pytest.raises(InputError, match="3 things are wrong") as error:
        prepare_submission(config, ["serach.x=1"], SlurmRequest(nodes=0), submit=True)
    assert "Unknown key 'serach'" in str(error.value)
    assert "--nodes" in str(error.value)


def test_a_study_that_is_there_is_gone_on_with_by_its_script(config, no_slurm):
    done = prepare_submission(config, ["name=mine"], SlurmRequest(), submit=False)
    (done.run_dir / "study.yaml").write_text("model: SCVI\n")
    with pytest.raises(InputError, match=r"holds a study already.*sbatch .*submit\.sbatch"):
        prepare_submission(config, ["name=mine"], SlurmRequest(), submit=False)


def note(run: Path, **fields) -> None:
    (run / "cluster" / "job.json").write_text(json.dumps({"job_id": "123", **fields}))


@pytest.mark.parametrize(
    ("said", "answer", "expected"),
    [
        ("submitted", "PENDING|Resources", ("waiting", "Resources")),
        ("submitted", "PENDING|None", ("waiting", "")),
        ("begun", "RUNNING|None", ("running", "")),
        ("running", "PENDING|BeginTime", ("requeued", "BeginTime")),
        ("running", "NODE_FAIL|None", ("lost", "NODE_FAIL")),
        ("running", "", ("lost", "knows the job no more")),
        ("unfinished", "COMPLETED|None", ("unfinished", "")),
        ("failed", "", ("failed", "because")),
        # of an array, the one at work counts
        ("running", "PENDING|JobArrayTaskLimit\nRUNNING|None", ("running", "")),
    ],
)
def test_what_became_of_a_job(config, slurm, said, answer, expected):
    done = prepare_submission(config, ["name=mine"], SlurmRequest(), submit=True)
    note(done.run_dir, state=said, reason="because" if said == "failed" else "")
    (slurm / "squeue.answer").write_text(answer)
    status = read_status(done.run_dir)
    assert status is not None
    assert status.state == expected[0]
    assert expected[1] in status.reason


def test_without_slurm_the_directory_alone_tells(config, slurm, monkeypatch, tmp_path):
    done = prepare_submission(config, ["name=mine"], SlurmRequest(), submit=True)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing here"))
    status = read_status(done.run_dir)
    assert status is not None
    assert status.state == "waiting"
    note(done.run_dir, state="requeued", restarts=2)
    status = read_status(done.run_dir)
    assert status is not None
    assert (status.state, status.restarts) == ("requeued", 2)


def test_a_run_that_never_had_a_job(tmp_path):
    assert read_status(tmp_path) is None
