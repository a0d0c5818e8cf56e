"""Writing and submitting scripts, with stand-ins for Slurm's programs that note their calls."""

from __future__ import annotations

import json
import stat
import textwrap
from pathlib import Path

import pytest

from scvitune._checking import check_without_data
from scvitune.cluster import SlurmRequest, describe_submission, prepare_submission, read_status
from scvitune.cluster._beginning import begin_job
from scvitune.config import dump_yaml, load_config
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
    with pytest.raises(InputError, match="Slurm refuses the job: .*invalid partition") as refused:
        prepare_submission(config, ["name=mine"], SlurmRequest(partition="gpuu"), submit=True)
    assert len((slurm / "sbatch.called").read_text().splitlines()) == 1
    script = config.parent / "my runs" / "mine" / "cluster" / "submit.sbatch"
    for part in (
        "Asked for: 1 node, 8 CPUs, 32G, time 04:00:00, partition gpuu.",
        f"Nothing was submitted. The script is {script}",
    ):
        assert part in str(refused.value)
    assert script.exists()


def test_submitting_without_slurm(config, no_slurm):
    with pytest.raises(InputError, match="sbatch, which is not here"):
        prepare_submission(config, [], SlurmRequest(), submit=True)
    assert not (config.parent / "my runs").exists()


def test_faults_of_the_study_and_of_the_job_come_together(config, no_slurm):
    with pytest.raises(InputError, match="3 things are wrong") as error:
        prepare_submission(config, ["serach.x=1"], SlurmRequest(nodes=0), submit=True)
    assert "Unknown key 'serach'" in str(error.value)
    assert "--nodes" in str(error.value)


def begun(config: Path, *overrides: str) -> Path:
    """A run directory with a study, as far as going on with it looks."""
    changes = ["name=mine", *overrides]
    run_dir = prepare_submission(config, changes, SlurmRequest(), submit=False).run_dir
    frozen = load_config(config, changes).to_yaml_dict() | {"rungs": [], "slots": 2}
    (run_dir / "study.yaml").write_text(dump_yaml(frozen))
    return run_dir


def test_other_job_settings_go_on_with_the_study_that_is_there(config, no_slurm):
    begun(config, "search.seed=3")
    more = SlurmRequest(nodes=4, time="12:00:00")
    done = prepare_submission(config, ["name=mine", "search.seed=3"], more, submit=False)
    assert "goes on with the study that is there" in "\n".join(describe_submission(done))
    script = done.script.read_text()
    assert "#SBATCH --nodes=4\n" in script
    assert "#SBATCH --time=12:00:00\n" in script


def test_a_studys_settings_stay_but_for_more_trials(config, no_slurm):
    begun(config, "search.num_samples=20")
    more = ["name=mine", "search.num_samples=70"]
    assert prepare_submission(config, more, SlurmRequest(), submit=False).goes_on
    for changed in ("search.num_samples=10", "search.seed=9", "space={lr: 0.01}"):
        with pytest.raises(
            InputError, match="overrides do not count once a study exists"
        ) as error:
            prepare_submission(config, ["name=mine", changed], SlurmRequest(), submit=False)
        assert changed in str(error.value)


def test_a_job_hands_on_more_trials_and_tells_what_does_not_count(config, no_slurm, capsys):
    run_dir = begun(config, "search.num_samples=20")

    def arguments(*overrides: str) -> list[str]:
        files = begin_job(config, ["name=mine", *overrides], job_id="7")
        return files.arguments.read_text().split("\0")[:-1]

    assert arguments("search.num_samples=20") == ["resume", str(run_dir)]
    assert capsys.readouterr().err == ""
    # as by `sbatch RUN/cluster/submit.sbatch search.num_samples=70`
    more = arguments("search.num_samples=20", "search.num_samples=70", "search.max_epochs=null")
    assert more == ["resume", str(run_dir), "--num-samples", "70"]
    assert capsys.readouterr().err == ""
    assert arguments("search.seed=9") == ["resume", str(run_dir)]
    told = capsys.readouterr().err
    assert "search.seed=9: overrides do not count once a study exists" in told
    assert "name=NAME" in told


def test_a_job_hands_on_the_functions_that_study_and_configuration_name(config, no_slurm):
    named = ["name=mine", "metric=json:dumps", "mode=max"]
    run_dir = begun(config, *named[1:])

    def arguments(*overrides: str) -> list[str]:
        files = begin_job(config, overrides, job_id="7")
        return files.arguments.read_text().split("\0")[:-1]

    assert arguments(*named) == ["resume", str(run_dir), "--metric", "json:dumps"]
    # What only one of them names is nobody's wish for this study.
    assert arguments("name=mine") == ["resume", str(run_dir)]
    study = run_dir / "study.yaml"
    study.write_text(study.read_text().replace("json:dumps", "os:system"))
    assert arguments(*named) == ["resume", str(run_dir)]


