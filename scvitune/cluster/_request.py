"""What is asked of Slurm, checked all at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scvitune.errors import Faults

_TIME = re.compile(r"\d+|\d+:\d{1,2}|\d+:\d{1,2}:\d{1,2}|\d+-\d{1,2}(:\d{1,2}){0,2}")
_MEMORY = re.compile(r"\d+[KMGT]?")
_GPUS = re.compile(r"([A-Za-z][\w.-]*:)?\d+")
_WORD = re.compile(r"[\w.,+@:/][\w.,+@:/-]*")


@dataclass(frozen=True)
class SlurmRequest:
    """The settings of a job, by the names of ``scvitune slurm``'s options.

    Attributes
    ----------
    nodes
        Machines.
    gpus_per_node
        A number, or a type and a number, such as ``a100:4``.
    cpus_per_node, mem
        Of each machine; ``mem`` as Slurm writes it, such as ``32G``.
    time
        Longest time of one job, as Slurm writes it: ``90`` (minutes), ``4:00:00``, ``2-12``.
    partition, account
        As the cluster names them.
    array
        So many jobs one after the other, each of which goes on where the last one ended, for
        clusters that do not let jobs requeue themselves; None: one that requeues itself.
    min_nodes
        The study starts with so many if not all have come after three minutes; None: with one.
    node_ip_command
        A command that prints on each node the address to reach it by.
    setup
        A file of shell commands that make Python available in a job.
    extra
        Further options of sbatch, such as ``--constraint=gpu``.
    signal_seconds
        So long before the time limit the trials save what they have.
    """

    nodes: int = 1
    gpus_per_node: str | None = None
    cpus_per_node: int = 8
    mem: str = "32G"
    time: str = "04:00:00"
    partition: str | None = None
    account: str | None = None
    array: int | None = None
    min_nodes: int | None = None
    node_ip_command: str | None = None
    setup: Path | None = None
    extra: Sequence[str] = ()
    signal_seconds: int = 120

    @property
    def n_gpus(self) -> int:
        """GPUs of each machine."""
        return int(self.gpus_per_node.rpartition(":")[2]) if self.gpus_per_node else 0

    def describe(self) -> str:
        """Return what is asked for, in words."""
        parts = [
            "1 node" if self.nodes == 1 else f"{self.nodes} nodes",
            f"{self.cpus_per_node} CPUs, {self.mem}"
            + (f" and GPUs {self.gpus_per_node}" if self.gpus_per_node else "")
            + ("" if self.nodes == 1 else " each"),
            f"time {self.time}",
        ]
        for name in ("partition", "account", "array"):
            if (value := getattr(self, name)) is not None:
                parts.append(f"{name} {value}")
        return ", ".join([*parts, *self.extra])

    def check(self, faults: Faults) -> None:
        """Note everything that is wrong."""
        for name in ("nodes", "cpus_per_node", "array", "min_nodes", "signal_seconds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                faults.add(f"{_option(name)} must be a whole number from 1, but is {value}.")
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            faults.add(f"--min-nodes is {self.min_nodes}, but --nodes is only {self.nodes}.")
        for name, pattern, example in (
            ("time", _TIME, "90 (minutes), 4:00:00 or 2-12:00:00 (two and a half days)"),
            ("mem", _MEMORY, "32G"),
            ("gpus_per_node", _GPUS, "2 or a100:2"),
            ("partition", _WORD, "gpu"),
            ("account", _WORD, "lab_smith"),
        ):
            value = getattr(self, name)
            if value is not None and not pattern.fullmatch(value):
                faults.add(f"{_option(name)} must look like {example}, but is {value!r}.")
        for option in self.extra:
            if not option.startswith("-") or "\n" in option:
                faults.add(
                    f"--extra must be an option of sbatch on one line, such as "
                    f"--extra='--constraint=gpu', but is {option!r}."
                )
        if self.node_ip_command is not None and not self.node_ip_command.strip():
            faults.add("--node-ip-command is empty. Give a command, such as 'hostname -I'.")
        if self.setup is not None:
            self._check_setup(faults)

    def _check_setup(self, faults: Faults) -> None:
        try:
            if self.setup is not None:
                self.setup.read_text()
        except (OSError, UnicodeDecodeError) as error:
            faults.add(
                f"--setup is {str(self.setup)!r}, which cannot be read ({error}). It must be a "
                "file of shell commands, such as: module load python; source venv/bin/activate"
            )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
