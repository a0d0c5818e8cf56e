"""The model that another is built on: trained once a configuration and shared by all trials.

DestVI is built on a CondSCVI of the reference. Trials with the same ``condscvi_`` hyperparameters
share one; the first that wants it trains it, and others wait for it meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from scvitune._disk import write_whole
from scvitune._locking import take_lock
from scvitune._seeding import derive_seed
from scvitune.contracts import Batch, PreparedData, Split
from scvitune.data import copy_to_node, load_prepared, load_split
from scvitune.errors import CheckpointError
from scvitune.models import (
    FirstStage,
    HeldOutGenes,
    ModelAdapter,
    Reference,
    cluster_states,
    get_adapter,
)
from scvitune.training import (
    DeviceData,
    Divergence,
    TrainingLoop,
    TrainingSettings,
    load_checkpoint,
    save_checkpoint,
    seeded_initialisation,
)

FIRST_MODEL = "CondSCVI"
HELD_OUT_METRIC = "reconstruction_loss_validation"
_N_REPORTS = 20


@dataclass(frozen=True)
class Stages:
    """Where a study's first stages come from; plain values, so that Ray can carry it.

    Attributes
    ----------
    reference_dir
        Of the prepared cells.
    split
        File that says which of them train it.
    directory
        Where trained ones lie.
    seed
        The study's.
    device
        ``cpu`` or ``cuda``.
    defaults
        `ModelAdapter.defaults` of the first model; None: read from scvi-tools.
    """

    reference_dir: str
    split: str
    directory: str
    seed: int
    device: str = "cpu"
    defaults: Any = None

    def to_plain(self) -> dict[str, Any]:
        """Return it as a dictionary, for its constructor."""
        return asdict(self)

    @property
    def reference(self) -> Reference:
        """What a first stage is trained on; nothing of it is read but shapes."""
        return Reference(_open(self.reference_dir), self.defaults)

    def bind(
        self, adapter: ModelAdapter, config: Mapping[str, Any], genes: Sequence[str]
    ) -> ModelAdapter:
        """Return the adapter, bound to the first stage that a configuration asks for.

        Parameters
        ----------
        genes
            Those that the model is to be trained on, all or some of the first stage's.
        """
        return adapter.on(self.obtain(adapter.first_stage_config(config)).restricted(genes))

    def obtain(self, config: Mapping[str, Any]) -> FirstStage:
        """Return the first stage of a configuration without prefixes; train it if nobody has.

        Raises
        ------
        scvitune.training.Divergence
            If its training diverged, now or when another trial wanted it: the same seed and the
            same cells would diverge again.
        """
        text = json.dumps(dict(config), sort_keys=True)
        name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        path = Path(self.directory) / f"{name}.pt"
        if not self._is_there(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".lock").open("a") as lock:
                take_lock(lock, wait=True)
                if not self._is_there(path):  # another trial may have trained it meanwhile
                    self._train_once(config, path)
        return _load(str(path))

    def _is_there(self, path: Path) -> bool:
        """Whether a first stage is there and can be read; a damaged one is trained anew."""
        if not path.exists():
            return False
        try:
            _load(str(path))
        except CheckpointError:
            return False
        return True

    def _train_once(self, config: Mapping[str, Any], path: Path) -> None:
        """Write the first stage to ``path``, or beside it why there is none."""
        diverged = path.with_suffix(".diverged")
        if not diverged.exists():
            try:
                save_checkpoint(path, vars(self._train(config)))
            except Divergence as error:
                write_whole(diverged, f"the first stage ({FIRST_MODEL}): {error}".encode())
        if diverged.exists():
            raise Divergence(diverged.read_text())

    def _train(self, config: Mapping[str, Any]) -> FirstStage:
        own = dict(config)
        max_epochs, n_clusters = own.pop("max_epochs"), own.pop("vamp_prior_p")
        adapter = get_adapter(FIRST_MODEL, defaults=self.defaults)
        device = torch.device(self.device)
        prepared = load_prepared(copy_to_node(Path(self.reference_dir)))
        split = load_split(Path(self.split))
        seed = derive_seed(self.seed, "first stage", own)
        with seeded_initialisation(derive_seed(seed, "weights")):
            objective = adapter.build_objective(own, prepared)
        objective.module.to(device)
        data = DeviceData(prepared, device)
        loop = TrainingLoop(
            objective,
            data,
            split,
            TrainingSettings(**adapter.training_arguments(own)),
            seed=seed,
            evaluation_seed=derive_seed(self.seed, "evaluation"),
        )
        reports = []
        for i in range(1, _N_REPORTS + 1):
            loop.advance(max_epochs * i / _N_REPORTS)
            losses = loop.training_losses()
            if losses:
                reports.append((loop.epoch, {f"{k}_train": v for k, v in losses.items()}))
        means, variances, shares = _prior(
            loop, prepared, data, split, n_clusters=n_clusters, seed=seed % 2**32
        )
        module = objective.module
        return FirstStage(
            weights={name: value.cpu() for name, value in loop.copy_weights().items()},
            arguments={
                name: getattr(module, name)
                for name in ("n_hidden", "n_latent", "n_layers", "dropout_rate")
            },
            means=means,
            variances=variances,
            shares=shares,
            types=_types(prepared),
            genes=prepared.gene_names,
            config=dict(config),
            reports=tuple(reports),
        )


def _types(prepared: PreparedData) -> tuple[str, ...]:
    key = prepared.setup["kwargs"]["labels_key"]
    return tuple(str(name) for name in prepared.setup["categories"][key])


@lru_cache(maxsize=1)
def _open(directory: str) -> PreparedData:
    return load_prepared(Path(directory))


@lru_cache(maxsize=4)
def _load(path: str) -> FirstStage:
    # On the host, whatever device wrote it: the model that is built on it moves as a whole.
    state = load_checkpoint(Path(path))
    return FirstStage(**{field.name: state[field.name] for field in fields(FirstStage)})


@torch.no_grad()
def _prior(
    loop: TrainingLoop,
    prepared: PreparedData,
    data: DeviceData,
    split: Split,
    *,
    n_clusters: int,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the mixture of each type: the learnt prior, or else clusters of the cells' states."""
    module: Any = loop.module
    if module.prior == "mog":
        return (
            module.prior_means.cpu().clone(),
            (2 * module.prior_log_std).exp().cpu(),
            torch.softmax(module.prior_logits, dim=-1).cpu(),
        )
    module.eval()
    cells = torch.from_numpy(split.train).to(data.device)
    means, variances = [], []
    for part in cells.split(512):
        batch = data.gather(part)
        inferred = module.inference(
            batch.counts.densify(), batch.labels.unsqueeze(1), batch.batch.unsqueeze(1)
        )
        means.append(inferred["qz"].loc.cpu())
        variances.append(inferred["qz"].scale.square().cpu())
    labels = torch.from_numpy(prepared.labels[split.train].copy())
    return cluster_states(
        torch.cat(means),
        torch.cat(variances),
        labels,
        n_labels=prepared.n_labels,
        n_clusters=n_clusters,
        seed=seed,
    )


