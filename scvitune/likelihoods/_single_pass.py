"""The fused negative binomial of `_fused` as a torch function, and when it can be used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scvitune.likelihoods._counts import SparseCounts
from scvitune.likelihoods._mean import ScaleActivation


@functools.cache
def _load_kernel() -> Callable[..., None] | None:
    """Import the kernel when it is first wanted: at the first time it is compiled (seconds)."""
    try:
        import numba

        if numba.config.DISABLE_JIT:
            return None
        from scvitune.likelihoods import _fused
    except ImportError:
        return None
    kernel: Callable[..., None] = _fused.negative_binomial_kernel
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
    tensors = [logits, log_library, theta, counts.values, counts.log_factorial]
    if pi is not None:
        tensors.append(pi)
    return (
        activation == "softmax"
        and theta.dim() == 1
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
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
    nothing = logits.new_empty((0, 0))
    by_logits = torch.empty_like(logits) if differentiate else nothing
    by_theta = torch.empty_like(by_logits)
    by_pi = by_logits.new_empty(by_logits.shape if pi is not None else (0, 0))
    by_library = logits.new_empty(len(by_logits))
    log_probability = logits.new_empty(len(logits))
    kernel(
        _as_array(logits),
        _as_array(log_library.exp().view(-1)),
        _as_array(theta),
        _as_array(nothing if pi is None else pi),
        _as_array(counts.flat),
        _as_array(counts.values),
        _as_array(counts.log_factorial),
        _as_array(log_probability),
        _as_array(by_logits),
        _as_array(by_library),
        _as_array(by_theta),
        _as_array(by_pi),
    )
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
