"""labels_key beside an AnnData, whose labels are those of its setup."""

from __future__ import annotations

import pytest
import scvi

import scvitune
from scvitune.errors import InputError


@pytest.fixture
def cells():
    return scvitune.data.simulated(120, 30, seed=0, n_labels=2)


@pytest.mark.parametrize("own", [None, "cell_type"])
def test_labels_that_nothing_would_use_are_refused(cells, own, tmp_path):
    cells.obs["other"] = cells.obs["cell_type"]
    scvi.model.SCVI.setup_anndata(cells, labels_key=own)
    with pytest.raises(InputError, match=r"labels_key is 'other'.*setup_anndata\(adata, labels"):
        scvitune.tune("SCVI", cells, labels_key="other", storage=tmp_path)
    assert not list(tmp_path.iterdir())


def test_those_of_the_setup_may_be_named_again(cells):
    from scvitune.config import StudyConfig
    from scvitune.experiment import prepare_experiment

    scvi.model.SCVI.setup_anndata(cells, labels_key="cell_type")
    config = StudyConfig.from_arguments("SCVI", labels_key="cell_type")
    assert prepare_experiment(config, adata=cells).prepared.n_labels == 2
