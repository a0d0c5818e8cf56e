from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scvitune.contracts import RunLayout
from scvitune.events import EventLog
from scvitune.results import Run, read_run
from scvitune.results._intervals import compare_cells

SETTINGS: dict[str, Any] = {
    "name": "pbmc",
    "metric": "elbo_validation",
    "mode": "min",
    "model": "SCVI",
    "search": {"searcher": "tpe", "scheduler": "asha", "num_samples": 3, "max_epochs": 4},
    "space": {
        "lr": {"type": "loguniform", "low": "1e-4", "high": 1e-2},
        "n_latent": {"type": "randint", "low": 5, "high": 50},
        "n_hidden": {"type": "choice", "values": [64, 128, 256], "ordered": True},
    },
    "report_epochs": [1, 2, 4],
    "versions": {"scvi-tools": "1.4.2", "ray": "2.60.0"},
    "fingerprint": "cafe01",
    "n_cells": 100,
    "n_genes": 20,
    "split": {"train": 80, "validation": 10, "test": 10},
}
DEFAULT = {"lr": 1e-3, "n_latent": 10, "n_hidden": 128, "gene_likelihood": "zinb", "clip": None}


class Builder:
    """Writes a run directory, line by line."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.layout = RunLayout(root)
        self.log = EventLog(self.layout.events)
        self.settings()

    def settings(self, **changes: Any) -> None:
        text = yaml.safe_dump({**SETTINGS, **changes})
        self.layout.study.write_text(text, encoding="utf-8")

    def driver(self, action: str, **fields: Any) -> None:
        self.log.append("driver", action=action, slots=2, pid=1, host="h", **fields)

    def trial(
        self,
        trial_id: str,
        config: Mapping[str, Any] | None = None,
        *,
        values: Mapping[float, float] | None = None,
        status: str | None = "finished",
        origin: str = "tpe",
        reason: str = "",
        started: bool = True,
        drawn: str | None = None,
    ) -> None:
        said = {} if drawn is None else {"drawn": drawn}
        self.log.append(
            "proposal", trial_id=trial_id, config=config or DEFAULT, origin=origin, **said
        )
        if started:
            self.log.append("start", trial_id=trial_id)
        for epoch, value in (values or {}).items():
            metrics = {"elbo_train": value - 1, "elbo_validation": value}
            self.log.append(
                "report",
                trial_id=trial_id,
                epoch=epoch,
                time_s=epoch * 2,
                n_params=1000,
                metrics=metrics,
            )
        if status:
            self.log.append("end", trial_id=trial_id, status=status, reason=reason)

    def judge(self, trial_id: str, **metrics: float) -> None:
        self.log.append("judgement", trial_id=trial_id, metrics=metrics)

    def judge_cells(
        self,
        trial_id: str,
        values: Sequence[float],
        default: Sequence[float],
        others: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
        **more: Any,
    ) -> None:
        """A trial and the default by their negative ELBO of each test cell, and other metrics."""
        pairs = {"elbo_test": (values, default), **(others or {})}
        paired = {}
        for name, pair in pairs.items():
            found = compare_cells(*map(np.array, pair))
            assert found is not None
            paired[name] = {"against": "00000", **asdict(found), **more}
        ours, theirs = (
            {name: float(np.mean(pair[i])) for name, pair in pairs.items()} for i in (0, 1)
        )
        self.judge("00000", **theirs)
        self.log.append("judgement", trial_id=trial_id, metrics=ours, paired=paired)

    def confirm(self, trial_id: str, seed: int, **metrics: float) -> None:
        """A training with a fresh seed that came to its end."""
        self.log.append(
            "confirmation",
            trial_id=trial_id,
            seed=seed,
            epoch=4.0,
            time_s=1.0,
            status="finished",
            reason="",
            metrics=metrics,
        )

    def read(self) -> Run:
        return read_run(self.layout.root)


@pytest.fixture
def new_run(tmp_path: Path) -> Iterator[Callable[..., Builder]]:
    made: list[Builder] = []

    def make(name: str = "pbmc") -> Builder:
        made.append(Builder(tmp_path / name))
        return made[-1]

    yield make
    for builder in made:
        builder.log.close()


@pytest.fixture
def small_run(new_run: Callable[..., Builder]) -> Builder:
    """Default 10.0 at epoch 4, best 8.0 at epoch 2 (then worse), one stopped, one diverged."""
    run = new_run()
    run.driver("start")
    run.trial("00000", DEFAULT, values={1.0: 20.0, 2.0: 12.0, 4.0: 10.0}, origin="default")
    nb = {"lr": 0.005, "n_latent": 12, "n_hidden": 128, "gene_likelihood": "nb", "clip": 5}
    run.trial("00001", nb, values={1.0: 15.0, 2.0: 8.0, 4.0: 9.0})
    run.trial("00002", {**DEFAULT, "dispersion": "gene"}, values={1.0: 30.0}, status="stopped")
    run.trial("00003", nb, values={1.0: 1.0}, status="diverged", reason="NaN loss")
    run.judge("00000", elbo_test=11.0)
    run.judge("00001", elbo_test=8.8)
    run.driver("end")
    return run
