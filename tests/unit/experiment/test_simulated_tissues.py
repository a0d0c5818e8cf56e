"""What simulated tissues are like, as asked of `tune`, before anything is started."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import scvitune
from scvitune.config import SimulationConfig, StudyConfig
from scvitune.data import simulate_composition
from scvitune.errors import InputError
from scvitune.experiment import prepare_experiment

N_SPOTS = 64


@pytest.fixture(scope="module")
def cells():
    return scvitune.data.simulated(400, 40, n_batches=1, n_labels=4, mean_library=300.0, seed=0)


@pytest.fixture(scope="module")
def spots(cells):
    return scvitune.data.simulate_spots(cells, labels_key="cell_type", n_spots=N_SPOTS, seed=1)


@pytest.fixture
def prepare(cells, spots, tmp_path):
    def build(*, adata=spots, **arguments):
        given = {"model": "DestVI", "labels_key": "cell_type", "storage": str(tmp_path)}
        config = StudyConfig.from_arguments(**given | arguments)
        reference = cells if config.model == "DestVI" else None
        return prepare_experiment(config, adata=adata, reference=reference)

    return build


def test_the_defaults_are_those_of_the_simulation():
    known = inspect.signature(simulate_composition).parameters
    defaults = SimulationConfig().model_dump()
    assert defaults == {name: known[name].default for name in defaults}


def test_it_is_frozen_and_counts_in_the_fingerprints(prepare):
    plain, smooth = prepare(), prepare(simulation={"smoothness": 2.0})
    wanted = {"max_cells": 10, "concentration": 3.0, "smoothness": 0.0}
    assert plain.plan.config.to_yaml_dict()["simulation"] == wanted
    assert smooth.plan.config.to_yaml_dict()["simulation"] == wanted | {"smoothness": 2.0}
    prints = {
        tissue.fingerprint
        for preparation in (plain, smooth)
        for tissue in (preparation.tissues.search, preparation.tissues.test)
    }
    assert len(prints) == 4
    assert smooth.tissues.search.setup["simulation"] == wanted | {"smoothness": 2.0}
    assert plain.tissues.reference.fingerprint == smooth.tissues.reference.fingerprint


def neighbours(tissue):
    """Return how far compositions of neighbours in a row are apart, against those of any two."""
    side = int(np.sqrt(N_SPOTS))
    grid = tissue.proportions.reshape(side, side, -1)
    beside = np.abs(np.diff(grid, axis=1)).sum(axis=-1).mean()
    flat = tissue.proportions
    return beside / np.abs(flat[:, np.newaxis] - flat).sum(axis=-1).mean()


def test_each_does_what_it_says(prepare):
    many = {"max_cells": 100}  # so that shares are what was drawn, and not of a few cells
    plain = prepare(simulation=many).tissues
    smooth = prepare(simulation=many | {"smoothness": 2}).tissues
    for name in ("search", "test"):
        assert neighbours(getattr(smooth, name)) < 0.6 < 0.8 < neighbours(getattr(plain, name))
    mixed = prepare(simulation={"concentration": 100, "max_cells": 40}).tissues.search
    assert (mixed.proportions > 0).sum(axis=1).mean() > 3
    single = prepare(simulation={"max_cells": 1}).tissues.search
    assert (single.proportions.max(axis=1) == 1).all()


def test_coordinates_are_neither_needed_nor_read(prepare, spots):
    without = spots.copy()
    del without.obsm["spatial"]
    elsewhere = spots.copy()
    elsewhere.obsm["spatial"] = np.full((N_SPOTS, 2), np.nan)
    smooth = {"simulation": {"smoothness": 2}}
    found = {
        prepare(adata=adata, **smooth).tissues.search.fingerprint
        for adata in (spots, without, elsewhere)
    }
    assert len(found) == 1


def test_faults_come_with_those_of_the_data(prepare, spots):
    with pytest.raises(InputError) as raised:
        prepare(
            labels_key="type",
            simulation={"smoothness": 9, "max_cells": 20_000, "concentration": 1e-9},
        )
    text = str(raised.value)
    assert "simulation.smoothness must be at most 8, the spots along an edge" in text
    assert "simulation.max_cells must be at most 10000" in text
    assert "simulation.concentration must be a number from 0.01" in text
    assert "labels_key 'type' is not in reference.obs" in text


def test_spots_too_deep_for_the_cells_are_refused_before_anything_is_written(
    prepare, spots, tmp_path
):
    deep = spots.copy()
    counts = deep.X.toarray()
    counts[0, 0] = 90_000_000
    deep.X = counts
    with pytest.raises(InputError, match="The deepest spot to match has .* of type 'type_"):
        prepare(adata=deep)
    assert not list(tmp_path.iterdir())


def test_models_of_cells_take_none(prepare, cells):
    with pytest.raises(InputError, match="simulation describes tissue simulated for models"):
        prepare(model="SCVI", adata=cells, labels_key=None, simulation={"smoothness": 1})


def test_keys_of_one_file_are_refused_for_two(tmp_path, cells, spots):
    """They would be ignored, and nobody would know."""
    cells.write_h5ad(tmp_path / "cells.h5ad")
    spots.write_h5ad(tmp_path / "spots.h5ad")
    data = {"path": "spots.h5ad", "reference": "cells.h5ad", "labels_key": "cell_type"}
    data |= {name: str(tmp_path / data[name]) for name in ("path", "reference")}
    raw = {"model": "DestVI", "data": data, "storage": str(tmp_path / "runs")}
    assert prepare_experiment(StudyConfig.from_yaml_dict(raw)).tissues is not None
    raw["data"] = data | {"n_top_genes": 20, "min_counts": 1}
    with pytest.raises(InputError, match=r"data\.n_top_genes and data\.min_counts cannot be used"):
        prepare_experiment(StudyConfig.from_yaml_dict(raw))


def test_without_a_reference_nothing_else_is_said(spots, tmp_path):
    config = StudyConfig.from_arguments("DestVI", storage=str(tmp_path))
    with pytest.raises(InputError) as raised:
        prepare_experiment(config, adata=spots)
    (fault,) = raised.value.faults
    assert fault.startswith("DestVI needs single cells")
