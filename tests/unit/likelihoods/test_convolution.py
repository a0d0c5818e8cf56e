"""Mixtures of decoded profiles: value and gradients against scvi-tools in double precision."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scvi.distributions import NegativeBinomial

from scvitune.likelihoods import Decoded, convolved_negative_binomial

N_HIDDEN, N_LABELS, N_MODES = 12, 3, 2
NAMES = ("hidden", "shift", "shares", "extra", "profiles", "theta")


def draw(n=9, n_genes=40, seed=0, *, n_extra=1, logit_scale=1.0, theta_scale=1.0):
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    counts = torch.poisson(torch.rand(n, n_genes, generator=rng) * 4, generator=rng)
    counts[1] *= 0.37  # made-up spots are blends, so counts need not be whole
    counts[2] *= 300
    decoded = Decoded(
        hidden=normal(n, N_MODES * N_LABELS, N_HIDDEN) * logit_scale,
        weight=normal(n_genes, N_HIDDEN),
        bias=normal(N_LABELS, n_genes),
        shift=0.1 * normal(n_genes),
        shares=torch.rand(n, N_MODES * N_LABELS, generator=rng),
    )
    return decoded, {
        "extra": torch.rand(n, n_extra, generator=rng),
        "profiles": torch.softmax(normal(n_extra, n_genes), dim=-1),
        "counts": counts,
        "theta": torch.exp(theta_scale * normal(n_genes)),
    }


def in_double(decoded, more):
    return (
        Decoded(*(getattr(decoded, f.name).double() for f in dataclasses.fields(decoded))),
        {name: value.double() for name, value in more.items()},
    )


def differentiable(decoded, more):
    """Return the leaves in the order of NAMES, set to collect gradients."""
    leaves = [decoded.hidden, decoded.shift, decoded.shares]
    leaves += [more["extra"], more["profiles"], more["theta"]]
    return [leaf.requires_grad_() for leaf in leaves]


def by_scvi_tools(decoded, more):
    labels = torch.arange(decoded.hidden.shape[1]) % len(decoded.bias)
    logits = decoded.hidden @ decoded.weight.t() + decoded.bias[labels] + decoded.shift
    mixed = (decoded.shares.unsqueeze(-1) * torch.softmax(logits, dim=-1)).sum(dim=1)
    mixed = mixed + more["extra"] @ more["profiles"]
    rate = more["counts"].sum(dim=1, keepdim=True) * mixed
    distribution = NegativeBinomial(mu=rate, theta=more["theta"], validate_args=False)
    return distribution.log_prob(more["counts"]).sum(dim=1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_extra": 2},
        {"n_genes": 7},
        {"logit_scale": 8.0},
        {"theta_scale": 5.0},
        {"n": 700, "n_genes": 300},  # several chunks
    ],
    ids=str,
)
def test_value_and_gradients(options):
    decoded, more = draw(**options)
    wanted_of, wanted_more = in_double(decoded, more)
    leaves, wanted = differentiable(decoded, more), differentiable(wanted_of, wanted_more)
    value = convolved_negative_binomial(decoded, **more)
    expected = by_scvi_tools(wanted_of, wanted_more)
    # Of large counts, what is summed is larger than the sum.
    allowed = 1e-5 * expected.abs() + 2e-6 * more["counts"].sum(dim=1)
    assert ((value.double() - expected).abs() < allowed).all()
    (0.3 * value.sum()).backward()
    (0.3 * expected.sum()).backward()
    for name, ours, theirs in zip(NAMES, leaves, wanted, strict=True):
        error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
        assert error < 2e-5, name


def test_other_precisions_take_the_plain_way_to_the_same_numbers():
    decoded, more = in_double(*draw())
    leaves = differentiable(decoded, more)
    value = convolved_negative_binomial(decoded, **more)
    value.sum().backward()
    ours = [leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    expected = by_scvi_tools(decoded, more)
    expected.sum().backward()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    for mine, leaf in zip(ours, leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad, rtol=1e-9, atol=1e-12)


def test_a_spot_without_counts_costs_nothing_and_teaches_nothing():
    decoded, more = draw()
    more["counts"][0] = 0
    leaves = differentiable(decoded, more)
    value = convolved_negative_binomial(decoded, **more)
    assert abs(float(value.detach()[0])) < 1e-4
    value.sum().backward()
    assert torch.isfinite(leaves[0].grad).all()
    np.testing.assert_allclose(leaves[0].grad[0], 0, atol=1e-6)
