"""A request and the template ``slurm/submit.sbatch`` -> the script of one study."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from scvitune.cluster._node_resources import IP_COMMAND
from scvitune.cluster._request import SlurmRequest
from scvitune.cluster._scripts import scripts_dir
from scvitune.contracts import RunLayout

_HEADER = re.compile(r"(^#{1,2}SBATCH .*\n)+", re.MULTILINE)
_SETUP = re.compile(r"^setup\(\) \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)


def render_script(
    request: SlurmRequest,
    *,
    config_path: Path,
    overrides: Sequence[str],
    run_dir: Path,
) -> str:
    """Return the batch script of a study: the template with the user's part filled in.

    Parameters
    ----------
    config_path, overrides
        As for ``scvitune tune``; ``storage`` and ``name`` are those of the run directory.
    run_dir
        Absolute; also where the log goes.
    """
    template = (scripts_dir() / "submit.sbatch").read_text()
    header = "".join(f"#SBATCH {line}\n" for line in _header(request, run_dir))
    settings = "".join(f"{line}\n" for line in _settings(request, config_path, overrides, run_dir))
    snippet = ":" if request.setup is None else request.setup.read_text().rstrip("\n")
    setup = f"setup() {{\n{snippet}\n}}\n{settings}"
    # By functions: what is put in may hold backslashes.
    filled, n_headers = _HEADER.subn(lambda _: header, template, count=1)
    filled, n_setups = _SETUP.subn(lambda _: setup, filled, count=1)
    if (n_headers, n_setups) != (1, 1):
        raise ValueError("submit.sbatch has lost its #SBATCH lines or its setup function")
    return filled


def log_path(request: SlurmRequest, run_dir: Path, job_id: str = "%j") -> Path:
    """Return where a job's output goes; the default holds Slurm's replacement for its number."""
    if request.array is not None:
        job_id = "%A_%a" if job_id == "%j" else f"{job_id}_1"
    return RunLayout(run_dir).cluster / f"slurm-{job_id}.out"


def _header(request: SlurmRequest, run_dir: Path) -> list[str]:
    percent_safe = str(run_dir).replace("%", "%%")
    log = str(log_path(request, Path(percent_safe)))
    lines = [
        f"--job-name={_quoted('scvitune-' + run_dir.name)}",
        f"--nodes={request.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={request.cpus_per_node}",
        f"--mem={request.mem}",
        f"--time={request.time}",
    ]
    for name in ("gpus_per_node", "partition", "account"):
        if (value := getattr(request, name)) is not None:
            lines.append(f"--{name.replace('_', '-')}={value}")
    lines += [f"--output={_quoted(log)}", "--open-mode=append", "--no-kill"]
    if request.array is None:
        lines.append("--requeue")
    else:
        lines.append(f"--array=1-{request.array}%1")
    lines.append(f"--signal=B:USR1@{request.signal_seconds}")
    return [*lines, *request.extra]


def _quoted(value: str) -> str:
    """Return a value as sbatch reads it from a script: in double quotes where it must be."""
    if re.fullmatch(r"[\w.,+@%:/=-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _settings(
    request: SlurmRequest, config_path: Path, overrides: Sequence[str], run_dir: Path
) -> list[str]:
    lines = [f"export SCVITUNE_RUN_DIR={shlex.quote(str(run_dir))}"]
    if request.node_ip_command is not None:
        lines.append(f"export {IP_COMMAND}={shlex.quote(request.node_ip_command)}")
    if request.min_nodes is not None:
        lines.append(f"export SCVITUNE_MIN_NODES={request.min_nodes}")
    arguments = shlex.join([str(config_path), *overrides])
    lines.append(f'set -- {arguments} "$@"')
    return lines
