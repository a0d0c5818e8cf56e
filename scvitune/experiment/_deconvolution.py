"""What a study of spots trains on and is judged on, beside the spots themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scvitune._seeding import derive_seed
from scvitune.config import DataConfig, SimulationConfig, StudyConfig
from scvitune.contracts import PreparedData, RunLayout, Split
from scvitune.data import (
    DeconvolutionData,
    add_setting_faults,
    load_prepared,
    load_split,
    prepare_deconvolution,
    read_anndata,
    save_prepared,
    simulate_tissue,
    split_reference,
    take_genes,
)
from scvitune.errors import Faults, InputError, one_of
from scvitune.models import get_adapter
from scvitune.staging import FIRST_MODEL, HELD_OUT_METRIC, Stages

TARGETS = ("simulated", "truth", "likelihood")
_HELD_OUT_GENES = 0.1
"""Share of the genes that trials are judged by under the target ``likelihood``."""

_USED_OF_DATA = ("path", "reference", "layer", "batch_key", "labels_key")

TRUTH_KEY = "proportions"
SETTINGS = "deconvolution"
"""Where study.yaml keeps what is here."""


@dataclass(frozen=True)
class Tissues:
    """The data of a study of spots, in memory until they are saved.

    Attributes
    ----------
    reference
        The cells.
    search
        The tissue that trials train on.
    test
        A tissue that no trial sees.
    split
        Of the cells: to train the first stage on, and to sum into the two tissues.
    held_out
        Counts of genes that trials are judged by; ``search`` then lacks them.
    """

    reference: PreparedData
    search: PreparedData
    test: PreparedData
    split: Split
    held_out: PreparedData | None = None

    def saved(self, storage: Path) -> Tissues:
        """Write them beside the runs and return them from there."""
        return Tissues(
            reference=save_prepared(self.reference, storage),
            search=save_prepared(self.search, storage),
            test=save_prepared(self.test, storage),
            split=self.split,
            held_out=None if self.held_out is None else save_prepared(self.held_out, storage),
        )

    @property
    def held_out_dir(self) -> str | None:
        """Where the held-out counts lie."""
        if self.held_out is None:
            return None
        return str(Path(self.held_out.directory or "").resolve())

    def to_settings(self, layout: RunLayout) -> dict[str, Any]:
        """Return what study.yaml keeps of it."""
        parts = {"reference": self.reference, "search": self.search, "test": self.test}
        if self.held_out is not None:
            parts["held_out"] = self.held_out
        return {
            f"{name}_dir": os.path.relpath(prepared.directory or "", layout.root)
            for name, prepared in parts.items()
        }

    @classmethod
    def from_settings(cls, layout: RunLayout, settings: Mapping[str, Any]) -> Tissues:
        """Open what `to_settings` describes."""

        def load(name: str) -> PreparedData:
            return load_prepared((layout.root / settings[f"{name}_dir"]).resolve(), verify=True)

        return cls(
            load("reference"),
            load("search"),
            load("test"),
            load_split(layout.reference_split),
            load("held_out") if "held_out_dir" in settings else None,
        )

    def stages(self, layout: RunLayout, *, seed: int, device: str) -> Stages:
        """Return how trials come by their first stages."""
        return Stages(
            reference_dir=str(Path(self.reference.directory or "").resolve()),
            split=str(layout.reference_split.resolve()),
            directory=str(layout.first_stages.resolve()),
            seed=seed,
            device=device,
            defaults=get_adapter(FIRST_MODEL).defaults,
        )


def check_target(config: StudyConfig, *, has_reference: bool, faults: Faults) -> None:
    """Check what only studies of spots take."""
    has_first_stage = get_adapter(config.model).first_stage_prefix is not None
    if not has_first_stage:
        if has_reference:
            faults.add(
                f"reference is for models of spatial spots (DestVI); {config.model} takes none. "
                "Leave it out."
            )
        if config.simulation is not None:
            faults.add(
                "simulation describes tissue simulated for models of spatial spots (DestVI); "
                f"{config.model} has none. Leave it out."
            )
        return
    if not has_reference:
        faults.add(
            f"{config.model} needs single cells to learn the cell types from: give reference, an "
            "AnnData (in YAML data.reference, an .h5ad file), and labels_key."
        )
    name = config.target.partition(":")[0]
    by_genes = config.metric == HELD_OUT_METRIC
    if name in TARGETS and by_genes != (name == "likelihood"):
        faults.add(
            f"target is {config.target!r}, but metric is {config.metric!r}. The target "
            f"'likelihood' is measured by {HELD_OUT_METRIC!r}, the others by proportions "
            "(proportion_jsd, ...). Leave metric out, or choose the target that goes with it."
        )
    if name not in TARGETS:
        faults.add(
            f"target must be {one_of(TARGETS)}, but got {config.target!r}. 'truth:KEY' reads "
            f"spots.obsm[KEY] instead of spots.obsm[{TRUTH_KEY!r}]."
        )


def prepare_spots(config: StudyConfig, adata: Any, reference: Any) -> DeconvolutionData:
    """Prepare spots and cells, from Python or from the files that a configuration names."""
    data = config.data
    keys: dict[str, Any] = {}
    if adata is None:
        if data is None or data.path is None or data.reference is None:
            raise InputError("There is no data: give data.path and data.reference.")
        adata, reference = read_anndata(data.path), read_anndata(data.reference)
        of_both = {} if data.layer is None else {"layer": data.layer}
        of_spots = {} if data.batch_key is None else {"batch_key": data.batch_key}
        keys = {"spots_keys": of_both | of_spots, "cells_keys": dict(of_both)}
    name, _, key = config.target.partition(":")
    faults = Faults()
    _refuse_choices_of_cells(data, faults)
    _check_simulation(config, n_spots=getattr(adata, "n_obs", None), faults=faults)
    prepared = None
    with faults.collecting():
        prepared = prepare_deconvolution(
            adata,
            reference,
            labels_key=None if data is None else data.labels_key,
            truth=(key or TRUTH_KEY) if name == "truth" else None,
            **keys,
        )
    faults.raise_if_any()
    if prepared is None:
        raise RuntimeError("What cannot be prepared is a fault.")
    return prepared


def _refuse_choices_of_cells(data: DataConfig | None, faults: Faults) -> None:
    """Refuse keys of a configuration that would be ignored for two files at once."""
    given = {} if data is None else data.model_dump(exclude=set(_USED_OF_DATA), exclude_none=True)
    if given:
        named = " and ".join(f"data.{name}" for name in given)
        faults.add(
            f"{named} cannot be used with spots and a reference: all genes that both have and all "
            "spots and cells are used. Choose genes and cells in the files themselves "
            "(sc.pp.highly_variable_genes on the reference, sc.pp.filter_cells), and use layer, "
            "batch_key and labels_key only."
        )


def with_simulation(config: StudyConfig) -> StudyConfig:
    """Return the configuration with the simulation's defaults, if the model wants one."""
    if config.simulation is not None or get_adapter(config.model).first_stage_prefix is None:
        return config
    return config.model_copy(update={"simulation": SimulationConfig()})


