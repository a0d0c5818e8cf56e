"""Names of cells in a table of a run's own."""

import numpy as np
import pandas as pd
import pytest

from scvitune.contracts import Split
from scvitune.data import (
    load_cell_names,
    prepare_anndata,
    rebuild_anndata,
    save_cell_names,
    simulated,
)
from scvitune.errors import StudyError

NAMES = ["AAAC-1", "b", "b", "<i>ü</i>", "5"]
SPLIT = Split(np.array([4, 0]), np.array([1]), np.array([3, 2]))


def test_what_each_cell_is_for(tmp_path):
    path = tmp_path / "cells.parquet"
    save_cell_names(pd.Index(NAMES), path, split=SPLIT)
    assert load_cell_names(path, 5) == NAMES
    table = pd.read_parquet(path)
    assert table["split"].tolist() == ["train", "validation", "test", "test", "train"]
    assert [found.name for found in tmp_path.iterdir()] == ["cells.parquet"]


def test_without_a_split(tmp_path):
    save_cell_names(range(3), tmp_path / "cells.parquet", split=None)
    assert load_cell_names(tmp_path / "cells.parquet", 3) == ["0", "1", "2"]
    assert list(pd.read_parquet(tmp_path / "cells.parquet")) == ["cell"]


def test_an_older_run_has_none(tmp_path):
    assert load_cell_names(tmp_path / "cells.parquet", 5) is None


def test_of_another_study_or_broken(tmp_path):
    path = tmp_path / "cells.parquet"
    save_cell_names(NAMES, path, split=SPLIT)
    with pytest.raises(StudyError, match="names 5 cells, but the study has 6"):
        load_cell_names(path, 6)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StudyError, match=r"cannot be read .*delete it"):
        load_cell_names(path, 5)


def test_rebuilt_cells_have_them(recwarn):
    import scvi

    adata = simulated(10, 12, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    prepared = prepare_anndata(adata, model="SCVI")
    assert rebuild_anndata(prepared, names=2 * NAMES).obs_names.tolist() == 2 * NAMES
    assert rebuild_anndata(prepared).obs_names.tolist() == [str(i) for i in range(10)]
    assert not [w for w in recwarn if "names are not unique" in str(w.message)]
