"""The fused negative binomial of `_fused` as a torch function, and when it can be used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scvitune._compiling import load_kernels
from scvitune.likelihoods._mean import ScaleActivation
from scvitune.sparse import SparseCounts

LIKELIHOOD_KERNELS = "scvitune.likelihoods._fused"


def compile_kernels() -> bool:
    """Compile what is compiled at run time, so that later processes load it from numba's cache.

    Returns
    -------
    Whether there are compiled kernels; False if numba cannot be imported or is switched off.
    """
    modules = (
        LIKELIHOOD_KERNELS,
        "scvitune.sparse._kernels",
        "scvitune.models._layer_kernels",
    )
    return None not in [load_kernels(module) for module in modules]


def can_fuse(
    counts: SparseCounts,
    *,
    logits: Tensor,
    log_library: Tensor,
    theta: Tensor,
    pi: Tensor | None,
    activation: ScaleActivation,
) -> bool:
    """Whether the single pass covers these arguments of `negative_binomial`.

    That is single precision on the CPU, a softmax, and one dispersion a gene.
    """
    shapes = [
        (logits, (counts.n_cells, counts.n_genes)),
        (log_library, (counts.n_cells, 1)),
        (theta, (counts.n_genes,)),
        (counts.values, counts.columns.shape),
        (counts.log_factorial, (counts.n_cells,)),
    ]
    if pi is not None:
        shapes.append((pi, logits.shape))
    return (
        activation == "softmax"
        and all(
            t.shape == shape and t.dtype == torch.float32 and t.device.type == "cpu"
            for t, shape in shapes
        )
        and counts.columns.dtype == torch.int64
        and logits.numel() > 0
        and load_kernels(LIKELIHOOD_KERNELS) is not None
    )


def _as_array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


def _run(
    logits: Tensor,
    log_library: Tensor,
    theta: Tensor,
    pi: Tensor | None,
    counts: SparseCounts,
    *,
    weights: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log-probability of each cell and, if there are weights, the derivatives of their sum.

    Those are by the four inputs, of the log-probabilities times the weights. What is not computed
    is empty.
    """
    kernels = load_kernels(LIKELIHOOD_KERNELS)
    if kernels is None:
        raise RuntimeError("numba is not there; ask can_fuse first")
    n_cells, n_genes = logits.shape
    full = logits.shape if weights is not None else (0, 0)
    log_probability, by_library = logits.new_empty(n_cells), logits.new_empty(n_cells)
    by_logits = logits.new_empty(full)
    by_theta = logits.new_empty(n_genes if weights is not None else 0)
    by_pi = logits.new_empty((0, 0) if pi is None else full)
    nothing = logits.new_empty(0)
    filled = kernels.negative_binomial_kernel(
        _as_array(logits),
        nothing.numpy(),
        _as_array(log_library.exp().view(-1)),
        _as_array(theta),
        _as_array(logits.new_empty((0, 0)) if pi is None else pi),
        nothing.numpy(),
        _as_array(counts.indptr),
        _as_array(counts.columns),
        _as_array(counts.values),
        _as_array(counts.log_factorial),
        _as_array(nothing if weights is None else weights),
        log_probability.numpy(),
        by_logits.numpy(),
        by_library.numpy(),
        by_theta.numpy(),
        by_pi.numpy(),
        nothing.numpy(),
        nothing.numpy(),
    )
    if not filled:
        raise ValueError("each cell's columns of non-zero counts must be ascending and inside")
    return log_probability, by_logits, by_library, by_theta, by_pi


class _SinglePass(torch.autograd.Function):
    """Derivatives are computed with the value, for the gradient that a mean over cells has.

    That is the same number for each cell, by which they are scaled, in place, once it is known.
    For any other gradient, and for a second backward pass, they are computed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        log_library: Tensor,
        theta: Tensor,
        pi: Tensor | None,
        counts: SparseCounts,
    ) -> Tensor:
        log_probability, *derivatives = _run(
            logits, log_library, theta, pi, counts, weights=logits.new_ones(len(logits))
        )
        ctx.save_for_backward(logits, log_library, theta, pi)
        ctx.counts, ctx.derivatives = counts, derivatives
        return log_probability

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        derivatives, ctx.derivatives = ctx.derivatives, None
        if derivatives is not None and bool((grad == grad[0]).all()):
            for derivative in derivatives:
                derivative.mul_(grad[0])
        else:
            logits, log_library, theta, pi = ctx.saved_tensors
            _, *derivatives = _run(logits, log_library, theta, pi, ctx.counts, weights=grad)
        by_logits, by_library, by_theta, by_pi = derivatives
        needs_logits, needs_library, needs_theta, needs_pi, _ = ctx.needs_input_grad
        return (
            by_logits if needs_logits else None,
            by_library.unsqueeze(1) if needs_library else None,
            by_theta if needs_theta else None,
            by_pi if needs_pi else None,
            None,
        )


def single_pass_negative_binomial(
    counts: SparseCounts,
    *,
    logits: Tensor,
    log_library: Tensor,
    theta: Tensor,
    pi: Tensor | None,
) -> Tensor:
    """`negative_binomial` for arguments of which `can_fuse` is true.

    The derivatives are computed with the value, if anything needs them.
    """
    inputs = (logits, log_library, theta, pi)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        result: Tensor = _SinglePass.apply(*inputs, counts)
        return result
    return _run(*inputs, counts, weights=None)[0]
