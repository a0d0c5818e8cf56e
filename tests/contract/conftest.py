"""Small simulated cells, prepared for any registered model, and a loop over them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

N_CELLS = 90
SETUP = {"batch_key": "batch", "labels_key": "cell_type"}
SMALL = {"n_hidden": 16, "n_latent": 4, "dropout_rate": 0.2}


def first_stage(adapter, folder):
    """Train what a model is built on, on cells of the same genes, and not for long."""
    import scvi

    from scvitune.data import (
        prepare_anndata,
        save_prepared,
        save_split,
        simulated,
        split_reference,
    )
    from scvitune.staging import FIRST_MODEL, Stages

    cells = simulated(N_CELLS, 30, n_labels=2, mean_library=150.0, seed=4)
    getattr(scvi.model, FIRST_MODEL).setup_anndata(cells, labels_key="cell_type")
    reference = save_prepared(prepare_anndata(cells, model=FIRST_MODEL), folder)
    save_split(split_reference(reference, 0), folder / "split.npz")
    stages = Stages(
        reference_dir=str(reference.directory),
        split=str(folder / "split.npz"),
        directory=str(folder / "stages"),
        seed=0,
    )
    prefix = adapter.first_stage_prefix
    small = {f"{prefix}n_hidden": 16, f"{prefix}n_latent": 3, f"{prefix}max_epochs": 2}
    return stages.obtain(adapter.first_stage_config(small))


class ModelBench:
    """One registered model on small data.

    Attributes
    ----------
    adata, prepared
        The data, set up for the model, and as arrays.
    other
        Hyperparameters that shape the module, with other values than the defaults.
    """

    def __init__(self, name, folder):
        import scvi

        from scvitune.data import prepare_anndata, simulated
        from scvitune.models import get_adapter

        self.name = name
        self.adapter = get_adapter(name)
        self.model_class = getattr(scvi.model, name)
        self.adata = simulated(N_CELLS, 30, n_labels=2, mean_library=150.0, seed=3)
        known = inspect.signature(self.model_class.setup_anndata).parameters
        self.model_class.setup_anndata(
            self.adata, **{key: value for key, value in SETUP.items() if key in known}
        )
        self.prepared = prepare_anndata(self.adata, model=name)
        self._given = {}
        self.other = {"n_layers": 2, "n_hidden": 24, "n_latent": 7}
        if self.adapter.first_stage_prefix is not None:
            stage = first_stage(self.adapter, folder)
            self.adapter = self.adapter.on(stage)
            self._given = {
                "cell_type_mapping": np.array(["a", "b"]),
                **stage.constructor_arguments(),
            }
            self.other = {"amortization": "latent", "n_states_per_label": 2}

    def config(self, **hyperparameters):
        small = {n: v for n, v in SMALL.items() if n in self.adapter.hyperparameters}
        return small | hyperparameters

    def build_theirs(self, hyperparameters):
        """Return the model that scvi-tools builds."""
        return self.model_class(self.adata, **self._given, **hyperparameters)

    def split(self, n_train=60, n_validation=20):
        from scvitune.contracts import Split

        order = np.random.default_rng(0).permutation(N_CELLS)
        return Split(
            np.sort(order[:n_train]),
            np.sort(order[n_train : n_train + n_validation]),
            np.sort(order[n_train + n_validation :]),
        )

    def objective(self, config, *, seed=0):
        from scvitune.training import seeded_initialisation

        with seeded_initialisation(seed):
            return self.adapter.build_objective(config, self.prepared)

    def loop(self, config=None, *, prepared=None, data=None, split=None, seed=0, weights_seed=0):
        import torch

        from scvitune.training import DeviceData, TrainingLoop, TrainingSettings

        config = self.config(batch_size=16) if config is None else config
        return TrainingLoop(
            self.objective(config, seed=weights_seed),
            data or DeviceData(prepared or self.prepared, torch.device("cpu")),
            split or self.split(),
            TrainingSettings(**self.adapter.training_arguments(config)),
            seed=seed,
            evaluation_seed=5,
        )


@pytest.fixture(scope="session")
def model_bench(tmp_path_factory):
    """Return the bench of a model, built once."""
    benches = {}

    def get(name):
        if name not in benches:
            benches[name] = ModelBench(name, tmp_path_factory.mktemp(name))
        return benches[name]

    return get
