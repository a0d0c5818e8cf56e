"""Going on from another loop's state under other settings."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from line import SPLIT, Cells, Line

from scvitune.contracts import Split
from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, seeded_initialisation


def build(**settings):
    settings = {"batch_size": 8, "n_epochs_kl_warmup": None} | settings
    objective = Line()
    loop = TrainingLoop(
        objective, Cells(), SPLIT, TrainingSettings(**settings), seed=1, evaluation_seed=2
    )
    return loop, objective


def test_moments_stay_and_all_settings_change():
    """Two epochs under one setting and two under another, by hand with torch's own Adam."""
    first = {"lr": 0.05, "eps": 0.01, "weight_decay": 1e-3, "batch_size": 8}
    then = {"lr": 0.01, "eps": 0.1, "weight_decay": 1e-2, "batch_size": 12}
    before, seen_before = build(**first, max_kl_weight=0.5)
    before.advance(2)
    after, seen_after = build(**then, max_kl_weight=0.25, gradient_clip_val=0.5)
    after.adopt(before.state_dict(), lr_before=0.05)
    assert after.epoch == 2
    after.advance(4)
    assert [len(b) for b in seen_before.batches] == [8] * 6
    assert [len(b) for b in seen_after.batches] == [12] * 4

    w = torch.nn.Parameter(torch.tensor(2.0))
    optimizer = torch.optim.Adam([w])
    stretches = ((first, 0.5, None, seen_before), (then, 0.25, 0.5, seen_after))
    for settings, kl_weight, clip, seen in stretches:
        for name in ("lr", "eps", "weight_decay"):
            optimizer.param_groups[0][name] = settings[name]
        for batch in seen.batches:
            optimizer.zero_grad()
            ((w - batch.double() / 40).square().mean() + kl_weight * w).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_([w], clip)
            optimizer.step()
    assert after.module.weight.item() == pytest.approx(w.item(), abs=1e-6)


def test_the_same_settings_change_nothing():
    straight, _ = build(lr=0.05)
    straight.advance(4)
    before, _ = build(lr=0.05)
    before.advance(2)
    after, _ = build(lr=0.05)
    after.adopt(before.state_dict(), lr_before=0.05)
    after.advance(4)
    assert after.module.weight.item() == straight.module.weight.item()


def test_what_a_plateau_made_of_the_learning_rate_stays_a_factor():
    plateau = {
        "reduce_lr_on_plateau": True,
        "lr_patience": 0,
        "lr_threshold": 1e9,
        "lr_factor": 0.5,
    }
    before, _ = build(lr=0.08, **plateau)
    before.advance(3)
    assert before.learning_rate == pytest.approx(0.02)
    after, _ = build(lr=0.16, **plateau)
    after.adopt(before.state_dict(), lr_before=0.08)
    assert after.learning_rate == pytest.approx(0.04)
    after.advance(4)
    assert after.learning_rate == pytest.approx(0.02)


def test_embedded_batches_are_handed_over_like_all_weights(rich_adata):
    """scvi-tools' embeddings make parameters of the very tensors they load."""
    scvi.model.SCVI.setup_anndata(rich_adata, batch_key="batch")
    adapter, prepared = get_adapter("SCVI"), prepare_anndata(rich_adata, model="SCVI")
    data = DeviceData(prepared, torch.device("cpu"))
    split = Split(*np.split(np.arange(rich_adata.n_obs), [90, 105]))

    def build_scvi(seed):
        with seeded_initialisation(seed):
            config = {"batch_representation": "embedding", "n_hidden": 8}
            objective = adapter.build_objective(config, prepared)
        settings = TrainingSettings(batch_size=32)
        return TrainingLoop(objective, data, split, settings, seed=1, evaluation_seed=2)

    straight, before, after = build_scvi(0), build_scvi(0), build_scvi(9)
    straight.advance(4)
    before.advance(2)
    kept = before.copy_weights()
    after.load_state_dict(before.state_dict())
    after.advance(4)
    for name, value in after.copy_weights().items():
        assert torch.equal(value, straight.copy_weights()[name]), name
    assert not torch.equal(
        kept["_embeddings_dict.batch.weight"],
        after.copy_weights()["_embeddings_dict.batch.weight"],
    )
    for name, value in before.copy_weights().items():
        assert torch.equal(value, kept[name]), f"{name} is shared"


def test_weights_of_another_model_are_refused():
    before, _ = build()
    state = before.state_dict()
    after, _ = build()
    for weights in ({}, {"weight": torch.zeros(3)}, {**state["module"], "bias": torch.zeros(1)}):
        with pytest.raises(ValueError, match="the weights are of another model"):
            after.load_state_dict({**state, "module": weights})
