"""Data that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The same examples on every machine, so that a change is judged by what it changed;
# HYPOTHESIS_PROFILE=search looks for new ones. How long an example takes is no property of what is
# tested: a machine that is busy with other things may stall for seconds.
_ANY_TIME = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeat", derandomize=True, **_ANY_TIME)
settings.register_profile("search", derandomize=False, **_ANY_TIME)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ROOT = Path(__file__).parents[1]
_DATA = Path(os.environ.get("SCVITUNE_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """Keep what scvitune remembers of a user out of the home of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """Folder of real data that is not shipped with the project."""
    if not _DATA.is_dir():
        pytest.skip(f"no real data at {_DATA}; set SCVITUNE_DATA to the folder that has it")
    return _DATA


@pytest.fixture(scope="session")
def worm_neurons(real_data_dir):
    """C. elegans neurons, 4186 cells x the 1000 genes with most counts."""
    import anndata

    path = real_data_dir / "worm_neuron.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    adata = anndata.read_h5ad(path)
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    adata = adata[:, np.sort(np.argsort(-totals)[:1000])].copy()
    return adata[np.asarray(adata.X.sum(axis=1)).ravel() > 0].copy()


@pytest.fixture(scope="session")
def real_cells(request):
    """Real counts with cell types, of this project's own data or, without them, scanpy's sample.

    For tests that must run everywhere.
    """
    import scvitune

    if (_DATA / "worm_neuron.h5ad").exists():
        return request.getfixturevalue("worm_neurons")
    return scvitune.data.pbmc68k()


@pytest.fixture
def rich_adata():
    """Small simulated counts with every kind of covariate that SCVI takes."""
    import anndata
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    n_cells, n_genes = 120, 40
    rate = rng.gamma(1.0, 1.0, size=(n_cells, n_genes)) * rng.gamma(2.0, 0.4, size=n_genes)
    counts = rng.poisson(rate)
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {
            "batch": rng.choice(["a", "b", "c"], n_cells),
            "label": rng.choice(["T", "B"], n_cells),
            "donor": rng.choice(["d1", "d2"], n_cells),
            "site": rng.choice(["s1", "s2", "s3"], n_cells),
            "age": rng.normal(size=n_cells),
            "mito": rng.random(n_cells),
            "size": rng.gamma(5.0, 0.2, n_cells) + 0.1,
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
