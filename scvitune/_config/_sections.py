"""The sections of a configuration: data, search, resources, metrics, simulation, confirm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from scvitune._config._fields import (
    fault,
    file,
    flag,
    number,
    number_or_word,
    one_word_of,
    plain_mappings,
    seconds,
    shown,
    text,
    text_list,
    whole_number,
)

_Text = Annotated[str, text()]
_OptionalText = Annotated[str | None, text(optional=True)]
_OptionalFile = Annotated[str | None, file(optional=True)]
_TextList = Annotated[tuple[str, ...] | None, text_list()]
_OptionalCount = Annotated[int | None, whole_number(optional=True, least=1)]
_OptionalMinimum = Annotated[int | None, whole_number(optional=True, least=0)]
_OptionalBudget = Annotated[float | None, number(optional=True, above=0)]

_ROUNDING = 1e-9


class Section(BaseModel):
    """A frozen part of a configuration.

    Validated field by field, then across fields by `cross_faults`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def cross_faults(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong between fields, as sentences that begin with a field's name.

        Parameters
        ----------
        values
            The fields that are right in themselves; others may be absent.
        """
        yield from ()

    @model_validator(mode="after")
    def _check_across_fields(self) -> Section:
        faults = list(self.cross_faults(dict(self)))
        if faults:
            raise fault(" ".join(faults))
        return self


class DataConfig(Section):
    """Where the cells are, what their columns mean, and which of them are used.

    Attributes
    ----------
    path
        An ``.h5ad`` file, or the name of a built-in dataset; None when the data came from Python.
    layer
        The layer with raw counts; None: ``X``.
    batch_key, labels_key, size_factor_key
        Columns of ``obs``, as in scvi-tools' ``setup_anndata``.
    categorical_covariate_keys, continuous_covariate_keys
        More columns of ``obs``.
    n_top_genes
        Keep this many highly variable genes; None, or where there are fewer: all.
    min_counts, min_genes
        Drop cells with fewer counts, or with fewer genes detected.
    min_cells
        Drop genes detected in fewer cells.
    reference
        Single cells with labels, for models of spatial spots.
    """

    path: _OptionalFile = None
    layer: _OptionalText = None
    batch_key: _OptionalText = None
    labels_key: _OptionalText = None
    size_factor_key: _OptionalText = None
    categorical_covariate_keys: _TextList = None
    continuous_covariate_keys: _TextList = None
    n_top_genes: _OptionalCount = None
    min_counts: _OptionalMinimum = None
    min_genes: Annotated[int | None, whole_number(optional=True, least=0)] = None
    min_cells: Annotated[int | None, whole_number(optional=True, least=0)] = None
    reference: _OptionalFile = None


class SearchConfig(Section):
    """How the space is searched, and on what budget.

    Attributes
    ----------
    searcher, scheduler, strategy
        Names; ``strategy`` stands for a pair of the other two and excludes them.
    rung_value
        What the scheduler compares of a trial's curve: ``"best"`` so far (the default, as trials
        are judged by their best report in the end), ``"value"`` at the rung, or a ``"smoothed"``
        one.
    first_rung_cells
        Share of the training cells that trials see until the scheduler's first rung; it grows as
        the rungs do, up to all. None: all from the beginning.
    num_samples
        Trials proposed by the searcher; the default configuration comes on top.
    max_epochs
        Longest training of a trial; None: scvi-tools' own default.
    time_budget_s, epoch_budget
        The study ends after so many seconds, or so many epochs in all trials together.
    points_to_evaluate
        Configurations to try first.
    default_trial
        Whether trial 0 is the model's default configuration.
    max_concurrent
        Most trials at once; None: as many as fit.
    max_failures
        How often a trial is tried again after its process has died.
    max_silence_s
        Seconds without a sign of life after which a trial's process is ended as frozen; a trial
        hands over every 15 seconds, but for a batch or a metric that takes longer. None: never.
    train_size, test_size
        Shares of the cells; the rest validates.
    seed
        Everything random derives from it.
    """

    searcher: _OptionalText = None
    scheduler: _OptionalText = None
    strategy: _OptionalText = None
    rung_value: Annotated[
        Literal["best", "value", "smoothed"] | None, one_word_of("best", "value", "smoothed")
    ] = None
    first_rung_cells: Annotated[float | None, number(optional=True, above=0, below=1)] = None
    num_samples: Annotated[int, whole_number(least=0)] = 50
    max_epochs: _OptionalCount = None
    time_budget_s: Annotated[float | None, seconds(optional=True, above=0)] = None
    epoch_budget: _OptionalBudget = None
    points_to_evaluate: Annotated[tuple[dict[str, Any], ...], plain_mappings()] = ()
    default_trial: Annotated[bool, flag()] = True
    max_concurrent: _OptionalCount = None
    max_failures: Annotated[int, whole_number(least=0)] = 2
    max_silence_s: Annotated[float | None, number(optional=True, least=30)] = 3600.0
    train_size: Annotated[float, number(above=0, below=1)] = 0.8
    test_size: Annotated[float, number(least=0, below=1)] = 0.1
    seed: Annotated[int, whole_number(least=0, below=2**63)] = 0

    @classmethod
    def cross_faults(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong between fields."""
        train, test = values.get("train_size"), values.get("test_size")
        if train is not None and test is not None and train + test > 1 - _ROUNDING:
            yield (
                f"train_size ({train:g}) and test_size ({test:g}) must leave cells to validate "
                f"on: their sum must be below 1, but is {train + test:g}. Lower one of them."
            )
        taken = [name for name in ("searcher", "scheduler") if values.get(name) is not None]
        if values.get("strategy") is not None and taken:
            given = " and ".join(f"{name} {values[name]!r}" for name in taken)
            yield (
                f"strategy {values['strategy']!r} chooses the searcher and the scheduler itself, "
                f"but {given} is given too. Leave out either the strategy or the other."
            )
        if (
            values.get("num_samples") == 0
            and values.get("default_trial") is False
            and not values.get("points_to_evaluate")
        ):
            yield (
                "num_samples is 0, default_trial is false and points_to_evaluate is empty, so "
                "there is nothing to run. Set num_samples to at least 1."
            )


