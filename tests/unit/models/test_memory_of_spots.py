"""The forecasts of memory for both stages of DestVI and for a GPU, against what is used.

A GPU's are held to the tensors that the same step makes on a CPU without compiled passes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import scvi
from scipy import sparse

from scvitune.data import (
    prepare_anndata,
    prepare_deconvolution,
    save_prepared,
    save_split,
    split_reference,
)
from scvitune.models import (
    DEVICE_PROCESS_BYTES,
    PROCESS_BYTES,
    Reference,
    TooLargeError,
    forecast_bytes,
    forecast_device_bytes,
    get_adapter,
    process_bytes,
    refuse_too_large,
)
from scvitune.models._memory import _device_parts

PROGRAM = Path(__file__).with_name("measured_memory.py")
ROOT = Path(__file__).parents[3]
WITHOUT_AMORTIZATION = {"amortization": "none", "prior_mode": "normal"}


def random_counts(n, n_genes, *, high, density):
    rng = np.random.default_rng(0)
    counts = sparse.random(n, n_genes, density=density, random_state=0, dtype=np.float32).tocsr()
    counts.data = rng.integers(1, high, counts.nnz).astype(np.float32)
    found = anndata.AnnData(counts)
    found.var_names = [f"gene{i}" for i in range(n_genes)]
    return found


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """Return spots of so many genes and cell types, and cells that they are made of."""
    made = {}

    def make(n_genes=2000, n_types=8):
        if (n_genes, n_types) not in made:
            folder = tmp_path_factory.mktemp("spots")
            cells = random_counts(1500, n_genes, high=6, density=0.1)
            cells.obs["label"] = np.resize([f"type{i}" for i in range(n_types)], 1500)
            tissue = random_counts(400, n_genes, high=20, density=0.4)
            found = prepare_deconvolution(tissue, cells, labels_key="label")
            reference = save_prepared(found.reference, folder)
            save_split(split_reference(reference, 0), folder / "split.npz")
            made[n_genes, n_types] = save_prepared(found.spots, folder), reference, folder
        return made[n_genes, n_types]

    return make


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    adata = random_counts(2500, 2000, high=6, density=0.1)
    adata.obs["batch"] = np.resize(["a", "b"], 2500)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    return save_prepared(prepare_anndata(adata, model="SCVI"), tmp_path_factory.mktemp("cells"))


def measure(model, config, prepared, folder, *, tensors, **more):
    told = {"model": model, "config": config, "data": str(prepared.directory)}
    told |= {"folder": str(folder), "tensors": tensors, **more}
    plain = {"NUMBA_DISABLE_JIT": "1"} if tensors else {}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), json.dumps(told)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | plain,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def stages_of(spots, tmp_path):
    _, reference, folder = spots
    return {
        "reference": str(reference.directory),
        "split": str(folder / "split.npz"),
        "stages": str(tmp_path / "stages"),
    }


SPOT_CONFIGS = [
    pytest.param({"batch_size": 256}, id="amortized"),
    *(
        pytest.param({"batch_size": 256, **config}, marks=pytest.mark.slow, id=name)
        for name, config in {
            "free": WITHOUT_AMORTIZATION,
            "wide": {"condscvi_n_hidden": 512},
            "samples": {"n_samples_augmentation": 4},
            "small_batch": {"batch_size": 64},
        }.items()
    ),
]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory where Linux does")
@pytest.mark.parametrize("config", SPOT_CONFIGS)
def test_both_stages_of_destvi_take_what_is_forecast(spots, tmp_path, config):
    prepared, reference, _ = spots()
    config = {"condscvi_max_epochs": 1, **config}
    adapter = get_adapter("DestVI")
    forecast = forecast_bytes(adapter, config, prepared, Reference(reference))
    more = stages_of(spots(), tmp_path)
    base, most = measure("DestVI", config, prepared, tmp_path, tensors=False, **more)
    figures = [round(n / 1e6) for n in (forecast, base, most)]
    # Half of what a process has before is scvi-tools, which a trial's process does not import.
    assert 0.7 < forecast / (most - base) < 1.3, figures


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="zinb"),
        *(
            pytest.param(config, marks=pytest.mark.slow, id="-".join(map(str, config.values())))
            for config in [
                {"gene_likelihood": "nb"},
                {"gene_likelihood": "poisson"},
                {"gene_likelihood": "normal"},
                {"dispersion": "gene-cell"},
                {"n_hidden": 1024, "batch_size": 256},
            ]
        ),
    ],
)
def test_tensors_of_a_vae_on_a_device_are_forecast(cells, tmp_path, config):
    config = {"batch_size": 1024, **config}
    _, most = measure("SCVI", config, cells, tmp_path, tensors=True)
    _, standing, step, evaluated = _device_parts(get_adapter("SCVI"), config, cells, None, None)
    forecast = standing + max(step, evaluated)
    assert 0.7 < forecast / most < 1.3, (forecast / 1e6, most / 1e6)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"batch_size": 64}, id="amortized"),
        pytest.param({"batch_size": 128, **WITHOUT_AMORTIZATION}, id="free"),
    ],
)
@pytest.mark.slow
def test_tensors_of_destvi_on_a_device_are_forecast(spots, tmp_path, config):
    prepared, reference, _ = spots()
    config = {"condscvi_max_epochs": 1, **config}
    more = stages_of(spots(), tmp_path)
    _, most = measure("DestVI", config, prepared, tmp_path, tensors=True, **more)
    cells = Reference(reference)
    _, standing, step, _ = _device_parts(get_adapter("DestVI"), config, prepared, cells, None)
    assert 0.7 < (standing + step) / most < 1.3, ((standing + step) / 1e6, most / 1e6)


def test_more_of_anything_takes_more(spots):
    prepared, reference, _ = spots()
    adapter, cells = get_adapter("DestVI"), Reference(reference)

    def forecasts(config, data=prepared, reference=cells):
        return (
            forecast_bytes(adapter, config, data, reference),
            forecast_device_bytes(adapter, config, data, reference),
        )

    plain = forecasts({})
    for config in (
        {"batch_size": 400},
        {"condscvi_n_hidden": 2048},
        {"n_samples_augmentation": 8},
    ):
        found = forecasts(config)
        assert all(new > 1.2 * old for new, old in zip(found, plain, strict=True)), config
    wider, other, _ = spots(4000, 16)
    larger = forecasts({}, wider, Reference(other))
    assert all(new > 1.8 * old for new, old in zip(larger, plain, strict=True))


def test_where_the_first_stage_is_the_larger_it_counts(spots):
    prepared, reference, _ = spots()
    both = {"batch_size": 1, "condscvi_batch_size": 1500}
    needed = forecast_bytes(get_adapter("DestVI"), both, prepared, Reference(reference))
    alone = {"batch_size": 1500, "prior": "mog"}
    assert needed == forecast_bytes(get_adapter("CondSCVI"), alone, reference)


def test_data_on_a_device_are_dense_where_there_is_room(cells):
    adapter = get_adapter("SCVI")
    dense = forecast_device_bytes(adapter, {}, cells, free_bytes=10**12)
    sparsely = forecast_device_bytes(adapter, {}, cells, free_bytes=10**6)
    entries = cells.n_cells * cells.n_genes * cells.values.itemsize
    # A tenth is not zero, with two bytes for its column.
    assert 0.5 * entries < dense - sparsely < 0.8 * entries


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("model", ["SCVI", "DestVI"])
def test_what_does_not_fit_is_refused_with_the_figures(spots, cells, model, device):
    adapter, prepared, reference = get_adapter(model), cells, None
    config = {"n_hidden": 2048}
    if model == "DestVI":
        prepared, reference = spots()[0], Reference(spots()[1])
        config = {"condscvi_n_hidden": 2048}
    room = None if device == "cpu" else 10**12
    needed = process_bytes(adapter, config, prepared, reference, room=room)
    assert needed > (PROCESS_BYTES if device == "cpu" else DEVICE_PROCESS_BYTES)
    for enough in (None, 10**12, 2 * needed):
        refuse_too_large(adapter, config, prepared, reference, enough, device)
    where = "of memory" if device == "cpu" else r"of the memory of a device \(cuda\)"
    with pytest.raises(TooLargeError, match=rf"needs about \d\.?\d* GB {where}, a slot has 0\.\d"):
        refuse_too_large(adapter, config, prepared, reference, needed // 2, device)