@lru_cache(maxsize=1)
def _load_held_out(directory: str, device: str) -> tuple[DeviceData, tuple[str, ...]]:
    """Return counts on a device and their genes' names, loaded once a process."""
    prepared = load_prepared(copy_to_node(Path(directory)))
    return DeviceData(prepared, torch.device(device)), prepared.gene_names


class HeldOut:
    """Counts of genes that a trial of spots does not train on, and is judged by.

    Parameters
    ----------
    adapter, config
        Of the trial.
    stages
        Of the study.
    directory
        Of the prepared counts of these genes, in the same spots.
    """

    def __init__(
        self, adapter: ModelAdapter, config: Mapping[str, Any], stages: Stages, directory: str
    ) -> None:
        self._data, names = _load_held_out(directory, stages.device)
        stage = stages.obtain(adapter.first_stage_config(config))
        self._genes = HeldOutGenes.of(stage.restricted(names))

    def measure(self, loop: TrainingLoop) -> dict[str, float]:
        """Return their ``reconstruction_loss_validation``, nats a spot.

        Raises
        ------
        scvitune.training.Divergence
            If it is no finite number.
        """
        objective: Any = loop.objective

        def lose(batch: Batch) -> torch.Tensor:
            counts = self._data.gather(batch.cells).counts.densify()
            losses: torch.Tensor = objective.held_out_loss(batch, counts, self._genes)
            return losses

        value = float(loop.collect(lose).mean(dtype="float64"))
        if not math.isfinite(value):
            raise Divergence(f"the loss of held-out genes is {value} at epoch {loop.epoch:g}")
        return {HELD_OUT_METRIC: value}
