"""The hidden layers of DestVI's decoder, which stays as CondSCVI left it.

So only the states that it decodes and the batches' embedding need a gradient, and a layer's
columns of labels and batches are looked up and not multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scvitune._compiling import load_kernels
from scvitune.contracts import Noise
from scvitune.models._bound import Buffers

DECODER_KERNELS = "scvitune.models._decoder_kernels"
_COVERED = ([nn.LayerNorm, nn.ReLU], [nn.LayerNorm, nn.ReLU, nn.Dropout])


class FrozenDecoder:
    """Runs ``scvi.nn.FCLayers`` of a decoder on states of cell types.

    In single precision on the CPU, what lies between the matrix products is one compiled pass each
    way, over buffers that are kept from step to step: memory that is asked for anew each time
    costs as much as the pass itself.

    Parameters
    ----------
    decoder
        With ``fc_layers``, whose first layer takes state, batch and label, the others also the
        label.
    """

    def __init__(self, decoder: Any) -> None:
        self._layers = [_Layer.of(block) for block in decoder.fc_layers]
        self._buffers = Buffers()

    def __call__(self, states: Tensor, embedded: Tensor, labels: Tensor, noise: Noise) -> Tensor:
        """Return (..., n_hidden), which the next call may overwrite.

        Parameters
        ----------
        states
            (..., n_latent).
        embedded
            (..., n_embedding), of the batches, broadcast to the states.
        labels
            Codes, (k,), of the last dimension but one of the states.
        """
        if self._can_fuse(states):
            return self._run_at_once(states, embedded, labels, noise)
        hidden = states
        for i, layer in enumerate(self._layers):
            own, by_label, by_batch = layer.split(hidden.shape[-1], embedded if i == 0 else None)
            hidden = F.linear(hidden, own) + by_label[labels if len(by_label) > 1 else 0]
            if by_batch is not None:
                hidden = hidden + by_batch
            for part in layer.rest:
                if not isinstance(part, nn.Dropout):
                    hidden = part(hidden)
                elif layer.rate > 0:
                    keep = noise.keep(hidden, layer.rate).to(hidden.dtype)
                    hidden = hidden * keep.mul_(1 / (1 - layer.rate))
        return hidden

    def _can_fuse(self, states: Tensor) -> bool:
        fits = states.dtype == torch.float32 and states.device.type == "cpu"
        fits = fits and all(layer.is_covered for layer in self._layers)
        return fits and load_kernels(DECODER_KERNELS) is not None

    def _run_at_once(
        self, states: Tensor, embedded: Tensor, labels: Tensor, noise: Noise
    ) -> Tensor:
        steps, width = [], states.shape[-1]
        by_batches = states.new_empty((0, 0))
        for i, layer in enumerate(self._layers):
            own, by_label, by_batch = layer.split(width, embedded if i == 0 else None)
            width = len(own)
            if by_batch is not None:
                by_batches = by_batch.reshape(-1, width)
            keep = torch.empty((0, 0), dtype=torch.bool)
            if layer.rate > 0:
                like = own.new_empty(1).expand(*states.shape[:-1], width)
                keep = noise.keep(like, layer.rate).view(-1, width)
            steps.append(
                _Step(
                    weight=own.detach(),
                    by_label=by_label.detach().contiguous(),
                    labels=labels if len(by_label) > 1 else torch.zeros_like(labels[:1]),
                    eps=layer.rest[0].eps,
                    keep=keep,
                    scale=1 / (1 - layer.rate),
                )
            )
        result: Tensor = _Hidden.apply(states, by_batches, steps, self._buffers)
        return result


@dataclass(frozen=True)
class _Layer:
    linear: nn.Linear
    rest: tuple[Any, ...]

    @classmethod
    def of(cls, block: Any) -> _Layer:
        first, *rest = (part for part in block if part is not None)
        return cls(first, tuple(rest))

    def split(self, width: int, embedded: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the weight of the first columns, and what labels and batches come to.

        Returns
        -------
        (n_units, width); the bias with that of each label, (n_labels, n_units) or (1, n_units);
        and (..., n_units) of the batches, None without.
        """
        own, rest = self.linear.weight[:, :width], self.linear.weight[:, width:]
        by_batch = None
        if embedded is not None:
            n_embedding = embedded.shape[-1]
            by_batch = F.linear(embedded, rest[:, :n_embedding])
            rest = rest[:, n_embedding:]
        bias = self.linear.bias
        return own, rest.t() + bias if rest.shape[1] else bias.unsqueeze(0), by_batch

    @property
    def rate(self) -> float:
        """What dropout leaves out now; it may change from step to step."""
        last = self.rest[-1]
        return float(last.p) if isinstance(last, nn.Dropout) and last.training else 0.0

    @property
    def is_covered(self) -> bool:
        """Whether it is frozen, and layer norm, ReLU and dropout all it has."""
        if [type(part) for part in self.rest] not in _COVERED:
            return False
        norm = self.rest[0]
        frozen = not (self.linear.weight.requires_grad or self.linear.bias.requires_grad)
        return frozen and norm.weight is None and len(norm.normalized_shape) == 1


