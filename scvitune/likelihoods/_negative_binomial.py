r"""Negative binomial and zero-inflated negative binomial, with gradients written by hand.

The densities are those of scvi-tools (``log_nb_positive``, ``log_zinb_positive``; Lopez et al.,
Nature Methods 2018), in terms of the mean :math:`\mu`, the inverse dispersion :math:`\theta` and
the logit :math:`\pi` of the zero inflation, with the same :math:`\epsilon` in the same places:

.. math::

    t &= \theta + \mu + \epsilon, \quad a = \theta (\log(\theta + \epsilon) - \log t) \\
    \log NB(x) &= a + x (\log(\mu + \epsilon) - \log t)
        + \log\Gamma(x + \theta) - \log\Gamma(\theta) - \log\Gamma(x + 1) \\
    \log ZINB(0) &= s(a - \pi) - s(-\pi), \quad s = \mathrm{softplus} \\
    \log ZINB(x > 0) &= -s(-\pi) - \pi + \log NB(x)

Written as a dense part that treats every count as zero plus a correction at the non-zeros, the
gamma functions are needed at the non-zeros only, and the backward pass needs neither them nor
any temporary but those kept from the forward pass.

The torch code here covers every device, precision, activation and shape of the dispersion; what
training on a CPU needs most is left to the compiled pass of `_single_pass`, 2.5 times as fast.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scvitune.likelihoods._mean import ScaleActivation, compute_mean, logits_gradient
from scvitune.likelihoods._single_pass import can_fuse, single_pass_negative_binomial
from scvitune.sparse import Counts, SparseCounts

EPS = 1e-8  # scvi-tools' constant, added where a logarithm is taken


class _NegativeBinomial(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        log_library: Tensor,
        theta: Tensor,
        pi: Tensor | None,
        counts: Counts,
        activation: ScaleActivation,
    ) -> Tensor:
        theta = theta.contiguous()
        x = counts.values
        mu = compute_mean(logits, log_library, activation)
        t = mu + (theta + EPS)
        # Differences of logarithms are taken before theta multiplies them: with a large theta
        # (a gene that is nearly Poisson) the products cancel to nothing in single precision.
        log_t = t.log()
        # What is picked may be the tensor itself, so it is used before that is overwritten.
        picked = x * (torch.log(counts.pick(mu) + EPS) - counts.pick(log_t))
        log_share = torch.sub(torch.log(theta + EPS), log_t, out=log_t)
        gamma_terms = torch.lgamma(x + counts.pick(theta)) - counts.pick(torch.lgamma(theta))
        picked += gamma_terms

        # a: log-probability of a zero under the negative binomial, everywhere.
        if pi is None:
            dense = log_share @ theta if theta.dim() == 1 else (theta * log_share).sum(1)
            u = None
        else:
            u = (log_share * theta).sub_(pi)
            picked += F.logsigmoid(counts.pick(u))
            # s(u) - s(-pi), with s(v) = max(v, 0) - log sigmoid(|v|): one logarithm for both,
            # and no exponential that could overflow.
            dense = torch.clamp_min(u, 0).add_(torch.clamp_max(pi, 0))
            dense -= u.abs().sigmoid_().div_(pi.abs().sigmoid_()).log_()
            dense = dense.sum(1)

        ctx.save_for_backward(logits, log_library, theta, pi, mu, t, log_share, u)
        ctx.counts, ctx.activation = counts, activation
        return dense + counts.sum_by_cell(counts.at_nonzeros(picked)) - counts.log_factorial

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, log_library, theta, pi, mu, t, log_share, u = ctx.saved_tensors
        counts: Counts = ctx.counts
        grad = grads[0].unsqueeze(1)  # (n_cells, 1)
        x = counts.values

        ratio = mu / t
        mu_nz = counts.pick(mu)
        by_counts = x * (mu_nz / (mu_nz + EPS) - counts.pick(ratio))
        grad_pi = q = None
        if pi is not None:
            # q: how much of a zero the negative binomial explains; 1 where the count is not 0.
            q = torch.sigmoid(u)
            counts.fill(q, 1.0)
            if ctx.needs_input_grad[3]:
                grad_pi = torch.sigmoid(pi).add_(q).sub_(1).mul_(-grad)  # sigmoid(-pi) - q

        grad_theta = None
        if ctx.needs_input_grad[2]:
            grad_theta = _theta_gradient(counts, grads[0], theta, t, log_share, ratio, q)

        h = ratio.mul_(theta).neg_()
        if q is not None:
            h.mul_(q)
        counts.add_to(h, by_counts)
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
        return grad_logits, grad_library, grad_theta, grad_pi, None, None


def _theta_gradient(
    counts: Counts,
    grad: Tensor,
    theta: Tensor,
    t: Tensor,
    log_share: Tensor,
    ratio: Tensor,
    q: Tensor | None,
) -> Tensor:
    """Gradient by theta, of theta's shape; ``grad`` (n_cells,) comes from above."""
    x = counts.values
    picked = (
        torch.digamma(x + counts.pick(theta))
        - counts.pick(torch.digamma(theta))
        - x / counts.pick(t)
    ) * counts.spread(grad)
    picked = counts.at_nonzeros(picked)
    # d a / d theta = log_share + theta / (theta + eps) - theta / t, and the last two differ by
    # ratio = mu / t but for terms in eps.
    dense = log_share + ratio
    if q is not None:
        dense.mul_(q)
    if theta.dim() == 1:
        return grad @ dense + counts.sum_by_gene(picked)
    dense.mul_(grad.unsqueeze(1))
    counts.add_to(dense, picked)
    return dense


def negative_binomial(
    counts: Counts,
    *,
    logits: Tensor,
    log_library: Tensor,
    theta: Tensor,
    pi: Tensor | None = None,
    activation: ScaleActivation = "softmax",
) -> Tensor:
    """Log-probability of each cell under the negative binomial, zero-inflated if ``pi`` is given.

    Parameters
    ----------
    counts
        The minibatch.
    logits
        (n_cells, n_genes), the decoder's scale before its activation.
    log_library
        (n_cells, 1), log of the library size or size factor.
    theta
        Inverse dispersion, positive: (n_genes,) or (n_cells, n_genes).
    pi
        (n_cells, n_genes), logit of the zero inflation, or None.
    activation
        What turns ``logits`` into the scale.

    Returns
    -------
    (n_cells,), summed over genes.
    """
    inputs: dict[str, Any] = {
        "logits": logits,
        "log_library": log_library,
        "theta": theta,
        "pi": pi,
    }
    if isinstance(counts, SparseCounts) and can_fuse(counts, **inputs, activation=activation):
        return single_pass_negative_binomial(counts, **inputs)
    result: Tensor = _NegativeBinomial.apply(logits, log_library, theta, pi, counts, activation)
    return result
