"""A saved model is loaded by scvi-tools without alarm."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import scvi

from scvitune.data import prepare_anndata, simulated
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
