"""The command line: arguments in, exit codes out. The work is done in `scvitune.study`.

Exit codes: 0 done, 1 failed, 2 bad input (nothing was started), 75 unfinished, can be resumed.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import scvitune
from scvitune._flags import PlainCommand, PlainGroup
from scvitune._home import at_home
from scvitune._plain_output import announced, plain_warnings
from scvitune._ray_settings import NODES
from scvitune.errors import DiskFault, InputError, ScvituneError, UnnamedFunctionError

if TYPE_CHECKING:
    from scvitune.config import StudyConfig
    from scvitune.study import Study

__all__ = ["EXIT_BAD_INPUT", "EXIT_FAILED", "EXIT_UNFINISHED", "app", "main"]

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNFINISHED = 75
"""What ``sysexits.h`` calls a temporary failure: run ``scvitune resume``."""
app = typer.Typer(
    name="scvitune",
    cls=PlainGroup,
    help="Tune the hyperparameters of scvi-tools models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_command = partial(app.command, cls=PlainCommand)

# Most shells leave the ~ of --setup=~/x as it is.
_ConfigPath = Annotated[
    Path,
    typer.Argument(parser=at_home, metavar="CONFIG.yaml", help="The study's configuration."),
]
_RunDir = Annotated[
    Path, typer.Argument(parser=at_home, metavar="RUN_DIR", help="The study's run directory.")
]
_Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the configuration, such as search.num_samples=10. Repeatable.",
    ),
]
_MoreOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="More changes, as after --set.", hidden=True),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scvitune {scvitune.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@_command()
def tune(
    config_path: _ConfigPath,
    more_overrides: _MoreOverrides = None,
    overrides: _Overrides = None,
) -> None:
    """Run a study."""
    with _errors_as_exit_codes():
        config = _load_config(config_path, overrides, more_overrides)
        _begin(config)
        from scvitune import study

        _finish(study.tune_from_config(config))


@_command()
def check(
    config_path: _ConfigPath,
    more_overrides: _MoreOverrides = None,
    overrides: _Overrides = None,
) -> None:
    """Check configuration and data, predict memory and time, run nothing."""
    with _errors_as_exit_codes():
        config = _load_config(config_path, overrides, more_overrides)
        _begin(config)
        from scvitune._checking import check

        lines, taken = check(config)
        for line in lines:
            _print(line)
        if taken:  # `tune` would refuse it
            raise InputError(taken)


@_command()
def resume(
    run_dir: _RunDir,
    num_samples: Annotated[
        int | None,
        typer.Option(min=1, help="The new total number of trials that the searcher proposes."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What trials get this time (resources.gpu=0), or what follows the search from "
            "now on (confirm.top_k=3, confirm.seeds=5, final_fit=all_cells). Repeatable.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="A metric of your own to import, if asked for it. Repeatable.",
        ),
    ] = None,
) -> None:
    """Go on with a study that was interrupted, give it more trials, or confirm its winner."""
    with _errors_as_exit_codes():
        _print(f"scvitune {scvitune.__version__}: opening {run_dir} ...", to_stderr=True)
        from scvitune import study
        from scvitune.config import parse_changes

        changes = parse_changes(overrides or ())
        go_on = partial(study.resume, run_dir, num_samples=num_samples, **changes)
        try:
            resumed = go_on(metric=metric)
        except UnnamedFunctionError as error:
            if not _wants_import(error):
                raise
            resumed = go_on(metric=[*(metric or ()), *error.functions])
        _finish(resumed)


@_command()
def report(
    run_dir: _RunDir,
    umap: Annotated[
        bool,
        typer.Option(help="Draw the latent spaces, tuned beside default (loads the models)."),
    ] = True,
) -> None:
    """Write the tables, the plots and report.html of a study, and print its summary."""
    with _errors_as_exit_codes():
        from scvitune import study

        found = study.load(run_dir)
        if umap:
            try:
                found.plot("umap")
            except DiskFault:
                raise
            except ScvituneError as error:  # tables and the other plots need no models
                _print(f"No UMAP: {error}", to_stderr=True)
        path = found.write_report()
        _print(found.summary())
        _print(str(path))


@_command()
def status(run_dir: _RunDir) -> None:
    """Tell what a study is doing, from its directory alone (and from Slurm where there is one)."""
    with _errors_as_exit_codes():
        from scvitune._status import describe_status

        for line in describe_status(run_dir):
            _print(line)


@_command()
def slurm(
    config_path: _ConfigPath,
    more_overrides: _MoreOverrides = None,
    overrides: _Overrides = None,
    nodes: Annotated[int, typer.Option(help="Machines.")] = 1,
    gpus_per_node: Annotated[
        str | None, typer.Option(metavar="[TYPE:]N", help="GPUs of each machine, such as a100:4.")
    ] = None,
    cpus_per_node: Annotated[int, typer.Option(help="CPUs of each machine.")] = 8,
    mem: Annotated[str, typer.Option(metavar="SIZE", help="Memory of each machine.")] = "32G",
    time: Annotated[
        str, typer.Option(metavar="TIME", help="Of one job: 90 (minutes), 4:00:00 or 2-12:00:00.")
    ] = "04:00:00",
    partition: Annotated[str | None, typer.Option(help="Slurm's partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm's account.")] = None,
    array: Annotated[
        int | None,
        typer.Option(help="Instead of one job that requeues itself, so many in turn."),
    ] = None,
    min_nodes: Annotated[
        int | None, typer.Option(help="Start with so many if not all come within three minutes.")
    ] = None,
    node_ip_command: Annotated[
        str | None, typer.Option(metavar="CMD", help="Prints on each node the address to use.")
    ] = None,
    setup: Annotated[
        Path | None,
        typer.Option(
            parser=at_home, metavar="FILE", help="Commands that make Python available in a job."
        ),
    ] = None,
    signal_seconds: Annotated[
        int, typer.Option(help="So long before the time limit trials save what they have.")
    ] = 120,
    extra: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="Another option of sbatch. Repeatable."),
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit the job at once.")] = False,
) -> None:
    """Write the batch script of a study, and submit it."""
    with _errors_as_exit_codes():
        from scvitune._checking import check_without_data
        from scvitune.cluster import SlurmRequest, describe_submission, prepare_submission

        request = SlurmRequest(
            nodes=nodes,
            gpus_per_node=gpus_per_node,
            cpus_per_node=cpus_per_node,
            mem=mem,
            time=time,
            partition=partition,
            account=account,
            array=array,
            min_nodes=min_nodes,
            node_ip_command=node_ip_command,
            setup=setup,
            signal_seconds=signal_seconds,
            extra=tuple(extra or ()),
        )
        changes = [*(overrides or ()), *(more_overrides or ())]
        submission = prepare_submission(
            config_path, changes, request, submit=submit, check=check_without_data
        )
        for line in describe_submission(submission):
            _print(line)


_Cpus = Annotated[int | None, typer.Option(help="For trials; default: all there are.")]
_Gpus = Annotated[int | None, typer.Option(help="For trials; default: all there are.")]
_IpCommand = Annotated[
    str | None, typer.Option(metavar="CMD", help="Prints this machine's address to use.")
]


@_command()
def head(
    run_dir: Annotated[
        Path,
        typer.Option(
            parser=at_home, metavar="RUN_DIR", help="Of the study, on storage that all share."
        ),
    ],
    port: Annotated[int, typer.Option(help="Where it listens; 0: a free port.")] = 0,
    cpus: _Cpus = None,
    gpus: _Gpus = None,
    node_ip_command: _IpCommand = None,
) -> None:
    """Be the head that workers on other machines join, until Ctrl-C."""
    with _errors_as_exit_codes():
        from scvitune.cluster import be_head

        options = {"cpus": cpus, "gpus": gpus}
        raise typer.Exit(be_head(run_dir, port=port, node_ip_command=node_ip_command, **options))


@_command()
def worker(
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Of the running head.")],
    token_file: Annotated[
        Path,
        typer.Option(
            parser=at_home, metavar="FILE", help="The head's token: RUN/cluster/JOB/token."
        ),
    ],
    cpus: _Cpus = None,
    gpus: _Gpus = None,
    node_ip_command: _IpCommand = None,
) -> None:
    """Let this machine work for a head that runs elsewhere, until it ends or Ctrl-C."""
    with _errors_as_exit_codes():
        from scvitune.cluster import join_as_worker

        raise typer.Exit(
            join_as_worker(
                address, token_file, cpus=cpus, gpus=gpus, node_ip_command=node_ip_command
            )
        )


def _load_config(
    path: Path, overrides: list[str] | None, more_overrides: list[str] | None
) -> StudyConfig:
    from scvitune.config import load_config

    def check_rest(config: StudyConfig, doubtful: frozenset[str]) -> None:
        _begin(config)
        from scvitune._checking import check_beside

        check_beside(config, doubtful)

    changes = [*(overrides or ()), *(more_overrides or ())]
    return load_config(path, overrides=changes, rest=check_rest)


def _begin(config: StudyConfig) -> None:
    """Say at once what is being done: imports and reading take seconds, or minutes."""
    path = None if config.data is None else config.data.path
    doing = f"reading {path}" if path else "starting"
    _print(f"scvitune {scvitune.__version__}: {doing} ...", to_stderr=True)


def _finish(study: Study) -> None:
    summary = study.summary()
    _print(summary)
    if not study.finished:
        advice = f" Go on with: scvitune resume {shlex.quote(str(study.path))}"
        # Of a job of ours the script says how it goes on; the summary may have said it.
        is_said = os.environ.get(NODES) or "scvitune resume " in summary
        _print(f"Unfinished.{'' if is_said else advice}", to_stderr=True)
        raise typer.Exit(EXIT_UNFINISHED)


def _wants_import(error: UnnamedFunctionError) -> bool:
    """Ask whether what a run directory names may be imported; nobody is there: it may not."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    _print(str(error), to_stderr=True)
    return typer.confirm(f"Import {' and '.join(error.functions)}?", err=True)


