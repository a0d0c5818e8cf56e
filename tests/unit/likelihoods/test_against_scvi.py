"""Values and gradients against scvi-tools' own distributions, differentiated automatically."""

import pytest
import torch
from scvi.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from torch.distributions import Normal

from scvitune.likelihoods import negative_binomial, normal, poisson
from scvitune.sparse import SparseCounts

N_CELLS, N_GENES = 7, 23


def make_inputs(dtype=torch.float64, seed=0, dispersion="gene"):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    x = torch.poisson(torch.rand(N_CELLS, N_GENES, generator=g, dtype=dtype) * 4, generator=g)
    x = x * (torch.rand(N_CELLS, N_GENES, generator=g) < 0.4)
    x[0, :] = 0  # a cell of zeros only
    x[:, 3] = 0  # a gene of zeros only
    inputs = {
        "logits": (3 * randn(N_CELLS, N_GENES)).requires_grad_(),
        "log_library": (5 + randn(N_CELLS, 1)).requires_grad_(),
        "px_r": (
            2 * randn(*((N_GENES,) if dispersion == "gene" else (N_CELLS, N_GENES)))
        ).requires_grad_(),
        "pi": (4 * randn(N_CELLS, N_GENES)).requires_grad_(),
    }
    weights = torch.rand(N_CELLS, generator=g, dtype=dtype)
    return x, inputs, weights


def reference_log_prob(name, x, inputs, activation):
    scale = (
        torch.softmax(inputs["logits"], -1)
        if activation == "softmax"
        else torch.nn.functional.softplus(inputs["logits"])
    )
    mu = torch.exp(inputs["log_library"]) * scale
    theta = torch.exp(inputs["px_r"])
    if name == "zinb":
        px = ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=inputs["pi"])
    elif name == "nb":
        px = NegativeBinomial(mu=mu, theta=theta)
    elif name == "poisson":
        px = Poisson(rate=mu)
    else:
        px = Normal(mu, theta)
    return px.log_prob(x).sum(-1)


def our_log_prob(name, x, inputs, activation):
    counts = SparseCounts.from_dense(x)
    common = {
        "logits": inputs["logits"],
        "log_library": inputs["log_library"],
        "activation": activation,
    }
    theta = torch.exp(inputs["px_r"])
    if name == "zinb":
        return negative_binomial(counts, theta=theta, pi=inputs["pi"], **common)
    if name == "nb":
        return negative_binomial(counts, theta=theta, **common)
    if name == "poisson":
        return poisson(counts, **common)
    return normal(counts, scale=theta, **common)


def used(name):
    names = ["logits", "log_library"]
    return names + {"zinb": ["px_r", "pi"], "nb": ["px_r"], "normal": ["px_r"]}.get(name, [])


@pytest.mark.parametrize("dispersion", ["gene", "gene-cell"])
@pytest.mark.parametrize("activation", ["softmax", "softplus"])
@pytest.mark.parametrize("name", ["nb", "zinb", "poisson", "normal"])
def test_value_and_gradients(name, activation, dispersion):
    x, inputs, weights = make_inputs(dispersion=dispersion)
    expected = reference_log_prob(name, x, inputs, activation)
    leaves = [inputs[n] for n in used(name)]
    expected_grads = torch.autograd.grad((expected * weights).sum(), leaves)
    ours = our_log_prob(name, x, inputs, activation)
    grads = torch.autograd.grad((ours * weights).sum(), leaves)
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-7)
    for label, actual, wanted in zip(used(name), grads, expected_grads, strict=True):
        torch.testing.assert_close(
            actual, wanted, rtol=1e-5, atol=1e-7 * float(wanted.abs().max()), msg=label
        )


@pytest.mark.parametrize("name", ["nb", "zinb"])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_extreme_parameters_are_no_worse_than_scvi_in_single_precision(name, spread):
    """Values that a diverging trial reaches: huge and vanishing means, dispersions, logits."""
    x, inputs, _ = make_inputs(dtype=torch.float32)
    with torch.no_grad():
        inputs["logits"] *= spread
        inputs["px_r"] *= spread
        inputs["pi"] *= spread
    in_double = {key: value.double() for key, value in inputs.items()}
    exact = reference_log_prob(name, x.double(), in_double, "softmax")
    theirs = (reference_log_prob(name, x, inputs, "softmax") - exact).abs()
    ours = our_log_prob(name, x, inputs, "softmax")
    error = (ours - exact).abs()
    assert (error <= 2 * theirs + 1e-5 * exact.abs()).all()
    leaves = [inputs[n] for n in used(name)]
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(ours.sum(), leaves))


@pytest.mark.parametrize("name", ["nb", "zinb", "poisson"])
def test_hand_written_gradients_pass_gradcheck(name):
    x, inputs, _ = make_inputs(seed=3)

    def log_prob(*values):
        return our_log_prob(
            name, x, inputs | dict(zip(used(name), values, strict=True)), "softmax"
        )

    assert torch.autograd.gradcheck(log_prob, [inputs[n] for n in used(name)], eps=1e-6, atol=1e-4)


def test_sparse_counts_hold_the_matrix():
    x, _, _ = make_inputs()
    counts = SparseCounts.from_dense(x)
    torch.testing.assert_close(counts.densify(), x)
    torch.testing.assert_close(counts.sum_by_cell(counts.values), x.sum(1))
    torch.testing.assert_close(counts.sum_by_gene(counts.values), x.sum(0))
    torch.testing.assert_close(counts.log_factorial, torch.lgamma(x + 1).sum(1))
