"""The forecast of memory, against what a process that trains takes at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scvitune.models import (
    PROCESS_BYTES,
    TooLargeError,
    forecast_bytes,
    get_adapter,
    refuse_too_large,
)

ROOT = Path(__file__).parents[3]
N_CELLS = 2500
TRAIN = """
import json, sys, threading, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from scvitune.data import load_prepared, split_cells
from scvitune.models import get_adapter
from scvitune.process_state import settle_process
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings
from scvitune.training import save_checkpoint, seeded_initialisation

folder, model, defaults, config = map(json.loads, sys.argv[1:])

def anonymous():
    line = next(x for x in open("/proc/self/status") if x.startswith("RssAnon"))
    return 1024 * int(line.split()[1])

def train(config):
    adapter = get_adapter(model, defaults=defaults)
    with seeded_initialisation(0):
        objective = adapter.build_objective(config, prepared)
    settings = TrainingSettings(**adapter.training_arguments(config))
    loop = TrainingLoop(objective, data, split, settings, seed=0, evaluation_seed=0)
    for epoch in (1, 2):
        loop.advance(epoch)
        loop.evaluate("validation")
        best = loop.copy_weights()
    save_checkpoint(Path(folder) / "checkpoint.pt", {"best": best, "loop": loop.state_dict()})

settle_process()
prepared = load_prepared(Path(folder))
data = DeviceData(prepared, torch.device("cpu"))
split = split_cells(prepared.n_cells, train_size=0.6, test_size=0.1, seed=0)
train({"n_hidden": 8, "n_latent": 2})  # what the first training loads, and no later one
base, most, is_over = anonymous(), 0, threading.Event()

def watch():
    global most
    while not is_over.is_set():
        most = max(most, anonymous())
        time.sleep(0.001)

watching = threading.Thread(target=watch)
watching.start()
train(config)
is_over.set()
watching.join()
print(json.dumps([base, most]))
"""


@pytest.fixture(autouse=True)
def one_thread(number_of_threads):
    """As in the processes that are measured: first layers read sparse counts by one thread."""
    torch.set_num_threads(1)


needs_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads memory where Linux shows it"
)


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """Return prepared cells with so many genes, a tenth of the counts not zero."""

    def make(model, n_genes):
        import anndata
        import scvi
        from scipy import sparse

        from scvitune.data import prepare_anndata, save_prepared

        rng = np.random.default_rng(0)
        counts = sparse.random(N_CELLS, n_genes, density=0.1, random_state=0, dtype=np.float32)
        counts.data = rng.integers(1, 6, counts.nnz).astype(np.float32)
        adata = anndata.AnnData(counts.tocsr())
        adata.obs["batch"], adata.obs["label"] = np.resize(["a", "b"], N_CELLS), "one"
        labels = {"labels_key": "label"} if model == "CondSCVI" else {}
        getattr(scvi.model, model).setup_anndata(adata, batch_key="batch", **labels)
        folder = tmp_path_factory.mktemp("storage")
        return save_prepared(prepare_anndata(adata, model=model), folder)

    return make


def measure(prepared, model, config):
    """Return what a process has before a training, and at most while it trains, in bytes."""
    told = (str(prepared.directory), model, get_adapter(model).defaults, config)
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *map(json.dumps, told)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@needs_linux
@pytest.mark.parametrize(
    ("model", "n_genes", "config"),
    [
        pytest.param("SCVI", 1000, {}, id="small"),
        pytest.param("SCVI", 4000, {"n_hidden": 512}, id="large"),
        *(
            pytest.param(model, 4000, config, marks=pytest.mark.slow, id=f"{model}-{config}")
            for model, config in [
                ("SCVI", {"batch_size": 1024}),
                ("SCVI", {"batch_size": 1024, "gene_likelihood": "nb"}),
                ("SCVI", {"batch_size": 1024, "gene_likelihood": "poisson"}),
                ("SCVI", {"batch_size": 1024, "dispersion": "gene-cell"}),
                ("SCVI", {"n_layers": 3, "n_hidden": 512}),
                ("LinearSCVI", {"batch_size": 1024}),
                ("CondSCVI", {"n_hidden": 512}),
            ]
        ),
    ],
)
def test_what_a_training_takes_is_forecast_within_30_percent(prepare, model, n_genes, config):
    prepared = prepare(model, n_genes)
    forecast = forecast_bytes(get_adapter(model), config, prepared)
    base, most = measure(prepared, model, config)
    figures = [forecast / 1e6, base / 1e6, most / 1e6]
    assert 0.7 < (PROCESS_BYTES + forecast) / most < 1.3, figures
    if most - base > 50e6:  # less may lie in what was given back before
        assert 0.7 < forecast / (most - base) < 1.3, figures
    else:
        assert forecast < 50e6, figures


def test_larger_configurations_and_data_take_more(prepare):
    adapter, prepared = get_adapter("SCVI"), prepare("SCVI", 1000)
    plain = forecast_bytes(adapter, {}, prepared)
    for name, value in {"n_hidden": 512, "n_layers": 8, "batch_size": 1024}.items():
        assert forecast_bytes(adapter, {name: value}, prepared) > 1.3 * plain, name
    assert forecast_bytes(adapter, {}, prepare("SCVI", 3000)) > 2 * plain


def test_the_cheap_bound_lies_above_the_forecast(prepare):
    """Or a configuration that is too large would be let through."""
    from scvitune.models._memory import _bound_bytes

    configs = [{}, {"n_hidden": 4}, {"n_hidden": 4096}, {"n_layers": 12}, {"n_latent": 2000}]
    configs += [{"batch_size": 2048, "gene_likelihood": "normal"}, {"dispersion": "gene-batch"}]
    for model in ("SCVI", "LinearSCVI", "CondSCVI"):
        adapter, prepared = get_adapter(model), prepare(model, 500)
        for config in configs:
            if set(config) <= set(adapter.hyperparameters):
                forecast = forecast_bytes(adapter, config, prepared)
                assert _bound_bytes(adapter, config, prepared) >= forecast, (model, config)


def test_what_does_not_fit_is_refused_with_the_figures(prepare):
    adapter, prepared = get_adapter("SCVI"), prepare("SCVI", 1000)
    needed = PROCESS_BYTES + forecast_bytes(adapter, {"n_hidden": 2048}, prepared)
    for room in (None, needed, 10**12):
        refuse_too_large(adapter, {"n_hidden": 2048}, prepared, None, room)
    with pytest.raises(TooLargeError, match=r"needs about 0\.\d+ GB of memory, a slot has 0\.\d+"):
        refuse_too_large(adapter, {"n_hidden": 2048}, prepared, None, needed - 1)
