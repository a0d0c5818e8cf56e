"""Negative binomials whose mean is a mixture of decoded profiles, as a torch function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scvitune._compiling import load_kernels

CONVOLUTION_KERNELS = "scvitune.likelihoods._convolution_kernel"
EPS = 1e-8  # scvi-tools' constant, added where a logarithm is taken
_CHUNK = 1 << 18  # logits at a time: 1 MB, which stays in the second cache


@dataclass(frozen=True)
class Decoded:
    """Profiles that a frozen last layer decodes, and their shares of each spot.

    Attributes
    ----------
    hidden
        (n, R, n_hidden), the last layer's input for the R rows of each spot.
    weight
        (n_genes, n_hidden), of the last layer; it gets no gradient.
    bias
        (n_labels, n_genes), added to the logits of row ``r`` by its label ``r % n_labels``; it
        gets no gradient.
    shift
        (n_genes,), added to all logits.
    shares
        (n, R), of the rows.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    shift: Tensor
    shares: Tensor


def convolved_negative_binomial(
    decoded: Decoded,
    *,
    extra: Tensor,
    profiles: Tensor,
    counts: Tensor,
    theta: Tensor,
) -> Tensor:
    r"""Log-probability of each spot's counts, (n,), under a mixture of its cell types.

    .. math:: \mu = l \left(\sum_r \mathrm{shares}_r \, \mathrm{softmax}(\mathrm{logits}_r)
              + \sum_a \mathrm{extra}_a \, \mathrm{profiles}_a\right)

    with the library size :math:`l` the sum of the counts. Differentiable by ``hidden``,
    ``shift``, ``shares``, ``extra``, ``profiles`` and ``theta``, where what comes back is the same
    for all spots: gradients are computed along with the value.

    Parameters
    ----------
    decoded
        See `Decoded`.
    extra, profiles
        (n, A) shares of (A, n_genes) further profiles, each summing to 1.
    counts
        (n, n_genes), not negative; they need not be whole.
    theta
        (n_genes,), inverse dispersion.
    """
    if not can_convolve(decoded.hidden, decoded.weight, counts, theta):
        return _convolve_plainly(decoded, extra, profiles, counts, theta)
    result: Tensor = _Convolution.apply(
        decoded.hidden,
        decoded.shift,
        decoded.shares,
        extra,
        profiles,
        theta,
        decoded.weight,
        decoded.bias,
        counts,
    )
    return result


def can_convolve(*tensors: Tensor) -> bool:
    """Whether the compiled kernel covers such tensors: single precision on the CPU."""
    fits = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    return fits and load_kernels(CONVOLUTION_KERNELS) is not None


def _convolve_plainly(
    decoded: Decoded, extra: Tensor, profiles: Tensor, counts: Tensor, theta: Tensor
) -> Tensor:
    labels = torch.arange(decoded.hidden.shape[1], device=counts.device) % len(decoded.bias)
    logits = F.linear(decoded.hidden, decoded.weight) + decoded.bias[labels] + decoded.shift
    mixed = (decoded.shares.unsqueeze(1) @ torch.softmax(logits, dim=-1)).squeeze(1)
    mean = counts.sum(dim=1, keepdim=True) * (mixed + extra @ profiles)
    return negative_binomial_log_probability(counts, mean=mean, theta=theta).sum(dim=1)


def negative_binomial_log_probability(counts: Tensor, *, mean: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of each count, by torch alone, with scvi-tools' epsilon.

    Parameters
    ----------
    counts, mean
        (n, n_genes).
    theta
        (n_genes,), inverse dispersion.
    """
    log_sum = torch.log(theta + mean + EPS)
    by_theta = theta * (torch.log(theta + EPS) - log_sum)
    by_counts = counts * (torch.log(mean + EPS) - log_sum)
    gammas = torch.lgamma(counts + theta) - torch.lgamma(theta) - torch.lgamma(counts + 1)
    return by_theta + by_counts + gammas


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        shift: Tensor,
        shares: Tensor,
        extra: Tensor,
        profiles: Tensor,
        theta: Tensor,
        weight: Tensor,
        bias: Tensor,
        counts: Tensor,
    ) -> Tensor:
        kernels: Any = load_kernels(CONVOLUTION_KERNELS)
        n, n_rows, n_hidden = hidden.shape
        n_genes = len(weight)
        hidden, counts = hidden.contiguous(), counts.contiguous()
        log_probability = counts.new_empty(n)
        by_hidden, by_shares = torch.empty_like(hidden), torch.empty(n, n_rows)
        by_extra, by_profiles = torch.empty(n, extra.shape[1]), torch.zeros_like(profiles)
        by_shift, by_theta = torch.zeros(n_genes), torch.zeros(n_genes)
        library = counts.sum(dim=1)
        constants = {
            "bias": (bias + shift).numpy(),
            "profiles": profiles.contiguous().numpy(),
            "theta": theta.contiguous().numpy(),
        }
        shares, extra = shares.contiguous(), extra.contiguous()
        step = max(1, _CHUNK // (n_rows * n_genes))
        logits = torch.empty(min(step, n) * n_rows, n_genes)
        for start in range(0, n, step):
            at = slice(start, min(start + step, n))
            rows = (at.stop - at.start) * n_rows
            block = torch.mm(hidden[at].view(rows, n_hidden), weight.t(), out=logits[:rows])
            kernels.convolution_kernel(
                block.numpy(),
                constants["bias"],
                shares[at].numpy(),
                extra[at].numpy(),
                constants["profiles"],
                library[at].numpy(),
                counts[at].numpy(),
                constants["theta"],
                1.0,
                log_probability[at].numpy(),
                by_shares[at].numpy(),
                by_extra[at].numpy(),
                by_profiles.numpy(),
                by_shift.numpy(),
                by_theta.numpy(),
            )
            torch.mm(block, weight, out=by_hidden[at].view(rows, n_hidden))
        ctx.gradients = (by_hidden, by_shift, by_shares, by_extra, by_profiles, by_theta)
        return log_probability

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        factor = grad[0]
        scaled = [gradient.mul_(factor) for gradient in ctx.gradients]  # nobody else has them
        ctx.gradients = None
        return (*scaled, None, None, None)
