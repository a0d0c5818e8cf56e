"""An ``.h5ad`` file whose counts are too many to hold: looked through, then read in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from scvitune._seeding import derive_seed
from scvitune.data._counts import (
    Counts,
    Tally,
    canonical_csr,
    read_counts,
    row_blocks,
    tally_values,
)
from scvitune.data._filtering import Limits, filter_counts
from scvitune.data._gene_selection import GeneChoice, choose_genes, keeps_all
from scvitune.errors import InputError, warn_user

LARGE = 1 << 29
"""Stored values from which a file is read in blocks. In memory they would take 4 GB as float32
with int32 columns, and twice that while they are filtered and copied. By the size of the data and
not of the machine: what is read must be the same everywhere."""

GENE_CELLS = 50_000
"""Genes are chosen by so many cells of a large file."""

_BYTES_A_VALUE = 4 + 4 + 4 + 4 + 1
"""Of what is kept: float32 with int32 columns in the AnnData, columns and count once more among
the prepared arrays, and a column in the making."""


class LargeFile:
    """An ``.h5ad`` file whose counts stay where they are.

    It stands in for the AnnData where faults are looked for and explained.

    Attributes
    ----------
    obs, var
        Its tables.
    X, layers, raw, uns
        What lies there; matrices are on disk and give blocks of rows, and of ``uns`` only the
        names are known.
    """

    def __init__(self, path: Path) -> None:
        import h5py
        import pandas as pd
        from anndata.io import read_elem

        self._file = h5py.File(path, "r")
        self.obs, self.var = read_elem(self._file["obs"]), read_elem(self._file["var"])
        for name, table in (("obs", self.obs), ("var", self.var)):
            if not isinstance(table, pd.DataFrame):
                raise ValueError(f"{name} is no table, but a {type(table).__name__}")
        self.X = _stored(self._file, "X")
        names = list(self._file["layers"]) if "layers" in self._file else []
        self.layers = {name: _stored(self._file, f"layers/{name}") for name in names}
        raw = _stored(self._file, "raw/X")
        self.raw = None if raw is None else SimpleNamespace(X=raw)
        for name, matrix in {"X": self.X, **self.layers}.items():
            shape = (self.n_obs, self.n_vars)
            if matrix is not None and tuple(matrix.shape) != shape:
                raise ValueError(f"{name} is of shape {tuple(matrix.shape)}, not {shape}")
        self.uns = dict.fromkeys(self._file["uns"]) if "uns" in self._file else {}

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.obs)

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return len(self.var)

    @property
    def obs_names(self) -> Any:
        """Names of the cells."""
        return self.obs.index

    @property
    def var_names(self) -> Any:
        """Names of the genes."""
        return self.var.index


@dataclass(frozen=True)
class Survey:
    """What one look through all counts of a file gives.

    Attributes
    ----------
    sample
        The counts of the first cells, with what is wrong with the values of all.
    cells, genes
        (n_cells,) and (n_genes,) bool: which are kept.
    n_cells_seen
        (n_genes,) in how many of the kept cells each gene is seen.
    """

    sample: Counts
    cells: npt.NDArray[np.bool_]
    genes: npt.NDArray[np.bool_]
    n_cells_seen: npt.NDArray[np.int64]


def open_large(path: Path, layer: str | None) -> LargeFile | None:
    """Open a file for reading in blocks; None if it is small enough to be read whole.

    A matrix that is stored by columns cannot be read in blocks of cells and counts as small.
    """
    import h5py

    place = "X" if layer is None else f"layers/{layer}"
    with h5py.File(path, "r") as file:
        if place not in file or _n_stored(file[place]) <= LARGE:
            return None
    return LargeFile(path)


def survey(matrix: Any, limits: Limits) -> Survey:
    """Look through the counts of a file once: what is wrong with them, what is kept of them.

    Raises
    ------
    InputError
        If no cell or no gene is left.
    """
    tally = Tally()
    totals: list[npt.NDArray[np.int64]] = []
    n_genes_seen: list[npt.NDArray[np.int64]] = []
    n_cells_seen = np.zeros(matrix.shape[1], dtype=np.int64)
    sample = None
    row = 0
    for block in row_blocks(matrix):
        csr = canonical_csr(block)
        tally_values(csr, tally, first_row=row)
        sample = csr if sample is None else sample
        row += csr.shape[0]
        totals.append(np.asarray(csr.sum(axis=1, dtype=np.float64)).ravel().astype(np.int64))
        n_genes_seen.append(np.diff(csr.indptr).astype(np.int64))
        kept = limits.keep_cells(totals[-1], n_genes_seen[-1])
        n_cells_seen += np.bincount(csr[kept].indices, minlength=csr.shape[1])
    if sample is None:
        raise InputError("The matrix has no rows.")
    counts = Counts(
        sample.data, sample.indices, sample.indptr.astype(np.int64), sample.shape, tally
    )
    if tally:
        return Survey(counts, np.ones(row, bool), np.ones(matrix.shape[1], bool), n_cells_seen)
    cells, genes = filter_counts(
        np.concatenate(totals), np.concatenate(n_genes_seen), lambda _: n_cells_seen, limits
    )
    return Survey(counts, cells, genes, n_cells_seen)


def read_kept(
    file: LargeFile,
    surveyed: Survey,
    *,
    layer: str | None,
    n_top_genes: int | None,
    batch_key: str | None,
) -> tuple[Any, GeneChoice | None]:
    """Read the cells and genes that are kept into an AnnData of their own, and tell how chosen.

    Parameters
    ----------
    n_top_genes
        Keep so many genes, chosen by `choose_genes` from `GENE_CELLS` random cells; None: all. Of
        fewer genes all are kept, which takes no reading.

    Raises
    ------
    InputError
        If they do not fit in the memory that is free.

    Warns
    -----
    UserWarning
        If there are fewer genes, or they were chosen by a part of the cells.
    """
    from anndata import AnnData

    matrix = file.X if layer is None else file.layers[layer]
    genes = surveyed.genes.copy()
    choice = None
    if n_top_genes is not None and keeps_all(n_top_genes, int(genes.sum())):
        choice = GeneChoice(genes)
    elif n_top_genes is not None:
        choice = _choose_genes(file, matrix, surveyed, layer, n_top_genes, batch_key)
        genes[genes] = choice.kept
    _check_memory(int(surveyed.n_cells_seen[genes].sum()), n_top_genes)
    counts = read_counts(matrix, cells=surveyed.cells, genes=genes)
    adata = AnnData(
        X=None if layer is not None else _as_matrix(counts),
        layers=None if layer is None else {layer: _as_matrix(counts)},
        obs=file.obs[surveyed.cells].copy(),
        var=file.var[genes].copy(),
    )
    return adata, choice


def _choose_genes(
    file: LargeFile,
    matrix: Any,
    surveyed: Survey,
    layer: str | None,
    n_top_genes: int,
    batch_key: str | None,
) -> GeneChoice:
    from anndata import AnnData

    kept = np.flatnonzero(surveyed.cells)
    if len(kept) > GENE_CELLS:
        warn_user(
            f"The {n_top_genes} genes were chosen by {GENE_CELLS} random cells of {len(kept)}, "
            f"since this file holds more than {LARGE} counts. To choose by all cells, choose on a "
            "larger machine, write the file anew with these genes, and leave out n_top_genes."
        )
        rng = np.random.default_rng(derive_seed(0, "cells to choose genes by"))
        kept = rng.choice(kept, GENE_CELLS, replace=False)
    cells = np.zeros(file.n_obs, dtype=bool)
    cells[kept] = True
    counts = _as_matrix(read_counts(matrix, cells=cells, genes=surveyed.genes))
    part = AnnData(X=counts, obs=file.obs[cells].copy(), var=file.var[surveyed.genes].copy())
    return choose_genes(part, n_top_genes, batch_key=batch_key)


def _check_memory(n_values: int, n_top_genes: int | None) -> None:
    needed, free = n_values * _BYTES_A_VALUE, psutil.virtual_memory().available
    if needed > free:
        fewer = "data.n_top_genes: 2000" if n_top_genes is None else "fewer data.n_top_genes"
        raise InputError(
            f"{n_values:.3g} counts are to be kept, which takes about {needed / 1e9:.0f} GB while "
            f"they are prepared, but {free / 1e9:.0f} GB of memory are free. Keep fewer genes "
            f"({fewer}), or prepare on a machine with more memory: trials need far less."
        )


def _as_matrix(counts: Counts) -> Any:
    import scipy.sparse as sp

    values = counts.values.astype(np.float32)
    return sp.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def _stored(file: Any, place: str) -> Any:
    """Return the matrix at a place of the file, left there; None if there is none."""
    import h5py
    from anndata.io import sparse_dataset

    if place not in file:
        return None
    found = file[place]
    return sparse_dataset(found) if isinstance(found, h5py.Group) else found


def _n_stored(found: Any) -> int:
    """Return how many values are stored, as far as they can be read in blocks of rows."""
    import h5py

    if isinstance(found, h5py.Dataset):
        return int(np.prod(found.shape))
    return len(found["data"]) if found.attrs.get("encoding-type") == "csr_matrix" else 0
