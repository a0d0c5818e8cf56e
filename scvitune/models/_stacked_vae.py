"""Several VAEs of one architecture as one batched model: losses and gradients of all at once.

Their parameters are stacked along a first axis, one row a model, so that a layer of all of them
is one batched matrix product (the idea of horizontally fused training arrays, Wang et al., MLSys
2021). Nothing is shared between rows: batch norm's statistics, dropout's rate and noise, library
sizes and losses are each model's own, so that a model's numbers do not depend on its neighbours.

The models remain ``scvi.module.VAE``: their parameters, buffers and gradients are made views of
the stacks, so that each is evaluated, saved and optimised as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scvitune.contracts import Batch, Losses, Noise, Objective
from scvitune.likelihoods import negative_binomial
from scvitune.models._forward import encode_one_hot
from scvitune.models._vae import VAEObjective
from scvitune.models._vae_step import is_plain
from scvitune.sparse import SparseCounts

_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


def architecture_of(objective: Any) -> tuple[Any, ...] | None:
    """Return what must be equal of models for `StackedVAE`; None if it does not compute them.

    Of dropout nothing need be equal, not even whether there is any.
    """
    if type(objective) is not VAEObjective or not is_plain(objective.module):
        return None
    module = objective.module
    shapes = tuple((name, tuple(value.shape)) for name, value in module.state_dict().items())
    layers = (module.z_encoder.encoder, module.decoder.px_decoder)
    injections = tuple(tuple(map(of.inject_into_layer, range(len(of.fc_layers)))) for of in layers)
    options = (module.gene_likelihood, module.log_variational, module.z_encoder.distribution)
    return (*options, injections, shapes)


class StackedVAE:
    """The models of some trials as one.

    Parameters
    ----------
    objectives
        Of which `architecture_of` is the same, and not None. Their parameters and buffers
        become views of the stacks; see `release`.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._modules: list[Any] = [objective.module for objective in objectives]
        first = self._modules[0]
        self._names = {id(value): name for name, value in first.named_parameters()}
        self._by_input = {
            name for name, value in first.named_parameters() if not value.is_contiguous()
        }
        self._stacks: dict[str, Tensor] = {}
        self._norms: dict[int, tuple[Tensor, ...]] = {}
        device = next(first.parameters()).device
        self._numbers = torch.arange(len(self._modules), device=device)
        self._blocks = {
            part: [_blocks_of(module, part) for module in self._modules]
            for part in ("encoder", "decoder")
        }
        with torch.no_grad():
            for name, _ in first.named_parameters():
                self._stacks[name] = self._stack(name)
            for part in ("encoder", "decoder"):
                for i, block in enumerate(self._blocks[part][0]):
                    norm = _part(block, nn.BatchNorm1d)
                    if norm is not None:
                        self._norms[id(norm)] = self._stack_norms(part, i)
                        # Batch norm takes a constant off again, so the gradient of the bias
                        # before it is 0 but for rounding, which is spared.
                        stack = self._stacks[self._names[id(_part(block, nn.Linear).bias)]]
                        stack.grad = torch.zeros_like(stack)
        self._dropouts = {
            part: [_Dropouts([blocks[i] for blocks in of_all], device) for i in range(n)]
            for part, of_all in self._blocks.items()
            for n in [len(of_all[0])]
        }

    def __len__(self) -> int:
        return len(self._modules)

    def _stack(self, name: str) -> Tensor:
        """Stack a parameter's rows, and make the models' own views of them."""
        own = [module.get_parameter(name) for module in self._modules]
        transposed = name in self._by_input
        rows = [value.detach().t() if transposed else value.detach() for value in own]
        stack = torch.stack(rows).requires_grad_()
        for parameter, row in zip(own, stack.detach(), strict=True):
            parameter.data = row.t() if transposed else row
            parameter.grad = None
        return stack

    def _stack_norms(self, part: str, i: int) -> tuple[Tensor, ...]:
        norms = [_part(blocks[i], nn.BatchNorm1d) for blocks in self._blocks[part]]
        stacks = []
        for name in _RUNNING:
            stack = torch.stack([getattr(norm, name) for norm in norms])
            for norm, row in zip(norms, stack, strict=True):
                setattr(norm, name, row)
            stacks.append(stack)
        return tuple(stacks)

    def release(self) -> None:
        """Give each model memory of its own again."""
        with torch.no_grad():
            for module in self._modules:
                for parameter in module.parameters():
                    parameter.data = parameter.data.clone(memory_format=torch.preserve_format)
                    parameter.grad = None
                for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm1d)):
                    for name in _RUNNING:
                        setattr(norm, name, getattr(norm, name).clone())

    # ----------------------------------------------------------------- the step

    def differentiate(
        self,
        batch: Batch,
        noises: Mapping[int, Noise],
        *,
        kl_weights: Tensor,
    ) -> list[Losses]:
        """Set the gradients of some models, as `StackedObjective.differentiate` says."""
        rows = list(noises)
        # Numbers of rows are put together on the device: a list of them would have to be sent
        # there, which waits.
        some = None
        if len(rows) < len(self):
            some = torch.stack([self._numbers[row] for row in rows])
        gradients = [stack.grad for stack in self._stacks.values() if stack.grad is not None]
        if gradients:
            torch._foreach_zero_(gradients)
        reconstruction, kl = _Step(self, rows, some, batch, list(noises.values())).losses()
        (reconstruction + kl_weights.unsqueeze(1) * kl).mean(dim=1).sum().backward()
        self._give_gradients(rows)
        nothing = torch.zeros_like(kl[0])
        return [
            Losses(reconstruction=of.detach(), kl=its.detach(), kl_fixed=nothing)
            for of, its in zip(reconstruction, kl, strict=True)
        ]

    @contextmanager
    def undone_if_it_fails(self, noises: Collection[Noise]) -> Iterator[None]:
        """Put random numbers and running statistics back where the memory was not enough."""
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            yield  # nothing is done yet, and generators tell no state meanwhile
            return
        drawn = [noise.state() for noise in noises]
        running = [[stack.clone() for stack in stacks] for stacks in self._norms.values()]
        try:
            yield
        except torch.OutOfMemoryError:
            for noise, state in zip(noises, drawn, strict=True):
                noise.go_back(state)
            for stacks, before in zip(self._norms.values(), running, strict=True):
                for stack, value in zip(stacks, before, strict=True):
                    stack.copy_(value)
            raise

    def _give_gradients(self, rows: Sequence[int]) -> None:
        for name, stack in self._stacks.items():
            if stack.grad is None:  # nothing of the loss depends on it
                continue
            for row in rows:
                own = stack.grad[row]
                parameter = self._modules[row].get_parameter(name)
                parameter.grad = own.t() if name in self._by_input else own

    def parameter(self, of_first: Tensor, some: Tensor | None) -> Tensor:
        """Return rows of a stack, differentiable; by the first model's own parameter.

        Parameters
        ----------
        some
            Numbers of the rows; None: all.
        """
        stack = self._stacks[self._names[id(of_first)]]
        return stack if some is None else stack.index_select(0, some)