@pytest.mark.parametrize("submit", [True, False])
@pytest.mark.parametrize(
    ("answer", "words"),
    [("PENDING|Resources", "waits in the queue for"), ("RUNNING|None", "is running")],
)
def test_a_run_with_a_job_gets_no_second_one(config, slurm, submit, answer, words):
    done = prepare_submission(config, ["name=mine"], SlurmRequest(), submit=True)
    calls = (slurm / "sbatch.called").read_text()
    job, script = (done.script.with_name("job.json").read_text(), done.script.read_text())
    (slurm / "squeue.answer").write_text(answer)
    with pytest.raises(InputError, match=f"job 123 {words} this study.*`scancel 123`"):
        prepare_submission(config, ["name=mine"], SlurmRequest(nodes=3), submit=submit)
    assert (slurm / "sbatch.called").read_text() == calls
    assert done.script.with_name("job.json").read_text() == job
    assert done.script.read_text() == script
    (slurm / "squeue.answer").write_text("CANCELLED|None")
    prepare_submission(config, ["name=mine"], SlurmRequest(nodes=3), submit=submit)


@pytest.mark.parametrize(
    ("request_", "resources", "told"),
    [
        (
            SlurmRequest(nodes=3, cpus_per_node=5),
            "{cpu: 2}",
            "6 trials at a time: 3 nodes x 2, 2 CPU",
        ),
        (
            SlurmRequest(gpus_per_node="a100:2"),
            "{cpu: 1, gpu: 0.25}",
            "8 trials at a time: 1 node x",
        ),
        (
            SlurmRequest(gpus_per_node="2"),
            "null",
            "2 trials at a time: 1 node x 2, 1 CPU and 1 GPU",
        ),
        (
            SlurmRequest(gpus_per_node="2"),
            "{cpu: 1, gpu: auto}",
            "at least 2 trials at a time: 1 node x 2, 1 CPU and 1 GPU",
        ),
        (SlurmRequest(), "{cpu: 1, gpu: auto}", "trials at a time: 1 node x"),
        (SlurmRequest(gpus_per_node="2"), "{cpu: 1}", "No trial uses a GPU"),
    ],
)
def test_how_many_trials_so_many_nodes_hold(config, no_slurm, request_, resources, told):
    done = prepare_submission(config, [f"resources={resources}"], request_, submit=False)
    assert told in "\n".join(describe_submission(done))


def test_what_holds_no_trial_is_refused(config, no_slurm):
    for resources, request in (
        ("{cpu: 4}", SlurmRequest(cpus_per_node=2)),
        ("{cpu: 1, gpu: 0.5}", SlurmRequest()),
    ):
        with pytest.raises(InputError, match="so none would ever start"):
            prepare_submission(config, [f"resources={resources}"], request, submit=False)
    assert not (config.parent / "my runs").exists()
    other_way = SlurmRequest(extra=["--gres=gpu:2"])
    done = prepare_submission(config, ["resources={gpu: 0.5}"], other_way, submit=False)
    assert "as many as the GPUs of --extra hold" in done.slots


def test_each_setting_stands_in_the_script_once(config, no_slurm):
    changes = ["name=mine", f"storage={config.parent}", "search.seed=3"]
    script = prepare_submission(config, changes, SlurmRequest(), submit=False).script.read_text()
    (line,) = [line for line in script.splitlines() if line.startswith("set -- ")]
    assert line.count("name=") == line.count("storage=") == line.count("search.seed=3") == 1


def test_the_first_job_of_the_readme(slurm, tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "slurm" / "README.md").read_text()
    yaml = text.split("# first.yaml\n")[1].split("```")[0]
    first = tmp_path / "first.yaml"
    first.write_text(textwrap.dedent(yaml).replace("/shared/me", str(tmp_path)))
    config = load_config(first)
    check_without_data(config)
    assert (config.data.path, config.name, config.search.num_samples) == ("pbmc68k", "first", 10)
    done = prepare_submission(first, [], SlurmRequest(nodes=2, cpus_per_node=2), submit=True)
    assert done.run_dir == tmp_path / "runs" / "first"
    assert done.slots.startswith("4 trials at a time")


def test_the_number_of_a_trial_submission_is_no_jobs(config, slurm):
    (slurm / "sbatch.answer").write_text("")
    (slurm / "sbatch.error").write_text("sbatch: Job 2 to start at 2030-01-01T00:00:00 on n1\n")
    done = prepare_submission(config, [], SlurmRequest(), submit=False)
    assert done.answer == "would start at 2030-01-01T00:00:00 on n1"


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
        ("submitted", "CANCELLED|None", ("cancelled", "")),
        ("running", "CANCELLED|None", ("cancelled", "")),
        ("requeued", "CANCELLED|None", ("cancelled", "")),
        ("cancelled", "COMPLETING|None", ("cancelled", "")),
        ("cancelled", "", ("cancelled", "")),
        ("cancelled", "PENDING|BeginTime", ("requeued", "BeginTime")),  # by scontrol requeue
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


def test_a_job_that_could_not_start_python_does_not_speak_for_one_at_work(config, slurm):
    done = prepare_submission(config, ["name=mine"], SlurmRequest(), submit=True)
    note(done.run_dir, state="running")
    failure = done.script.with_name("failure")
    (slurm / "squeue.answer").write_text("RUNNING|None")
    for job_id, state in (("124", "running"), ("123", "failed")):
        failure.write_text(f"{job_id} the set-up snippet failed\n")
        status = read_status(done.run_dir)
        assert status is not None
        assert (status.state, status.job_id) == (state, "123")
    assert status.reason == "the set-up snippet failed"
    failure.write_text("124 the set-up snippet failed\n")
    (slurm / "squeue.answer").write_text("COMPLETED|None")
    status = read_status(done.run_dir)
    assert status is not None
    assert (status.state, status.job_id) == ("failed", "124")
