"""A saved model is loaded by scvi-tools without alarm."""

from __future__ import annotations

import os
import warnings

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import scvi

from scvitune.data import find_cells, prepare_anndata, simulated
from scvitune.results._handing_over import load_saved

SRUN = "The `srun` command is available on your system but is not used"


@pytest.fixture
def login_node(tmp_path, monkeypatch):
    """A machine where Slurm is installed, outside of any job."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=os.pathsep)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)


@pytest.mark.usefixtures("login_node")
def test_slurm_on_the_machine_is_no_matter_of_loading(tmp_path):
    cells = simulated(60, 30, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    prepared = prepare_anndata(cells, model="SCVI")
    path = tmp_path / "model"
    scvi.model.SCVI(cells, n_hidden=8, n_latent=2).save(str(path))
    with pytest.warns(UserWarning, match=SRUN):
        theirs = scvi.model.SCVI.load(str(path), adata=cells, accelerator="cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = load_saved("SCVI", path, cells, prepared)
        assert not [w for w in caught if "srun" in str(w.message)]
        warnings.warn(SRUN, UserWarning, stacklevel=1)
    assert SRUN in str(caught[-1].message), "only ours is silenced"
    for name, weight in theirs.module.state_dict().items():
        assert np.array_equal(ours.module.state_dict()[name].numpy(), weight.numpy())


@pytest.fixture
def saved(tmp_path):
    """Sixty cells, as they were prepared, and where a model of them is saved with its split."""
    cells = simulated(60, 30, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, n_hidden=8, n_latent=2)
    model.train_indices_ = np.arange(40)
    model.validation_indices_ = np.arange(40, 60)
    model.save(str(tmp_path / "model"))
    return cells, prepare_anndata(cells, model="SCVI"), tmp_path / "model"


def warnings_of(caplog) -> list[str]:
    return [r.message for r in caplog.records if r.name == "scvitune"]


def with_others(cells, others, places):
    """Cells with others before those at ``places``."""
    stacked = ad.concat([cells, others], index_unique="-")
    order = np.insert(np.arange(cells.n_obs), places, cells.n_obs + np.arange(others.n_obs))
    return stacked[order].copy()


def emptied(n):
    others = simulated(n, 30, seed=1)
    others.X = sp.csr_matrix(others.shape, dtype=np.float32)
    return others


def test_the_studys_own_file_with_cells_that_it_left_out(saved, caplog):
    cells, prepared, path = saved
    file = with_others(cells, emptied(2), [0, 50])
    model = load_saved("SCVI", path, file, prepared)
    assert warnings_of(caplog) == [
        "All 60 cells of the study are among the 62 given; the other 2 have no counts in its "
        "genes, so it left them out and the model has not seen them."
    ]
    assert np.array_equal(model.train_indices, np.arange(1, 41))
    assert np.array_equal(model.validation_indices, [*range(41, 51), *range(52, 62)])


@pytest.mark.parametrize("dense", [False, True])
def test_the_cells_of_the_study_alone_are_nothing_to_speak_of(saved, caplog, dense):
    cells, prepared, path = saved
    order = np.random.default_rng(0).permutation(60)
    given = cells[order].copy()
    if dense:
        given.X = np.asarray(given.X.todense())
    model = load_saved("SCVI", path, given, prepared)
    assert warnings_of(caplog) == []
    assert np.array_equal(np.sort(order[model.train_indices]), np.arange(40))


def test_cells_that_the_study_had_not_are_told(saved, caplog):
    cells, prepared, path = saved
    others = simulated(5, 30, seed=1)
    load_saved("SCVI", path, with_others(cells, others, [3]), prepared)
    load_saved("SCVI", path, with_others(cells[:50], others, [3]), prepared)
    load_saved("SCVI", path, cells[:50].copy(), prepared)
    model = load_saved("SCVI", path, others, prepared)
    load_saved("SCVI", path, simulated(60, 30, seed=2), prepared)
    assert warnings_of(caplog) == [
        "All 60 cells of the study are among the 65 given; its model has not seen the other 5.",
        "Of the 55 cells given, 50 are among the 60 of the study; its model has not seen the "
        "other 5.",
        "All 50 cells given are among the 60 of the study.",
        "The study was run on 60 cells, of which none is among the 5 given: its model has seen "
        "none of these.",
        "The study was run on 60 cells, of which none is among the 60 given: its model has seen "
        "none of these.",
    ]
    assert np.array_equal(model.train_indices, np.arange(40)), "as saved"


def test_equal_cells_are_found_each_once(saved, caplog):
    cells, _, path = saved
    twice = ad.concat([cells[:30], cells[:30]], index_unique="-")
    scvi.model.SCVI.setup_anndata(twice)
    prepared = prepare_anndata(twice, model="SCVI")
    rows, n_empty = find_cells(twice, prepared)
    assert np.array_equal(rows, np.arange(60))
    assert n_empty == 0
    load_saved("SCVI", path, ad.concat([twice, cells[:1]], index_unique="-"), prepared)
    assert warnings_of(caplog) == [
        "All 60 cells of the study are among the 61 given; its model has not seen the other 1."
    ]