class _Dropouts:
    """The dropout of one block of each model."""

    def __init__(self, blocks: Sequence[Sequence[Any]], device: torch.device) -> None:
        layers = [_part(block, nn.Dropout) for block in blocks]
        self.rates = [None if layer is None else float(layer.p) for layer in layers]
        scales = [1 / (1 - (rate or 0.0)) for rate in self.rates]
        self._scales = torch.tensor(scales, device=device).view(-1, 1, 1)

    def scales(self, some: Tensor | None) -> Tensor:
        """Return by what models divide what is kept, (n_models, 1, 1)."""
        return self._scales if some is None else self._scales.index_select(0, some)


class _Step:
    """Losses of some rows of a `StackedVAE` on one minibatch each.

    Parameters
    ----------
    rows
        Which models, ascending if they are all.
    some
        The same on the device; None: all.
    batch
        Their cells, of ``len(rows)`` times as many as each has.
    """

    def __init__(
        self,
        stacked: StackedVAE,
        rows: list[int],
        some: Tensor | None,
        batch: Batch,
        noises: list[Noise],
    ) -> None:
        self._stacked, self._rows, self._some = stacked, rows, some
        self._batch, self._noises = batch, noises
        self._first = stacked._modules[0]
        self._k, self._n = len(rows), batch.counts.n_cells // len(rows)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Return reconstruction error and KL divergence, (n_models, n_cells) each."""
        encoder, counts = self._first.z_encoder, self._batch.counts
        values = counts.values.log1p() if self._first.log_variational else counts.values
        x = counts.densify(values).view(self._k, self._n, -1)
        hidden = self._run("encoder", x)
        mean = self._linear(encoder.mean_encoder, hidden)
        variance = self._linear(encoder.var_encoder, hidden).exp() + encoder.var_eps
        kl = 0.5 * (variance + mean.square() - 1 - variance.log()).sum(dim=-1)
        drawn = torch.stack(
            [noise.normal(of) for noise, of in zip(self._noises, mean, strict=True)]
        )
        z = encoder.z_transformation(torch.addcmul(mean, variance.sqrt(), drawn))
        covariates = self._batch.continuous_covariates
        if covariates is not None:
            z = torch.cat([z, covariates.view(self._k, self._n, -1)], dim=-1)
        hidden = self._run("decoder", z)
        return -self._log_probability(hidden), kl

    def _run(self, part: str, hidden: Tensor) -> Tensor:
        """Run the blocks of an encoder or decoder, each model's with its own noise."""
        layers = _layers_of(self._first, part)
        one_hot = self._one_hot(layers) if part == "decoder" else None
        blocks = self._stacked._blocks[part]
        for i, block in enumerate(blocks[0]):
            linear, norm = _part(block, nn.Linear), _part(block, nn.BatchNorm1d)
            if one_hot is not None and layers.inject_into_layer(i):
                hidden = torch.cat([hidden, one_hot], dim=-1)
            hidden = self._linear(linear, hidden, learns_bias=norm is None)
            if norm is not None:
                hidden = self._normalise(part, i, norm, hidden)
            hidden = hidden.relu()
            hidden = self._drop(hidden, self._stacked._dropouts[part][i])
        return hidden

    def _linear(self, layer: nn.Linear, x: Tensor, *, learns_bias: bool = True) -> Tensor:
        weight = self._stacked.parameter(layer.weight, self._some)
        bias = self._stacked.parameter(layer.bias, self._some)
        if not learns_bias:
            bias = bias.detach()
        by_input = self._stacked._names[id(layer.weight)] in self._stacked._by_input
        return torch.baddbmm(bias.unsqueeze(1), x, weight if by_input else weight.mT)

    def _normalise(self, part: str, i: int, norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
        """Normalise over each model's own cells, as one batch norm of all models' units."""
        stacks, some = self._stacked._norms[id(norm)], self._some
        running = stacks if some is None else [stack.index_select(0, some) for stack in stacks]
        weight = self._stacked.parameter(norm.weight, some)
        bias = self._stacked.parameter(norm.bias, some)
        units = x.transpose(0, 1).reshape(self._n, -1)
        out = F.batch_norm(
            units,
            running[0].view(-1),
            running[1].view(-1),
            weight.reshape(-1),
            bias.reshape(-1),
            True,
            float(norm.momentum or 0.0),
            norm.eps,
        )
        running[2].add_(1)
        if some is not None:
            for stack, changed in zip(stacks, running, strict=True):
                stack.index_copy_(0, some, changed)
        return out.view(self._n, self._k, -1).transpose(0, 1)

    def _drop(self, x: Tensor, dropouts: _Dropouts) -> Tensor:
        """Zero units of each model at its own rate; one without dropout draws no numbers."""
        rates = [dropouts.rates[row] for row in self._rows]
        if all(rate is None for rate in rates):
            return x
        kept = [
            torch.ones_like(of, dtype=torch.bool) if rate is None else noise.keep(of, rate)
            for of, noise, rate in zip(x.detach(), self._noises, rates, strict=True)
        ]
        return x * (torch.stack(kept) * dropouts.scales(self._some))

    def _one_hot(self, layers: Any) -> Tensor | None:
        batch = self._batch
        codes = [batch.batch]
        if batch.categorical_covariates is not None:
            codes += batch.categorical_covariates.unbind(dim=1)
        columns = [
            encode_one_hot(code, size, dtype=batch.log_library.dtype)
            for size, code in zip(layers.n_cat_list, codes, strict=False)
            if size > 1
        ]
        return torch.cat(columns, dim=-1).view(self._k, self._n, -1) if columns else None

    def _log_probability(self, hidden: Tensor) -> Tensor:
        """Return each cell's, (n_models, n_cells)."""
        decoder, counts = self._first.decoder, self._batch.counts
        logits = self._linear(decoder.px_scale_decoder[0], hidden)
        pi = None
        if self._first.gene_likelihood == "zinb":
            pi = self._linear(decoder.px_dropout_decoder, hidden)
        theta = self._stacked.parameter(self._first.px_r, self._some).exp()
        library = self._batch.log_library
        if isinstance(counts, SparseCounts):
            # The compiled pass wants one dispersion a gene, so it takes one model at a time.
            parts = split_counts(counts, self._k)
            return torch.stack(
                [
                    negative_binomial(
                        part,
                        logits=logits[j],
                        log_library=own_library,
                        theta=theta[j],
                        pi=None if pi is None else pi[j],
                    )
                    for j, (part, own_library) in enumerate(
                        zip(parts, library.split(self._n), strict=True)
                    )
                ]
            )
        return negative_binomial(
            counts,
            logits=logits.flatten(0, 1),
            log_library=library,
            theta=theta.unsqueeze(1).expand_as(logits).flatten(0, 1),
            pi=None if pi is None else pi.flatten(0, 1),
        ).view(self._k, self._n)


def split_counts(counts: SparseCounts, n_parts: int) -> list[SparseCounts]:
    """Return a minibatch in parts of as many cells each, on the CPU."""
    n = counts.n_cells // n_parts
    parts = []
    for first in range(0, counts.n_cells, n):
        indptr = counts.indptr[first : first + n + 1]
        start, stop = int(indptr[0]), int(indptr[-1])
        parts.append(
            SparseCounts(
                n_cells=n,
                n_genes=counts.n_genes,
                indptr=indptr - start,
                columns=counts.columns[start:stop],
                values=counts.values[start:stop],
                log_factorial=counts.log_factorial[first : first + n],
            )
        )
    return parts


def _layers_of(module: Any, part: str) -> Any:
    return module.z_encoder.encoder if part == "encoder" else module.decoder.px_decoder


def _blocks_of(module: Any, part: str) -> list[list[Any]]:
    return [list(block) for block in _layers_of(module, part).fc_layers]


def _part(block: Sequence[Any], kind: type) -> Any:
    return next((layer for layer in block if isinstance(layer, kind)), None)
