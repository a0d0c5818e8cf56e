"""A step asks the device for nothing: it runs on torch's meta device, which has no answers.

Tensors of the meta device have shapes and no values. Whatever would have the host wait for a GPU
is an error there (``item``, ``nonzero``, a boolean mask, a copy to the host, ``repeat_interleave``
of unknown length), and so is a tensor that was left on the CPU.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import scvi
import torch

from scvitune.contracts import Split
from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.models._vae_evaluation import expected_counts, log_importance_weights
from scvitune.training import (
    DeviceData,
    GeneratorNoise,
    TrainingLoop,
    TrainingSettings,
    seeded_initialisation,
)
from scvitune.training._sums import LossSums

META = torch.device("meta")
COVARIATES = {
    "batch_key": "batch",
    "labels_key": "label",
    "categorical_covariate_keys": ["donor", "site"],
    "continuous_covariate_keys": ["age"],
}


@pytest.fixture
def loop_on_meta(rich_adata, monkeypatch):
    """Return what builds a loop on the meta device."""
    generator = torch.Generator  # of the CPU: the meta device has none, and takes any
    monkeypatch.setattr(torch, "Generator", lambda device: generator())

    def build(model, config, setup, layout="dense"):
        getattr(scvi.model, model).setup_anndata(rich_adata, **setup)
        prepared, adapter = prepare_anndata(rich_adata, model=model), get_adapter(model)
        config = {"n_hidden": 16, "batch_size": 32, **config}
        with seeded_initialisation(0):
            objective = adapter.build_objective(config, prepared)
        objective.module.to(META)
        order = np.random.default_rng(0).permutation(rich_adata.n_obs)
        return TrainingLoop(
            objective,
            DeviceData(prepared, META, layout=layout),
            Split(*(np.sort(part) for part in np.split(order, [70, 100]))),
            TrainingSettings(**adapter.training_arguments(config)),
            seed=1,
            evaluation_seed=2,
        )

    return build


def take_steps(loop, n=3):
    seen = 0
    for _ in range(n):
        cells = loop._order.next_cells(seen, loop.settings.batch_size)
        loop._take_step(cells, 0.5)
        loop.count_step(len(cells))
        seen += len(cells)
    return seen


@pytest.mark.parametrize(
    ("layout", "doubles"), [("dense", True), ("csr", False)], ids=["like CUDA", "like MPS"]
)
@pytest.mark.parametrize(
    ("model", "config", "setup"),
    [
        ("SCVI", {}, {"batch_key": "batch"}),
        ("SCVI", {"gene_likelihood": "nb", "n_layers": 2}, COVARIATES),
        ("SCVI", {"gene_likelihood": "poisson"}, {**COVARIATES, "size_factor_key": "size"}),
        ("SCVI", {"gene_likelihood": "normal", "use_observed_lib_size": False}, COVARIATES),
        ("SCVI", {"dispersion": "gene-batch", "encode_covariates": True}, COVARIATES),
        ("SCVI", {"dispersion": "gene-label", "batch_representation": "embedding"}, COVARIATES),
        ("SCVI", {"dispersion": "gene-cell", "latent_distribution": "ln"}, COVARIATES),
        ("SCVI", {"gradient_clip_val": 1.0}, {}),
        ("SCVI", {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}, {}),
        ("LinearSCVI", {}, {"batch_key": "batch"}),
        ("CondSCVI", {"prior": "mog"}, {"labels_key": "label"}),
        ("CondSCVI", {"prior": "normal", "weight_obs": True}, {"labels_key": "label"}),
    ],
    ids=str,
)
def test_steps_ask_for_nothing(
    loop_on_meta, without_doubles, monkeypatch, model, config, setup, layout, doubles
):
    """Nor, where there are none, for numbers in double precision, and an evaluation neither."""
    monkeypatch.setattr(LossSums, "read", lambda self: (1.0, 1.0, 1.0))
    with nullcontext() if doubles else without_doubles(META):
        loop = loop_on_meta(model, config, setup, layout)
        assert take_steps(loop) == 70  # a whole pass and its last, smaller minibatch
        loop.evaluate("validation")
        if model == "SCVI":
            noise = GeneratorNoise(0, META)
            batch = loop._data.gather(loop.next_step()[0])
            log_importance_weights(loop.objective, batch, noise, n_samples=2)
            expected_counts(loop.objective, batch, noise, n_samples=2)
    assert all(p.grad.device == META for p in loop.module.parameters() if p.grad is not None)


def test_what_asks_is_found(loop_on_meta):
    """The test above can fail: with the CPU's layout, and with a loss that is looked at."""
    with pytest.raises(RuntimeError, match="meta"):
        take_steps(loop_on_meta("SCVI", {}, {}, layout="rows"))
    loop = loop_on_meta("SCVI", {}, {})
    compute = loop.objective.compute_losses

    def look(batch, noise):
        losses = compute(batch, noise)
        assert float(losses.kl.detach().sum()) > 0
        return losses

    loop.objective.compute_losses = look
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta"):
        take_steps(loop)


def test_a_report_asks_once_for_its_training_and_once_a_split(loop_on_meta, monkeypatch):
    asked = []
    monkeypatch.setattr(LossSums, "are_finite", lambda self: asked.append("finite") or True)
    monkeypatch.setattr(LossSums, "read", lambda self: asked.append("read") or (1.0, 1.0, 1.0))
    loop = loop_on_meta("SCVI", {}, {"batch_key": "batch"})
    loop.advance(2.0)
    loop.training_losses()
    loop.evaluate("validation")
    loop.evaluate("test")
    assert asked == ["finite", "read", "read", "read"]
