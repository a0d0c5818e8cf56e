"""The mean of a count likelihood from the decoder's output, and the way back for gradients.

scvi-tools' decoders give the mean as ``mu = exp(log_library) * activation(logits)``, where the
activation is a softmax over genes or, with size factors, a softplus. Every likelihood here
works with ``h = mu * dlogp/dmu``, from which both gradients follow without dividing by ``mu``:

- softmax: ``dlogp/dlogits = h - mu * sum(h) / sum(mu)``,
- softplus: ``dlogp/dlogits = h * sigmoid(logits) / softplus(logits)``,
- and ``dlogp/dlog_library = sum(h)`` for both.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

ScaleActivation: TypeAlias = Literal["softmax", "softplus"]


def compute_mean(logits: Tensor, log_library: Tensor, activation: ScaleActivation) -> Tensor:
    """Return ``mu`` of shape (n_cells, n_genes); ``log_library`` has shape (n_cells, 1)."""
    scale = torch.softmax(logits, dim=-1) if activation == "softmax" else F.softplus(logits)
    library = log_library.exp()
    # Automatic differentiation still needs the scale; hand-written gradients do not.
    return scale * library if scale.requires_grad else scale.mul_(library)


def logits_gradient(
    h: Tensor,
    *,
    h_by_cell: Tensor,
    mu: Tensor,
    logits: Tensor,
    log_library: Tensor,
    activation: ScaleActivation,
) -> Tensor:
    """Turn ``h`` (n_cells, n_genes; overwritten) into the gradient by the logits.

    ``h_by_cell`` is its sum over genes, (n_cells,).
    """
    if activation == "softmax":
        share = h_by_cell.unsqueeze(1) * torch.exp(-log_library)
        return h.addcmul_(mu, share, value=-1.0)
    # softplus(l) underflows to 0 long before sigmoid(l) / softplus(l) leaves its limit, 1.
    softplus = F.softplus(logits)
    ratio = torch.where(softplus > 0, torch.sigmoid(logits) / softplus, torch.ones_like(logits))
    return h.mul_(ratio)