def _check_simulation(config: StudyConfig, *, n_spots: Any, faults: Faults) -> None:
    """Check the ranges of what simulated tissues are to be like."""
    found = Faults()
    add_setting_faults(found, n_spots=n_spots, **_simulation_of(config))
    try:
        found.raise_if_any()
    except InputError as error:
        for fault in error.faults:
            faults.add(f"simulation.{fault}")


def _simulation_of(config: StudyConfig) -> dict[str, Any]:
    return (config.simulation or SimulationConfig()).model_dump()


def simulate_tissues(prepared: DeconvolutionData, config: StudyConfig) -> Tissues:
    """Split the reference and simulate what is to be simulated; nothing is written.

    Raises
    ------
    InputError
        If the cells held out cannot make up such a tissue.
    """
    seed, target = config.search.seed, config.target
    split = split_reference(prepared.reference, seed)

    def simulate(name: str, cells: Any) -> PreparedData:
        return simulate_tissue(
            prepared.reference,
            prepared.spots,
            cells=cells,
            seed=derive_seed(seed, "tissue", name),
            **_simulation_of(config),
        )

    held_out, search = None, prepared.spots
    if target == "simulated":
        search = simulate("search", split.validation)
    elif target == "likelihood":
        rng = np.random.default_rng(derive_seed(seed, "held-out genes"))
        n_held = max(1, round(_HELD_OUT_GENES * prepared.spots.n_genes))
        held = rng.permutation(prepared.spots.n_genes) < n_held
        search = take_genes(prepared.spots, ~held)
        held_out = take_genes(prepared.spots, held)
    return Tissues(
        reference=prepared.reference,
        search=search,
        held_out=held_out,
        test=simulate("test", split.test),
        split=split,
    )
