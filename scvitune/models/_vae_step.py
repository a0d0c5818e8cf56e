"""Loss and gradient of a VAE in one go, without automatic differentiation.

For what most trainings on a CPU are: (zero-inflated) negative binomial with one dispersion a gene,
observed library sizes, covariates in the decoder only. The chain rule is written out over the
module's own weights; what is computed is what `VAEObjective.compute_losses` computes, from the
same random numbers. It spares the graph, its temporaries and half the passes over memory, a sixth
of a step; everything else is left to automatic differentiation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scvitune._compiling import load_kernels
from scvitune.contracts import Batch, Losses, Noise
from scvitune.likelihoods import LIKELIHOOD_KERNELS
from scvitune.models._fused_layer import KERNELS, Buffers, FusedLayer, gradient_of
from scvitune.sparse import SparseRows, can_multiply_sparse


def can_step(module: Any) -> bool:
    """Whether `VAEStep` computes this ``scvi.module.VAE`` as it is, on the device it is on."""
    decoder: Any = getattr(module, "decoder", None)
    return (
        all(hasattr(decoder, name) for name in ("px_decoder", "px_scale_decoder"))
        and module.gene_likelihood in ("nb", "zinb")
        and module.dispersion == "gene"
        and module.use_observed_lib_size
        and not module.use_size_factor_key
        and not module.encode_covariates
        and module.batch_representation == "one-hot"
        and module.z_encoder.distribution != "ln"
        and module.z_encoder.var_activation is torch.exp
        and isinstance(decoder.px_scale_decoder[1], nn.Softmax)
        and all(
            FusedLayer.covers(block)
            for layers in (module.z_encoder.encoder, decoder.px_decoder)
            for block in layers.fc_layers
        )
        and all(
            p.device.type == "cpu" and p.dtype == torch.float32 and p.requires_grad
            for p in module.parameters()
        )
        and None not in (load_kernels(KERNELS), load_kernels(LIKELIHOOD_KERNELS))
    )


class VAEStep:
    """The step of one module, of which `can_step` is true; keeps its buffers between steps."""

    def __init__(self, module: Any) -> None:
        self._module = module
        encoder, decoder = module.z_encoder, module.decoder
        self._encoder = [FusedLayer(block) for block in encoder.encoder.fc_layers]
        self._decoder = [FusedLayer(block) for block in decoder.px_decoder.fc_layers]
        self._buffers = Buffers()
        self._layer_kernels: Any = load_kernels(KERNELS)
        likelihood: Any = load_kernels(LIKELIHOOD_KERNELS)
        self._likelihood = likelihood.negative_binomial_kernel

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Noise, *, kl_weight: float) -> Losses:
        """Set the gradients of the mean loss, as `Objective.differentiate` says."""
        module, n = self._module, batch.counts.n_cells
        encoded = self._encode(batch, noise)
        mean, raw, z, variance, drawn, kl = self._draw(encoded, noise)
        categories = self._categories(batch)
        first = [z] if batch.continuous_covariates is None else [z, batch.continuous_covariates]
        hidden = torch.cat(first, dim=-1) if len(first) > 1 else z
        widths = []
        for i, layer in enumerate(self._decoder):
            injected = categories if module.decoder.px_decoder.inject_into_layer(i) else []
            widths.append(hidden.shape[1] if i else z.shape[1])
            hidden = layer.forward(torch.cat([hidden, *injected], dim=-1), noise)
        log_probability, by_hidden = self._decode(batch, hidden)

        grad = by_hidden
        for layer, inputs in zip(reversed(self._decoder), reversed(widths), strict=True):
            grad = layer.backward(grad, inputs=inputs)
        by_raw = self._buffers.rows("by_raw", n, raw.shape[1])
        eps = module.z_encoder.var_eps
        self._layer_kernels.draw_latent_backward(
            grad.numpy(), mean.numpy(), drawn.numpy(), variance.numpy(), eps, kl_weight / n,
            by_raw.numpy(),
        )  # fmt: skip
        heads = ((module.z_encoder.mean_encoder, grad), (module.z_encoder.var_encoder, by_raw))
        grad = self._heads_backward(heads, encoded, "by_encoded")
        for i in reversed(range(len(self._encoder))):
            inputs = self._encoder[i].linear.in_features if i else 0
            grad = self._encoder[i].backward(grad, inputs=inputs)
        return Losses(reconstruction=-log_probability, kl=kl, kl_fixed=torch.zeros_like(kl))

    def _encode(self, batch: Batch, noise: Noise) -> Tensor:
        counts = batch.counts
        values = counts.values.log1p() if self._module.log_variational else counts.values
        hidden: Tensor | SparseRows
        if can_multiply_sparse(self._encoder[0].linear):
            hidden = SparseRows(counts, values)
        else:
            hidden = counts.densify(values)
        for layer in self._encoder:
            hidden = layer.forward(hidden, noise)
        if isinstance(hidden, SparseRows):
            raise ValueError("the encoder has no hidden layer")
        return hidden

    def _draw(self, encoded: Tensor, noise: Noise) -> tuple[Tensor, ...]:
        """Return mean, log-variance, the sample, variance, its noise and each cell's KL."""
        encoder, buffers, n = self._module.z_encoder, self._buffers, len(encoded)
        width = encoder.mean_encoder.out_features
        mean, raw = buffers.rows("mean", n, width), buffers.rows("raw", n, width)
        for head, out in ((encoder.mean_encoder, mean), (encoder.var_encoder, raw)):
            torch.addmm(head.bias, encoded, head.weight.t(), out=out)
        z, variance = buffers.rows("z", n, width), buffers.rows("variance", n, width)
        drawn, kl = noise.normal(mean), torch.empty(n)
        self._layer_kernels.draw_latent(
            mean.numpy(), raw.numpy(), drawn.numpy(), encoder.var_eps, variance.numpy(),
            z.numpy(), kl.numpy(),
        )  # fmt: skip
        return mean, raw, z, variance, drawn, kl

    def _categories(self, batch: Batch) -> list[Tensor]:
        """Return the one-hot codes that the decoder's layers get."""
        codes = [batch.batch]
        if batch.categorical_covariates is not None:
            codes += batch.categorical_covariates.unbind(dim=1)
        sizes = self._module.decoder.px_decoder.n_cat_list
        return [
            F.one_hot(code, size).float()
            for size, code in zip(sizes, codes, strict=False)
            if size > 1
        ]

    def _decode(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return each cell's log-probability and the gradient by the last hidden layer."""
        module, buffers, counts = self._module, self._buffers, batch.counts
        decoder, n, n_genes = module.decoder, counts.n_cells, counts.n_genes
        heads = [decoder.px_scale_decoder[0]]
        if module.gene_likelihood == "zinb":
            heads.append(decoder.px_dropout_decoder)
        # Inputs, biases, gradients by both; the second half is empty without zero inflation.
        empty, no_rows = torch.empty(0), torch.empty(0, 0)
        dense, biases, by_dense = [no_rows] * 2, [empty] * 2, [no_rows] * 2
        by_bias = [empty] * 2
        for k, head in enumerate(heads):
            dense[k] = buffers.rows(f"output{k}", n, n_genes)
            torch.mm(hidden, head.weight.t(), out=dense[k])
            biases[k], by_bias[k] = head.bias.detach(), gradient_of(head.bias)
            by_dense[k] = buffers.rows(f"by_output{k}", n, n_genes)
        theta = module.px_r.detach().exp()
        by_px_r = gradient_of(module.px_r)
        log_probability, by_library = torch.empty(n), torch.empty(n)
        filled = self._likelihood(
            dense[0].numpy(), biases[0].numpy(),
            batch.log_library.exp().view(-1).numpy(), theta.numpy(),
            dense[1].numpy(), biases[1].numpy(),
            counts.indptr.numpy(), counts.columns.numpy(), counts.values.numpy(),
            counts.log_factorial.numpy(), torch.full((n,), -1 / n).numpy(),
            log_probability.numpy(), by_dense[0].numpy(), by_library.numpy(), by_px_r.numpy(),
            by_dense[1].numpy(), by_bias[0].numpy(), by_bias[1].numpy(),
        )  # fmt: skip
        if not filled:
            raise ValueError("each cell's columns of non-zero counts must be ascending and inside")
        by_px_r.mul_(theta)
        grads = tuple(zip(heads, by_dense, strict=False))
        return log_probability, self._heads_backward(grads, hidden, "by_hidden", biased=False)

    def _heads_backward(
        self,
        heads: tuple[tuple[nn.Linear, Tensor], ...],
        x: Tensor,
        name: str,
        *,
        biased: bool = True,
    ) -> Tensor:
        """Set the gradients of linear layers on one input ``x`` and return that by ``x``."""
        by_x = self._buffers.rows(name, *x.shape)
        for k, (head, grad) in enumerate(heads):
            torch.mm(grad.t(), x, out=gradient_of(head.weight))
            if biased:
                torch.sum(grad, 0, out=gradient_of(head.bias))
            if k:
                by_x.addmm_(grad, head.weight)
            else:
                torch.mm(grad, head.weight, out=by_x)
        return by_x