class Resources(Section):
    """What one trial reserves.

    Attributes
    ----------
    cpu
        CPU cores; a share such as 0.5 is allowed.
    gpu
        GPUs; 0.25 puts four trials on one. ``"auto"``: as many trials on one as train most
        epochs an hour together, which is measured before the study starts; none where there is
        no GPU.
    tf32
        Whether a GPU's matrix products may round their factors to TF32: faster, and not the
        numbers of a CPU.
    fused
        How many trials such a slot trains together, as one batched model where they share their
        architecture; see the README.
    device
        What trials train on; None: ``cuda`` where they have a ``gpu``, else ``cpu``. ``mps``,
        Apple's GPU, is never chosen by itself. Ray does not divide it: as many trials share it as
        ``cpu`` lets train at a time.
    """

    cpu: Annotated[float, number(above=0)] = 1.0
    gpu: Annotated[float | Literal["auto"], number_or_word("auto", least=0)] = 0.0
    tf32: Annotated[bool, flag()] = False
    fused: Annotated[int, whole_number(least=1)] = 1
    device: Annotated[str | None, one_word_of("cpu", "cuda", "mps")] = None

    @classmethod
    def cross_faults(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong between fields."""
        gpu, device = values.get("gpu"), values.get("device")
        if device == "cuda" and gpu == 0:
            yield (
                "device is 'cuda', but gpu is 0. Say how much of a GPU a trial gets, such as gpu: "
                "1 or 0.25."
            )
        if device in ("cpu", "mps") and gpu is not None and gpu != 0:
            yield (
                f"device is {device!r}, but gpu is {shown(gpu)}, which counts CUDA's GPUs. Leave "
                "one of them out."
            )
        if isinstance(gpu, float) and gpu > 1 and gpu != int(gpu):
            yield (
                f"gpu must be a share of one GPU or a whole number of them, but is {shown(gpu)}."
            )


class MetricOptions(Section):
    """How metrics are measured.

    Attributes
    ----------
    n_mc_samples
        Importance samples a cell of ``marginal_ll_*``. More make it less biased (it is a lower
        bound of the truth in expectation), at a cost in proportion.
    max_cells
        Metrics other than the ELBO and its parts are measured on at most so many cells of a
        split, chosen once a study. A user's own gets all cells.
    corruption
        How counts are corrupted for ``imputation_mae_*``: ``uniform``, set to zero; ``binomial``,
        replaced by Binomial(count, 0.2).
    corrupted_share
        Share of the non-zero counts that are corrupted.
    """

    n_mc_samples: Annotated[int, whole_number(least=1)] = 100
    max_cells: Annotated[int, whole_number(least=2)] = 2000
    corruption: Annotated[
        Literal["uniform", "binomial"], one_word_of("uniform", "binomial", optional=False)
    ] = "uniform"
    corrupted_share: Annotated[float, number(above=0, below=1)] = 0.1


class SimulationConfig(Section):
    """What the simulated tissues of a deconvolution are like; as many spots as yours, as deep.

    Arguments of `scvitune.data.simulate_composition`, which says how exactly each is meant. The
    tissues lie on a square grid of their own: DestVI looks at no coordinates, so those of the real
    spots (``obsm["spatial"]``) are neither needed nor read.

    Attributes
    ----------
    max_cells
        Most cells a spot, from 1 to 10000; every number from 1 is equally likely.
    concentration
        How mixed a spot is, from 0.01 to 1000000: 1 gives about two cell types, 3 about three,
        100 as many as there are cells.
    smoothness
        0: spots are independent. Above: compositions are alike over about so many spots of the
        grid, at most as many as lie along an edge of it. That leaves a single spot's composition
        as it is and makes a tissue of fewer different ones.
    """

    max_cells: Annotated[int, whole_number(least=1)] = 10
    concentration: Annotated[float, number(above=0)] = 3.0
    smoothness: Annotated[float, number(least=0)] = 0.0


class ConfirmConfig(Section):
    """The best configurations are trained again with other seeds.

    Attributes
    ----------
    top_k
        How many configurations, the default among them where the search ranks it so high; else
        it comes on top.
    seeds
        How many seeds each.
    """

    top_k: Annotated[int, whole_number(least=1)]
    seeds: Annotated[int, whole_number(least=1)]
