"""What the scripts in ``slurm/`` call: ``python -m scvitune.cluster begin|head|worker|note``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from scvitune.cluster._beginning import begin_job
from scvitune.cluster._job_files import JobFiles, note_job
from scvitune.cluster._node import NodeRequest, run_node
from scvitune.cluster._node_resources import check_shared, node_cpus, node_gpus, node_ip
from scvitune.cluster._queue import OtherJobError
from scvitune.cluster._scripts import scripts_dir
from scvitune.errors import InputError, ScvituneError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)

_OTHER_JOB = 3  # submit.sbatch knows it
_Directory = Annotated[Path, typer.Argument(help="RUN/cluster/JOB_ID")]


@app.command()
def begin(
    config: Path,
    overrides: Annotated[list[str] | None, typer.Argument()] = None,
    job_id: Annotated[str, typer.Option()] = "",
    restarts: Annotated[int, typer.Option()] = 0,
    log: Annotated[str, typer.Option()] = "",
) -> None:
    """Find or make the run directory and print the job's directory in it."""
    files = begin_job(
        config,
        overrides or [],
        job_id=job_id,
        restarts=restarts,
        log=log if Path(log).is_file() else None,
    )
    print(files.directory)


@app.command()
def head(directory: _Directory) -> None:
    """Be the head of the job's Ray cluster until told to end."""
    _run(directory, address=None)


@app.command()
def worker(directory: _Directory) -> None:
    """Be another node of it."""
    check_shared(directory)
    _run(directory, address=JobFiles(directory).wait_for_address())


@app.command()
def note(run_dir: Path, fields: list[str]) -> None:
    """Write down what became of the job, for ``scvitune status``."""
    note_job(run_dir, **dict(field.split("=", 1) for field in fields))


@app.command()
def scripts() -> None:
    """Print where head.sh and worker.sh lie."""
    print(scripts_dir())


def _run(directory: Path, *, address: str | None) -> None:
    request = NodeRequest(
        name=os.environ.get("SLURMD_NODENAME") or os.uname().nodename,
        cpus=node_cpus(),
        gpus=node_gpus(),
        ip=node_ip(),
        address=address,
        dashboard=os.environ.get("SCVITUNE_DASHBOARD") == "1",
    )
    raise typer.Exit(run_node(request, JobFiles(directory)))


if __name__ == "__main__":
    try:
        app(prog_name="python -m scvitune.cluster")
    except ScvituneError as error:
        print(f"Error: {error}", file=sys.stderr)
        if isinstance(error, OtherJobError):
            sys.exit(_OTHER_JOB)
        sys.exit(2 if isinstance(error, InputError) else 1)
