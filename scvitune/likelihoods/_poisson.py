"""Poisson, with the gradient written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scvitune.likelihoods._mean import ScaleActivation, compute_mean, logits_gradient
from scvitune.sparse import Counts


class _Poisson(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        log_library: Tensor,
        counts: Counts,
        activation: ScaleActivation,
    ) -> Tensor:
        mu = compute_mean(logits, log_library, activation)
        log_mu_nz = counts.pick(mu).log()
        ctx.save_for_backward(logits, log_library, mu)
        ctx.counts, ctx.activation = counts, activation
        picked = counts.at_nonzeros(counts.values * log_mu_nz)
        return counts.sum_by_cell(picked) - mu.sum(1) - counts.log_factorial

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, log_library, mu = ctx.saved_tensors
        counts: Counts = ctx.counts
        grad = grads[0].unsqueeze(1)
        h = -mu
        counts.add_to(h, counts.values)
        h_by_cell = h.sum(1)
        grad_logits = logits_gradient(
            h,
            h_by_cell=h_by_cell,
            mu=mu,
            logits=logits,
            log_library=log_library,
            activation=ctx.activation,
        ).mul_(grad)
        grad_library = h_by_cell.unsqueeze(1) * grad if ctx.needs_input_grad[1] else None
        return grad_logits, grad_library, None, None


def poisson(
    counts: Counts,
    *,
    logits: Tensor,
    log_library: Tensor,
    activation: ScaleActivation = "softmax",
) -> Tensor:
    """Log-probability of each cell, (n_cells,), with mean ``exp(log_library) * scale``.

    Parameters as in `negative_binomial`.
    """
    result: Tensor = _Poisson.apply(logits, log_library, counts, activation)
    return result
