"""Counts drawn from a known negative-binomial process, of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scvitune._keywords import naming_arguments
from scvitune._seeding import derive_seed
from scvitune.errors import Faults, one_of

_BLOCK_CELLS = 512
"""Cells that share a random stream. Part of what a seed means: never change it."""


@dataclass(frozen=True)
class _Process:
    """The parameters that all cells share."""

    intercept: npt.NDArray[np.float64]
    loadings: npt.NDArray[np.float64]
    batch_shift: npt.NDArray[np.float64]
    dispersion: npt.NDArray[np.float64]
    dropout: npt.NDArray[np.float64] | None
    centres: npt.NDArray[np.float64]
    mean_library: float


@dataclass(frozen=True)
class _Block:
    latent: npt.NDArray[np.float32]
    batch: npt.NDArray[np.int8]
    label: npt.NDArray[np.int16]
    library: npt.NDArray[np.float64]
    values: npt.NDArray[np.unsignedinteger[Any]]
    indices: npt.NDArray[np.unsignedinteger[Any]]
    lengths: npt.NDArray[np.int64]


@naming_arguments
def simulated(
    n_cells: int = 2000,
    n_genes: int = 500,
    *,
    n_batches: int = 2,
    n_labels: int = 5,
    n_latent: int = 5,
    likelihood: Literal["nb", "zinb"] = "nb",
    mean_library: float = 1000.0,
    batch_effect: float = 0.3,
    seed: int = 0,
) -> Any:
    r"""Simulate counts whose latent truth is known.

    Cell :math:`c` has a type, a latent :math:`z_c \sim N(\mu_{type}, I)`, a batch :math:`b`, a
    library size :math:`l_c` (log-normal, log-sd 0.3) and counts

    .. math:: x_{cg} \sim NB(l_c \, \mathrm{softmax}_g(a + z_c W + s_b), \theta_g)

    with mean :math:`m` and variance :math:`m + m^2 / \theta_g`; under ``"zinb"`` each count is
    zero with probability ``var["dropout"]`` besides.

    Parameters
    ----------
    n_cells, n_genes
        Size. Cells are drawn 512 at a time, so memory is that of the sparse result and little
        more, and the first cells are the same whatever ``n_cells`` is.
    n_batches, n_labels, n_latent
        Numbers of batches, of cell types, and of latent dimensions.
    likelihood
        ``"nb"``, or ``"zinb"`` with extra zeros.
    mean_library
        Mean of the library size; about the counts a cell, fewer under ``"zinb"``.
    batch_effect
        Standard deviation of the shifts :math:`s` on the log scale; 0: batches are alike.
    seed
        Equal arguments give equal data on every machine.

    Returns
    -------
    AnnData
        Counts as float32 CSR in ``.X``; ``obs`` ``batch``, ``cell_type``, ``library_size``;
        ``obsm["latent"]`` (n_cells, n_latent); ``var`` ``intercept``, ``dispersion`` and, under
        ``"zinb"``, ``dropout``; ``varm`` ``loadings`` (n_genes, n_latent) and ``batch_shift``
        (n_genes, n_batches).

    Raises
    ------
    InputError
        If a number is out of range.
    """
    _check(
        {
            "n_cells": (n_cells, 1),
            "n_genes": (n_genes, 2),
            "n_batches": (n_batches, 1),
            "n_labels": (n_labels, 1),
            "n_latent": (n_latent, 1),
        },
        {"mean_library": (mean_library, 1.0), "batch_effect": (batch_effect, 0.0)},
        likelihood,
    )
    process = _draw_process(
        np.random.default_rng(derive_seed(seed, "simulated", "process")),
        n_genes=n_genes,
        sizes=(n_batches, n_labels, n_latent),
        zero_inflated=likelihood == "zinb",
        mean_library=mean_library,
        batch_effect=batch_effect,
    )
    return _assemble(list(_draw_cells(process, n_cells, seed)), process, n_genes)


def _check(
    whole: dict[str, tuple[Any, int]], real: dict[str, tuple[Any, float]], likelihood: str
) -> None:
    faults = Faults()
    for name, (value, low) in whole.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
            faults.add(f"{name} must be a whole number of at least {low}, but got {value!r}.")
    for name, (number, lowest) in real.items():
        is_number = isinstance(number, Real) and not isinstance(number, bool)
        if not is_number or not lowest <= number < float("inf"):
            faults.add(f"{name} must be a number of at least {lowest}, but got {number!r}.")
    if likelihood not in ("nb", "zinb"):
        faults.add(f"likelihood must be {one_of(['nb', 'zinb'])}, but got {likelihood!r}.")
    faults.raise_if_any()


def _draw_process(
    rng: np.random.Generator,
    *,
    n_genes: int,
    sizes: tuple[int, int, int],
    zero_inflated: bool,
    mean_library: float,
    batch_effect: float,
) -> _Process:
    n_batches, n_labels, n_latent = sizes
    intercept = rng.normal(0.0, 1.0, n_genes)
    return _Process(
        intercept=intercept,
        loadings=rng.normal(0.0, 0.5 / np.sqrt(n_latent), (n_latent, n_genes)),
        batch_shift=rng.normal(0.0, batch_effect, (n_batches, n_genes)),
        dispersion=rng.lognormal(np.log(2.0), 0.5, n_genes),
        # Rarely seen genes drop out more often.
        dropout=0.4 / (1.0 + np.exp(intercept)) if zero_inflated else None,
        centres=rng.normal(0.0, 2.0, (n_labels, n_latent)),
        mean_library=mean_library,
    )


def _draw_cells(process: _Process, n_cells: int, seed: int) -> Iterator[_Block]:
    for number, start in enumerate(range(0, n_cells, _BLOCK_CELLS)):
        rng = np.random.default_rng(derive_seed(seed, "simulated", "cells", number))
        yield _draw_block(rng, process, min(_BLOCK_CELLS, n_cells - start))


def _draw_block(rng: np.random.Generator, process: _Process, n_kept: int) -> _Block:
    """Draw a whole block, so that its stream does not depend on how much of it is kept."""
    n_labels, n_latent = process.centres.shape
    label = rng.integers(n_labels, size=_BLOCK_CELLS)
    batch = rng.integers(len(process.batch_shift), size=_BLOCK_CELLS)
    drawn = process.centres[label] + rng.normal(size=(_BLOCK_CELLS, n_latent))
    latent = drawn.astype(np.float32)
    library = process.mean_library * rng.lognormal(-0.5 * 0.3**2, 0.3, _BLOCK_CELLS)
    logits = process.intercept + latent @ process.loadings + process.batch_shift[batch]
    rates = np.exp(logits - logits.max(axis=1, keepdims=True))
    rates *= (library / rates.sum(axis=1))[:, None]
    counts = rng.poisson(
        rng.standard_gamma(process.dispersion, rates.shape) * (rates / process.dispersion)
    )
    if process.dropout is not None:
        counts[rng.random(counts.shape) < process.dropout] = 0
    counts = counts[:n_kept]
    rows, columns = np.nonzero(counts)
    return _Block(
        latent=latent[:n_kept],
        batch=batch[:n_kept].astype(np.int8),
        label=label[:n_kept].astype(np.int16),
        library=library[:n_kept],
        # In small types, since all blocks are held when the whole is put together.
        values=counts[rows, columns].astype(np.min_scalar_type(int(counts.max()))),
        indices=columns.astype(np.min_scalar_type(counts.shape[1] - 1)),
        lengths=np.bincount(rows, minlength=n_kept),
    )


def _assemble(blocks: list[_Block], process: _Process, n_genes: int) -> Any:
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    n_batches, n_labels = len(process.batch_shift), len(process.centres)
    lengths = np.concatenate([block.lengths for block in blocks])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    values = np.concatenate([block.values for block in blocks], dtype=np.float32)
    indices = np.concatenate([block.indices for block in blocks], dtype=np.int32)
    batch = np.concatenate([block.batch for block in blocks])
    label = np.concatenate([block.label for block in blocks])
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical.from_codes(batch, [f"batch_{i}" for i in range(n_batches)]),
            "cell_type": pd.Categorical.from_codes(label, [f"type_{i}" for i in range(n_labels)]),
            "library_size": np.concatenate([block.library for block in blocks]),
        },
        index=[f"cell_{i}" for i in range(len(lengths))],
    )
    var = pd.DataFrame(
        {"intercept": process.intercept, "dispersion": process.dispersion},
        index=[f"gene_{i}" for i in range(n_genes)],
    )
    if process.dropout is not None:
        var["dropout"] = process.dropout
    return AnnData(
        X=sp.csr_matrix((values, indices, indptr), shape=(len(lengths), n_genes)),
        obs=obs,
        var=var,
        obsm={"latent": np.concatenate([block.latent for block in blocks])},
        varm={"loadings": process.loadings.T.copy(), "batch_shift": process.batch_shift.T.copy()},
    )