@dataclass(frozen=True)
class _Step:
    """A layer with all that is constant in it; what batches come to in the first is not.

    Attributes
    ----------
    weight
        (n_units, n_inputs).
    by_label, labels
        (n_labels, n_units) and codes of rows, which repeat.
    keep, scale
        What dropout keeps, (n, n_units) or (0, 0) for all, and the factor for it.
    """

    weight: Tensor
    by_label: Tensor
    labels: Tensor
    eps: float
    keep: Tensor
    scale: float


class _Hidden(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, by_batch: Tensor, steps: Sequence[_Step], buffers: Buffers
    ) -> Tensor:
        kernels: Any = load_kernels(DECODER_KERNELS)
        hidden = states.reshape(-1, states.shape[-1])
        n, none = len(hidden), by_batch.new_empty((0, 0))
        made = []
        for i, step in enumerate(steps):
            width = len(step.weight)
            y = torch.mm(hidden, step.weight.t(), out=buffers.rows(f"y{i}", n, width).tensor)
            hidden, inverse_sd = buffers.rows(f"out{i}", n, width).tensor, torch.empty(n)
            kernels.normalise(
                y.numpy(),
                step.by_label.numpy(),
                step.labels.contiguous().numpy(),
                (none if i else by_batch.contiguous()).numpy(),
                step.eps,
                step.keep.numpy(),
                step.scale,
                inverse_sd.numpy(),
                hidden.numpy(),
            )
            made.append((y, inverse_sd))
        ctx.steps, ctx.made, ctx.buffers, ctx.n_batches = steps, made, buffers, len(by_batch)
        return hidden.view(*states.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        kernels: Any = load_kernels(DECODER_KERNELS)
        (given,) = grads
        grad = by_y = given.reshape(-1, given.shape[-1]).contiguous()
        for i, (step, (normal, inverse_sd)) in reversed(
            list(enumerate(zip(ctx.steps, ctx.made, strict=True)))
        ):
            n, width = normal.shape
            # What came out has been multiplied on already.
            by_y = ctx.buffers.rows(f"out{i}", n, width).tensor
            kernels.normalise_backward(
                grad.numpy(),
                normal.numpy(),
                inverse_sd.numpy(),
                step.keep.numpy(),
                step.scale,
                by_y.numpy(),
            )
            if i:
                by_input = ctx.buffers.rows("by_input", n, step.weight.shape[1])
                grad = torch.mm(by_y, step.weight, out=by_input.tensor)
            else:
                grad = torch.mm(by_y, step.weight)
        of_batches = by_y.view(ctx.n_batches, -1, by_y.shape[1]).sum(dim=1)
        ctx.made = None
        return grad.view(*given.shape[:-1], -1), of_batches, None, None
