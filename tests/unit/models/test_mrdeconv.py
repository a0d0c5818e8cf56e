"""DestVI's loss and gradients against ``MRDeconv.forward``; what is made up, by its moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scvi
import torch
from scipy import stats

import scvitune
from scvitune._devices import widest_float
from scvitune.contracts import Batch
from scvitune.models._augmentation import augment, draw_states
from scvitune.models._mrdeconv import SpotObjective
from scvitune.sparse import DenseCounts, SparseCounts
from scvitune.training import GeneratorNoise

KL_WEIGHT = 0.4
N_SPOTS, N_GENES, N_LABELS = 24, 60, 4
PAIRS = [("both", "mog"), ("latent", "mog"), ("none", "normal"), ("proportion", "normal")]


@pytest.fixture(scope="module")
def reference():
    """A CondSCVI that was trained a little."""
    adata = scvitune.data.simulated(300, N_GENES, n_batches=2, n_labels=N_LABELS, seed=0)
    scvi.model.CondSCVI.setup_anndata(adata, labels_key="cell_type", batch_key="batch")
    torch.manual_seed(0)
    model = scvi.model.CondSCVI(adata, prior="mog", num_classes_mog=4, n_latent=3, n_hidden=32)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def spots(reference):
    rng = np.random.default_rng(0)
    cells = rng.integers(0, reference.adata.n_obs, size=(N_SPOTS, 5))
    counts = np.stack([np.asarray(reference.adata.X[c].sum(axis=0)).ravel() for c in cells])
    import anndata

    adata = anndata.AnnData(counts.astype(np.float32))
    adata.var_names = reference.adata.var_names
    adata.obs["batch"] = reference.adata.obs["batch"].cat.categories[rng.integers(0, 2, N_SPOTS)]
    return adata


def build(reference, spots, **options):
    torch.manual_seed(0)  # of its weights
    model = scvi.model.DestVI.from_rna_model(spots, reference, **options)
    return model, SpotObjective(model.module)


def minibatch(model, dtype, cells=None, device="cpu"):
    cells = torch.arange(model.adata.n_obs) if cells is None else cells
    counts = torch.from_numpy(model.adata.X)[cells].to(dtype).to(device)
    batch = torch.from_numpy(model.adata_manager.get_from_registry("batch").astype(np.int64))
    return Batch(
        cells=cells.to(device),
        counts=SparseCounts.from_dense(counts),
        log_library=counts.sum(dim=1, keepdim=True).log(),
        batch=batch.ravel()[cells].to(device),
        labels=torch.zeros(len(cells), dtype=torch.int64, device=device),
    )


@pytest.fixture
def in_double(monkeypatch):
    """scvi-tools turns one-hot codes to single precision and checks shares by its standards."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.distributions.Distribution.set_default_validate_args(False)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    torch.distributions.Distribution.set_default_validate_args(True)


