"""The script that a request becomes, read as bash and as Slurm would read it."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from scvitune.cluster import SlurmRequest
from scvitune.cluster._rendering import render_script
from scvitune.cluster._scripts import scripts_dir
from scvitune.errors import Faults

HOSTILE = ["plain", "with space", "it's", 'a "quote"', "$HOME", "-dash", "`id`", "a;b", "a\\b"]


def render(request=None, *, config="/c/study.yaml", overrides=(), run="/r/run"):
    from pathlib import Path

    return render_script(
        request or SlurmRequest(),
        config_path=Path(config),
        overrides=overrides,
        run_dir=Path(run),
    )


def header(script: str) -> list[str]:
    """What Slurm reads: the #SBATCH lines up to the first command."""
    lines = []
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            lines.append(line.removeprefix("#SBATCH "))
        elif line and not line.startswith("#"):
            break
    return lines


def settings(script: str) -> str:
    """The part between the user's snippet and what is the same for all."""
    return script.split("\nsetup() {\n", 1)[1].split("# -----", 1)[0]


def evaluate(script: str, expression: str) -> list[str]:
    """What bash makes of an expression after the script's own settings."""
    program = f"setup() {{\n{settings(script)}\nprintf '%s\\0' {expression}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def test_all_settings_become_options():
    request = SlurmRequest(
        nodes=4,
        gpus_per_node="a100:2",
        cpus_per_node=16,
        mem="64G",
        time="1-12:00:00",
        partition="gpu",
        account="lab",
        extra=["--constraint=fast"],
        signal_seconds=300,
    )
    assert header(render(request)) == [
        "--job-name=scvitune-run",
        "--nodes=4",
        "--ntasks-per-node=1",
        "--cpus-per-task=16",
        "--mem=64G",
        "--time=1-12:00:00",
        "--gpus-per-node=a100:2",
        "--partition=gpu",
        "--account=lab",
        "--output=/r/run/cluster/slurm-%j.out",
        "--open-mode=append",
        "--no-kill",
        "--requeue",
        "--signal=B:USR1@300",
        "--constraint=fast",
    ]


def test_what_follows_the_users_part_is_the_template():
    template = (scripts_dir() / "submit.sbatch").read_text()
    mark = "# ---------------------------------------------------------------- nothing to edit"
    assert render().split(mark)[1] == template.split(mark)[1]


def test_an_array_takes_turns_and_does_not_requeue():
    lines = header(render(SlurmRequest(array=5)))
    assert "--array=1-5%1" in lines
    assert "--requeue" not in lines
    assert "--output=/r/run/cluster/slurm-%A_%a.out" in lines


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_reach_the_job_as_they_are(word):
    script = render(
        SlurmRequest(node_ip_command=f"echo {word!r}"),
        config=f"/c/{word}.yaml",
        overrides=[f"name={word}"],
        run=f"/r/{word}",
    )
    assert evaluate(script, '"$@"') == [f"/c/{word}.yaml", f"name={word}"]
    assert evaluate(script, '"$SCVITUNE_RUN_DIR"') == [f"/r/{word}"]
    assert evaluate(script, '"$SCVITUNE_NODE_IP_COMMAND"') == [f"echo {word!r}"]
    output = next(line for line in header(script) if line.startswith("--output="))
    if re.search(r"[^\w./%=-]", word):
        assert shlex.split(output) == [f"--output=/r/{word}/cluster/slurm-%j.out"]


def test_percent_signs_of_a_path_are_not_slurms():
    assert "--output=/r/50%%/cluster/slurm-%j.out" in header(render(run="/r/50%"))


def test_the_users_snippet_runs_before_anything_else(tmp_path):
    snippet = tmp_path / "setup.sh"
    snippet.write_text("module load python\nexport PATH='/my env/bin':$PATH\n")
    script = render(SlurmRequest(setup=snippet))
    assert "setup() {\nmodule load python\nexport PATH='/my env/bin':$PATH\n}\n" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("time", ["90", "90:30", "4:00:00", "2-12", "2-12:30", "2-12:30:00"])
def test_times_as_slurm_writes_them(time):
    faults = Faults()
    SlurmRequest(time=time).check(faults)
    assert len(faults) == 0


def test_everything_wrong_is_told_at_once(tmp_path):
    faults = Faults()
    SlurmRequest(
        nodes=0,
        gpus_per_node="many",
        cpus_per_node=-1,
        mem="a lot",
        time="soon",
        partition="two words",
        account="$(id)",
        array=0,
        min_nodes=3,
        node_ip_command=" ",
        setup=tmp_path / "missing.sh",
        extra=["constraint=gpu", "--comment=a\n#SBATCH --uid=0"],
    ).check(faults)
    with pytest.raises(Exception, match="13 things are wrong") as error:
        faults.raise_if_any()
    for option in ("--nodes", "--gpus-per-node", "--cpus-per-node", "--mem", "--time", "--array"):
        assert f"{option} must" in str(error.value)
    for option in ("--partition", "--account", "--min-nodes", "--node-ip-command", "--setup"):
        assert option in str(error.value)