@contextmanager
def _errors_as_exit_codes() -> Iterator[None]:
    try:
        with plain_warnings(), announced(partial(_print, to_stderr=True)):
            yield
    except InputError as error:
        _print(f"Error: {error}", to_stderr=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except DiskFault as error:
        _print(f"Error: {error}", to_stderr=True)
        raise typer.Exit(EXIT_UNFINISHED) from None
    except ScvituneError as error:
        _print(f"Error: {error}", to_stderr=True)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt as error:
        notes = getattr(error, "__notes__", [])
        if not notes:  # nothing can be gone on with, or it was said how
            raise
        _print("\n".join(notes), to_stderr=True)
        raise typer.Exit(EXIT_UNFINISHED) from None


def _print(text: str, *, to_stderr: bool = False) -> None:
    from rich.console import Console

    # plain: brackets in paths and messages are no markup, and paths must stay in one piece
    with suppress(OSError):  # a terminal that has gone must not change how a command ends
        Console(stderr=to_stderr, soft_wrap=True).print(text, markup=False, highlight=False)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends the process with the exit code.

    Parameters
    ----------
    arguments
        What follows the program's name; None: those of the process.
    """
    run: Callable[..., None] = app
    run(args=arguments, prog_name="scvitune")


if __name__ == "__main__":
    main()
