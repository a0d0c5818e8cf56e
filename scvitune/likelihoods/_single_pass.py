"""The fused negative binomial of `_fused` as a torch function, and when it can be used."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scvitune.likelihoods._counts import SparseCounts
from scvitune.likelihoods._mean import ScaleActivation


@functools.cache
def _load_kernel() -> Callable[..., bool] | None:
    """Import the kernel when it is first wanted: the very first time that compiles for seconds."""
    try:
        import numba
    except ImportError:
        return None
    if numba.config.DISABLE_JIT:
        return None
    try:
        from scvitune.likelihoods import _fused
    except numba.core.errors.NumbaError as error:
        warnings.warn(f"numba cannot compile, likelihoods are slower: {error}", stacklevel=2)
        return None
    kernel: Callable[..., bool] = _fused.negative_binomial_kernel
    return kernel


def compile_kernels() -> bool:
    """Compile what is compiled at run time, so that later processes load it from the cache.

    The cache lies in the package's ``__pycache__``, else in the user's cache folder, or in
    ``NUMBA_CACHE_DIR``; where none can be written to, each process compiles for itself.

    Returns
    -------
    Whether there are compiled kernels; False if numba cannot be imported or is switched off.
    """
    return _load_kernel() is not None


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
        (counts.values, counts.flat.shape),
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
        and counts.flat.dtype == torch.int64
        and logits.numel() > 0
        and _load_kernel() is not None
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
    differentiate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log-probability of each cell and, if wanted, its derivatives by the four inputs.

    The derivatives by ``theta`` are one row a cell. Those not computed are empty.
    """
    kernel = _load_kernel()
    if kernel is None:
        raise RuntimeError("numba is not there; ask can_fuse first")
    n_cells = len(logits)
    full = logits.shape if differentiate else (0, 0)
    log_probability, by_library = logits.new_empty(n_cells), logits.new_empty(n_cells)
    by_logits, by_theta = logits.new_empty(full), logits.new_empty(full)
    by_pi = logits.new_empty((0, 0) if pi is None else full)
    filled = kernel(
        _as_array(logits),
        _as_array(log_library.exp().view(-1)),
        _as_array(theta),
        _as_array(logits.new_empty((0, 0)) if pi is None else pi),
        _as_array(counts.flat),
        _as_array(counts.values),
        _as_array(counts.log_factorial),
        log_probability.numpy(),
        by_logits.numpy(),
        by_library.numpy(),
        by_theta.numpy(),
        by_pi.numpy(),
    )
    if not filled:
        raise ValueError("the positions of the non-zero counts must be ascending and inside")
    return log_probability, by_logits, by_library, by_theta, by_pi


class _SinglePass(torch.autograd.Function):
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
            logits, log_library, theta, pi, counts, differentiate=True
        )
        ctx.save_for_backward(*derivatives)
        return log_probability

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by_logits, by_library, by_theta, by_pi = ctx.saved_tensors
        grad = grads[0].unsqueeze(1)
        needs_logits, needs_library, needs_theta, needs_pi, _ = ctx.needs_input_grad
        return (
            by_logits * grad if needs_logits else None,
            by_library.unsqueeze(1) * grad if needs_library else None,
            grads[0] @ by_theta if needs_theta else None,
            by_pi * grad if needs_pi else None,
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
    return _run(*inputs, counts, differentiate=False)[0]
