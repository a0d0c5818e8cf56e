"""Loss and gradient of a VAE in one go, without automatic differentiation.

For what most trainings on a CPU are: (zero-inflated) negative binomial with one dispersion a gene,
observed library sizes, covariates in the decoder only. The chain rule is written out over the
module's own weights; what is computed is what `VAEObjective.compute_losses` computes, from the
same random numbers. It spares the graph, its temporaries and half the passes over memory, a sixth
of a step; everything else is left to automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scvitune._compiling import load_kernels
from scvitune.contracts import Batch, Losses, Noise
from scvitune.likelihoods import LIKELIHOOD_KERNELS
from scvitune.models._bound import Bound, Buffers, Matrix
from scvitune.models._fused_layer import KERNELS, FusedLayer
from scvitune.sparse import SparseCounts, SparseRows, write_dense


def is_plain(module: Any) -> bool:
    """Whether a ``scvi.module.VAE`` is what most are, whatever device it is on.

    That is a (zero-inflated) negative binomial with one dispersion a gene, observed library sizes,
    covariates in the decoder only, and hidden layers that `FusedLayer` covers.
    """
    decoder: Any = getattr(module, "decoder", None)
    return (
        all(hasattr(decoder, name) for name in ("px_decoder", "px_scale_decoder"))
        and module.gene_likelihood in ("nb", "zinb")
        and module.dispersion == "gene"
        and module.use_observed_lib_size
        and not module.use_size_factor_key
        and not module.encode_covariates
        and module.batch_representation == "one-hot"
        and module.z_encoder.var_activation is torch.exp
        and isinstance(decoder.px_scale_decoder[1], nn.Softmax)
        and all(
            FusedLayer.covers(block)
            for layers in (module.z_encoder.encoder, decoder.px_decoder)
            for block in layers.fc_layers
        )
    )


def can_step(module: Any) -> bool:
    """Whether `VAEStep` computes this ``scvi.module.VAE`` as it is, on the device it is on."""
    return (
        covers(module)
        and all(
            p.device.type == "cpu" and p.dtype == torch.float32 and p.requires_grad
            for p in module.parameters()
        )
        and None not in (load_kernels(KERNELS), load_kernels(LIKELIHOOD_KERNELS))
    )


def covers(module: Any) -> bool:
    """Whether a ``scvi.module.VAE`` is built as `VAEStep` knows it."""
    return is_plain(module) and module.z_encoder.distribution != "ln"


class VAEStep:
    """The step of one module, of which `can_step` is true.

    Parameters
    ----------
    module
        Where it will be trained: the memory of its weights is looked up once.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        encoder, decoder = module.z_encoder, module.decoder
        self._encoder = [FusedLayer(block) for block in encoder.encoder.fc_layers]
        self._decoder = [FusedLayer(block) for block in decoder.px_decoder.fc_layers]
        self._injects = [
            decoder.px_decoder.inject_into_layer(i) for i in range(len(self._decoder))
        ]
        self._n_categories = list(decoder.px_decoder.n_cat_list)
        self._latent = [_Head(encoder.mean_encoder), _Head(encoder.var_encoder)]
        self._outputs = [_Head(decoder.px_scale_decoder[0])]
        if module.gene_likelihood == "zinb":
            self._outputs.append(_Head(decoder.px_dropout_decoder))
        self._px_r = Bound(module.px_r)
        self._n_latent: int = encoder.mean_encoder.out_features
        self._var_eps: float = encoder.var_eps
        self._buffers = Buffers()
        self._kept_zeros: dict[int, Tensor] = {}
        self._layer_kernels: Any = load_kernels(KERNELS)
        likelihood: Any = load_kernels(LIKELIHOOD_KERNELS)
        self._likelihood = likelihood.negative_binomial_kernel
        self._weights = list(module.parameters())
        self._addresses = self._find_addresses()

    def _find_addresses(self) -> list[int]:
        return [weight.data_ptr() for weight in self._weights]

    def _zeros(self, n: int) -> Tensor:
        """Return as many zeros, which nobody writes to."""
        zeros = self._kept_zeros.get(n)
        if zeros is None:
            zeros = self._kept_zeros[n] = torch.zeros(n)
        return zeros

    @property
    def valid(self) -> bool:
        """Whether the weights still lie where they lay."""
        return self._find_addresses() == self._addresses

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Noise, *, kl_weight: float) -> Losses:
        """Set the gradients of the mean loss, as `Objective.differentiate` says."""
        n = batch.counts.n_cells
        encoded = self._encode(batch, noise)
        mean, raw, z, variance, drawn, kl = self._draw(encoded, noise)
        categories = self._categories(batch)
        hidden = z.tensor
        if batch.continuous_covariates is not None:
            hidden = torch.cat([hidden, batch.continuous_covariates], dim=-1)
        widths = []
        for i, layer in enumerate(self._decoder):
            widths.append(hidden.shape[1] if i else self._n_latent)
            if categories and self._injects[i]:
                hidden = torch.cat([hidden, *categories], dim=-1)
            hidden = layer.forward(hidden, noise)
        log_probability, grad = self._decode(batch, hidden)

        for layer, inputs in zip(reversed(self._decoder), reversed(widths), strict=True):
            grad = _wanted(layer.backward(grad, inputs=inputs))
        by_raw = self._buffers.rows("by_raw", n, self._n_latent)
        self._layer_kernels.draw_latent_backward(
            grad.array, mean.array, drawn, variance.array, self._var_eps, kl_weight / n,
            by_raw.array, *(head.bias.gradient_array for head in self._latent),
        )  # fmt: skip
        last: Matrix | None = self._heads_backward(
            self._latent, [grad, by_raw], encoded, "by_encoded"
        )
        for i in reversed(range(len(self._encoder))):
            layer = self._encoder[i]
            last = layer.backward(_wanted(last), inputs=layer.inputs if i else 0)
        return Losses(reconstruction=log_probability.neg_(), kl=kl, kl_fixed=self._zeros(n))

    def _encode(self, batch: Batch, noise: Noise) -> Tensor:
        counts = _rows_of(batch)
        values = counts.values.log1p() if self._module.log_variational else counts.values
        hidden: Tensor | SparseRows
        if self._encoder[0].reads_sparse:
            hidden = SparseRows(counts, values)
        else:
            dense = self._buffers.rows("counts", counts.n_cells, counts.n_genes)
            write_dense(SparseRows(counts, values), out=dense.tensor)
            hidden = dense.tensor
        for layer in self._encoder:
            hidden = layer.forward(hidden, noise)
        if isinstance(hidden, SparseRows):
            raise ValueError("the encoder has no hidden layer")
        return hidden

    def _draw(
        self, encoded: Tensor, noise: Noise
    ) -> tuple[Matrix, Matrix, Matrix, Matrix, Any, Tensor]:
        """Return mean, log-variance, the sample, variance, its noise and each cell's KL."""
        n, width, rows = len(encoded), self._n_latent, self._buffers.rows
        mean, raw = rows("mean", n, width), rows("raw", n, width)
        for head, out in zip(self._latent, (mean, raw), strict=True):
            torch.addmm(head.bias.value, encoded, head.weight.transposed, out=out.tensor)
        z, variance = rows("z", n, width), rows("variance", n, width)
        drawn, kl = noise.normal(mean.tensor).numpy(), torch.empty(n)
        self._layer_kernels.draw_latent(
            mean.array, raw.array, drawn, self._var_eps, variance.array, z.array, kl.numpy()
        )
        return mean, raw, z, variance, drawn, kl

    def _categories(self, batch: Batch) -> list[Tensor]:
        """Return the one-hot codes that the decoder's layers get."""
        codes = [batch.batch]
        if batch.categorical_covariates is not None:
            codes += batch.categorical_covariates.unbind(dim=1)
        return [
            F.one_hot(code, size).float()
            for size, code in zip(self._n_categories, codes, strict=False)
            if size > 1
        ]

    def _decode(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Matrix]:
        """Return each cell's log-probability and the gradient by the last hidden layer."""
        rows, counts = self._buffers.rows, _rows_of(batch)
        n, n_genes = counts.n_cells, counts.n_genes
        # Inputs, biases, gradients by both; the second half is empty without zero inflation.
        dense, biases = [_NO_ROWS] * 2, [_EMPTY] * 2
        grads, by_bias = [_NO_MATRIX] * 2, [_EMPTY] * 2
        for k, head in enumerate(self._outputs):
            output = rows(f"output{k}", n, n_genes)
            torch.mm(hidden, head.weight.transposed, out=output.tensor)
            dense[k], biases[k] = output.array, head.bias.array
            grads[k] = rows(f"by_output{k}", n, n_genes)
            by_bias[k] = head.bias.gradient_array
        px_r = self._px_r
        theta = px_r.value.exp()
        log_probability = torch.empty(n)
        filled = self._likelihood(
            dense[0], biases[0], batch.log_library.exp().view(-1).numpy(), theta.numpy(),
            dense[1], biases[1],
            *counts.arrays, counts.log_factorial.numpy(), np.full(n, -1 / n, np.float32),
            log_probability.numpy(), grads[0].array, np.empty(n, np.float32),
            px_r.gradient_array, grads[1].array, by_bias[0], by_bias[1],
        )  # fmt: skip
        if not filled:
            raise ValueError("each cell's columns of non-zero counts must be ascending and inside")
        px_r.gradient.mul_(theta)
        px_r.give_gradient()
        return log_probability, self._heads_backward(self._outputs, grads, hidden, "by_hidden")

    def _heads_backward(
        self,
        heads: Sequence[_Head],
        grads: Sequence[Matrix],
        x: Tensor,
        name: str,
    ) -> Matrix:
        """Set the gradients of linear layers on one input ``x`` and return that by ``x``.

        Those of the biases are there already.
        """
        by_x = self._buffers.rows(name, *x.shape)
        for k, (head, grad) in enumerate(zip(heads, grads, strict=False)):
            torch.mm(grad.transposed, x, out=head.weight.gradient)
            if k:
                by_x.tensor.addmm_(grad.tensor, head.weight.value)
            else:
                torch.mm(grad.tensor, head.weight.value, out=by_x.tensor)
            head.weight.give_gradient()
            head.bias.give_gradient()
        return by_x


class _Head:
    """A linear layer whose output nothing follows."""

    def __init__(self, linear: nn.Linear) -> None:
        self.weight, self.bias = Bound(linear.weight), Bound(linear.bias)


def _rows_of(batch: Batch) -> SparseCounts:
    if not isinstance(batch.counts, SparseCounts):
        raise TypeError("the compiled step reads sparse counts only")
    return batch.counts


def _wanted(grad: Matrix | None) -> Matrix:
    if grad is None:
        raise ValueError("a layer without inputs has no gradient to hand on")
    return grad


_EMPTY, _NO_ROWS = np.empty(0, np.float32), np.empty((0, 0), np.float32)
_NO_MATRIX = Matrix.of(torch.empty(0, 0))