@pytest.mark.parametrize(("amortization", "prior_mode"), PAIRS)
def test_loss_and_gradients(
    reference, spots, in_double, monkeypatch, amortization, prior_mode, device
):
    """In training, on the same made-up spots; the decoder's dropout is off on both sides."""
    if widest_float(device) != torch.float64:
        pytest.skip(f"{device} has no double precision")
    model, objective = build(reference, spots, amortization=amortization, prior_mode=prior_mode)
    module = model.module.double().to(device).train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    batch, made = minibatch(model, torch.float64, device=device), []
    ours_augment = objective._augment
    monkeypatch.setattr(objective, "_augment", lambda *a: made.append(ours_augment(*a)) or made[0])

    losses = objective.differentiate(batch, GeneratorNoise(0, device), kl_weight=KL_WEIGHT)
    ours = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)

    tensors = {
        "X": batch.counts.densify(),
        "batch": batch.batch.unsqueeze(1),
        "ind_x": batch.cells.unsqueeze(1),
    }
    inferred = module.inference(
        x_augmented=made[0].counts,
        batch_index=tensors["batch"],
        prior_sampled=made[0].draws,
        ratios_ct_augmentation=made[0].compositions,
        ratio_augmentation=made[0].blend,
    )
    generated = module.generative(**module._get_generative_input(tensors, inferred))
    expected = module.loss(tensors, inferred, generated, kl_weight=KL_WEIGHT)
    expected.loss.backward()
    theirs = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}

    assert torch.isfinite(expected.loss)
    (reconstruction,) = expected.reconstruction_loss.values()
    (prior,) = expected.kl_local.values()
    torch.testing.assert_close(losses.reconstruction, reconstruction, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses.kl.mean(), prior.mean(), rtol=1e-9, atol=0)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert torch.isfinite(gradient).all(), name
        torch.testing.assert_close(ours[name], gradient, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize(("amortization", "prior_mode"), PAIRS)
def test_proportions_are_those_of_get_proportions(
    reference, spots, amortization, prior_mode, device
):
    model, objective = build(reference, spots, amortization=amortization, prior_mode=prior_mode)
    model.is_trained_ = True
    cells = torch.randperm(N_SPOTS, generator=torch.Generator().manual_seed(0))
    expected = model.get_proportions().to_numpy()[cells]
    model.module.to(device)
    ours = objective.proportions(minibatch(model, torch.float32, cells, device)).cpu()
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_single_precision_comes_to_the_same_loss(reference, spots, device):
    model, objective = build(reference, spots)
    model.module.eval().to(device)
    batch = minibatch(model, torch.float32, device=device)
    single = objective.compute_losses(batch, GeneratorNoise(0, device))
    model.module.cpu().double()
    double = objective.compute_losses(
        minibatch(model, torch.float64), GeneratorNoise(0, torch.device("cpu"))
    )
    torch.testing.assert_close(
        single.reconstruction.cpu().double(), double.reconstruction, rtol=1e-4, atol=0
    )
    torch.testing.assert_close(single.kl.cpu().double(), double.kl, rtol=1e-4, atol=1e-4)


def test_what_is_made_up_has_the_moments_it_should_have():
    n_labels, n_genes, n_latent, m = 3, 5, 2, 100_000
    counts = torch.full((m, n_genes), 10.0)
    theta = torch.tensor([0.5, 1.0, 2.0, 5.0, 50.0])
    profiles = torch.softmax(
        torch.tensor([[2.0, 0, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 2, 0, 0]]), 1
    )
    prior = {
        "means": np.zeros((n_labels, 1, n_latent), np.float32),
        "standard_deviations": np.ones((n_labels, 1, n_latent), np.float32),
        "shares": np.ones((n_labels, 1), np.float32),
    }
    made = augment(
        counts,
        seed=3,
        n_made=2,
        prior=prior,
        theta=theta,
        express=lambda states, labels, spots: profiles[labels],
    )
    assert made.counts.shape == (3, m, n_genes)
    torch.testing.assert_close(made.counts[0], counts)
    assert made.blend[0].eq(0).all()
    assert made.blend[1].eq(1).all()
    # Beta(0.4, 0.5) and a symmetric Dirichlet(0.03).
    assert stats.kstest(made.blend[2, :5000].ravel(), stats.beta(0.4, 0.5).cdf).pvalue > 1e-3
    compositions = made.compositions[1].numpy()
    np.testing.assert_allclose(compositions.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(compositions.mean(axis=0), 1 / 3, atol=0.01)
    for edge in (1e-6, 1e-3, 0.5, 0.999):
        share = stats.beta(0.03, 0.06).cdf(edge)
        assert abs((compositions[:, 0] < edge).mean() - share) < 0.015
    # Counts: negative binomial of the mixture, with 50 counts more than the spot.
    rates = torch.from_numpy(compositions) @ profiles * (50 + 50)
    drawn = made.counts[1]
    np.testing.assert_allclose(drawn.mean(dim=0), rates.mean(dim=0), rtol=0.05)
    spread = ((drawn - rates) ** 2).mean(dim=0)
    np.testing.assert_allclose(spread, (rates + rates**2 / theta).mean(dim=0), rtol=0.1)
    assert made.counts[1].eq(made.counts[1].round()).all()


def test_states_are_drawn_from_each_types_mixture():
    means = np.array([[[-3.0], [3.0]], [[10.0], [20.0]]], np.float32)
    spreads = np.array([[[0.5], [1.0]], [[0.1], [0.1]]], np.float32)
    shares = np.array([[0.3, 0.7], [1.0, 0.0]], np.float32)
    drawn = draw_states(
        np.random.default_rng(0),
        (4, 5000),
        means=means,
        standard_deviations=spreads,
        shares=shares,
    )
    assert drawn.shape == (4, 5000, 2, 1)
    first = drawn[..., 0, 0].ravel()
    mixture = lambda x: 0.3 * stats.norm.cdf(x, -3, 0.5) + 0.7 * stats.norm.cdf(x, 3, 1)
    assert stats.kstest(first, mixture).pvalue > 1e-3
    assert abs(drawn[..., 1, 0].mean() - 10) < 0.01


@pytest.mark.parametrize(("amortization", "prior_mode"), PAIRS)
def test_held_out_genes_are_predicted_by_the_whole_decoder(
    reference, spots, amortization, prior_mode
):
    """Against the softmax over all genes, divided by what the genes trained on have of it."""
    from scvitune.models import HeldOutGenes

    model, whole = build(reference, spots, amortization=amortization, prior_mode=prior_mode)
    kept, held = np.arange(0, 45), np.arange(45, N_GENES)
    part_spots = spots[:, kept].copy()
    part_model = scvi.model.DestVI(
        *_restricted(model, part_spots, reference, kept),
        **_options(model, amortization, prior_mode),
    )
    objective = SpotObjective(part_model.module)
    layer, last = reference.module.px_decoder, reference.module
    genes = HeldOutGenes(
        layer.weight[held].detach(),
        (layer.bias + last.per_ct_bias)[:, held].detach(),
        last.px_r[held].exp().detach(),
    )
    batch = minibatch(part_model, torch.float32)
    counts = torch.from_numpy(spots.X)[:, held]
    found = objective.held_out_loss(batch, counts, genes)

    module = part_model.module.eval()
    with torch.no_grad():
        inferred = module.inference(
            x_augmented=batch.counts.densify().unsqueeze(0), batch_index=batch.batch.unsqueeze(1)
        )
        generated = module.generative(
            inferred["z"], batch.cells, inferred["library"], batch.batch.unsqueeze(1)
        )
        gamma, modes, v = (
            generated["gamma"][0],
            generated["proportion_modes"][0],
            generated["v"][0],
        )
        expected = []
        for i in range(N_SPOTS):
            mean = torch.zeros(len(held))
            for p in range(len(gamma)):
                for c in range(N_LABELS):
                    embedded = module.compute_embedding("batch", batch.batch[i : i + 1])
                    hidden = module.decoder(
                        torch.cat([gamma[p, :, c, i].unsqueeze(0), embedded], dim=-1),
                        torch.tensor([[c]]),
                    )
                    logits = layer(hidden) + last.per_ct_bias[c]
                    share = torch.softmax(logits, dim=-1)[0]
                    mean += modes[p, i, c] * v[i, c] * share[held] / share[kept].sum()
            mean += v[i, N_LABELS:].sum() / len(kept)
            mean *= batch.counts.densify()[i].sum()
            distribution = scvi.distributions.NegativeBinomial(mu=mean, theta=genes.theta)
            expected.append(-distribution.log_prob(counts[i]).sum())
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-3)


def _restricted(model, part_spots, reference, kept):
    """Arguments of DestVI over some of the genes."""
    scvi.model.DestVI.setup_anndata(part_spots, batch_key="batch")
    module, first = model.module, reference.module
    layer = {"weight": first.px_decoder.weight[kept], "bias": first.px_decoder.bias[kept]}
    return (
        part_spots,
        model.cell_type_mapping,
        first.decoder.state_dict(),
        {name: value.detach() for name, value in layer.items()},
        first.px_r.detach()[kept],
        first.per_ct_bias.detach()[:, kept],
        module.n_hidden,
        module.n_latent,
        first.n_layers,
        module.dropout_decoder,
    )


def _options(model, amortization, prior_mode):
    module = model.module
    return {
        "amortization": amortization,
        "prior_mode": prior_mode,
        "mean_vprior": module.mean_vprior.clone(),
        "var_vprior": module.var_vprior.clone(),
        "mp_vprior": module.mp_vprior.clone(),
    }


@pytest.mark.parametrize(("amortization", "prior_mode"), PAIRS)
def test_a_step_makes_no_doubles(reference, spots, without_doubles, amortization, prior_mode):
    """Apple's GPUs have none; minibatches are dense there."""
    model, objective = build(reference, spots, amortization=amortization, prior_mode=prior_mode)
    objective.module.train()
    batch = minibatch(model, torch.float32)
    counts = DenseCounts(batch.counts.densify(), batch.counts.log_factorial)
    with without_doubles("cpu"):
        losses = objective.compute_losses(
            replace(batch, counts=counts), GeneratorNoise(0, torch.device("cpu"))
        )
        (losses.reconstruction + losses.kl + losses.kl_fixed).mean().backward()
    assert losses.reconstruction.dtype == torch.float32
