"""Why a matrix holds no counts, and where in the AnnData counts might be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scvitune.data._counts import LARGEST_COUNT, Counts
from scvitune.data._message import missing_key
from scvitune.errors import Faults

_LOG_CEILING = 20.0
"""log1p of a count stays below it: exp(20) is five hundred million."""

_SAMPLE_CELLS = 200
"""Cells looked at to tell how values were transformed, or whether a layer holds counts."""

_TOTALS_SPREAD = 0.001
"""Totals whose standard deviation is below this share of their mean are taken for equal."""

_LOGGED_SPREAD = 0.05
"""The same for totals under a logarithm, which genes were often dropped from since."""

_WHOLE_SHARE = 0.95
"""A cell's log-normalised values are known by multiples: at least this share must be whole."""


def add_value_faults(
    counts: Counts, adata: Any, layer: str | None, faults: Faults, *, from_file: bool = False
) -> None:
    """Explain every kind of value that is no count.

    Parameters
    ----------
    counts
        What was read, with its tally.
    adata
        Where it came from: names of cells and genes, and other places that may hold counts.
    layer
        The layer that was read; None for ``.X``.
    faults
        Gets one message a kind.
    from_file
        Whether a configuration's section ``data`` says what to read, rather than Python.
    """
    tally = counts.tally
    place = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    advice = _advise(adata, layer, from_file) if tally else ""
    for kind in ("NaN", "infinite"):
        if kind in tally.number:
            faults.add(
                f"{place} holds {tally.number[kind]} {kind} values (first: "
                f"{_where(kind, counts, adata)}). Counts must be whole numbers from 0.{advice}"
            )
    if "negative" in tally.number:
        scaled = " It looks scaled (z-scores)." if "fractional" in tally.number else ""
        faults.add(
            f"{place} holds {tally.number['negative']} negative values (first: "
            f"{_where('negative', counts, adata)}). Counts must be whole numbers from 0.{scaled}"
            f"{advice}"
        )
    if "fractional" in tally.number and "negative" not in tally.number:
        faults.add(
            f"{place} holds {tally.number['fractional']} values that are not whole numbers "
            f"(first: {_where('fractional', counts, adata)}).{_transformation(counts, adata)} "
            f"The models need raw counts.{advice}"
        )
    if "too large" in tally.number:
        faults.add(
            f"{place} holds {tally.number['too large']} values above 2**31 = {LARGEST_COUNT} "
            f"(first: {_where('too large', counts, adata)}). No count is that large: check how "
            "the matrix was made."
        )


def _where(kind: str, counts: Counts, adata: Any) -> str:
    row, column, value = counts.tally.first[kind]
    return f"{value:.6g} in cell {adata.obs_names[row]!r}, gene {adata.var_names[column]!r}"


def _transformation(counts: Counts, adata: Any) -> str:
    tally = counts.tally
    if {"NaN", "infinite"} & set(tally.number):
        return ""
    below = tally.largest < _LOG_CEILING
    if below and "log1p" in adata.uns:
        return " It is log-normalised (adata.uns['log1p'] says so)."
    sample = _sample_rows(counts)
    corrected = (
        " Values that were corrected for ambient RNA, estimated, averaged or scaled are not "
        "counts any more."
    )
    is_whole = np.rint(sample[sample > 0]) == sample[sample > 0]
    if is_whole.all():  # what is wrong lies in other cells
        return corrected
    is_even = _equal_totals(sample, _TOTALS_SPREAD)
    factor = None if is_even else _common_factor(sample)
    if factor is not None:  # before logarithms: of a small factor, they would be whole as well
        return (
            f" All values of the first {len(sample)} cells are whole numbers times {factor:.6g}: "
            "they look scaled by one factor."
        )
    logged = np.expm1(sample) if below else None
    if logged is not None and (_equal_totals(logged, _LOGGED_SPREAD) or _whole_multiples(logged)):
        return " It looks log-normalised (scanpy.pp.log1p)."
    if is_even:
        return " It looks normalised to equal totals (scanpy.pp.normalize_total)."
    # Genes were dropped since, or kept out of the totals.
    if is_whole.mean() < 0.5 and _whole_multiples(sample):
        return (
            " Each cell's values are whole numbers times a factor of that cell: they look "
            "normalised to totals (scanpy.pp.normalize_total)."
        )
    return corrected


def _sample_rows(counts: Counts) -> npt.NDArray[np.float64]:
    n_cells = min(_SAMPLE_CELLS, counts.shape[0])
    end = int(counts.indptr[n_cells])
    rows = sp.csr_matrix(
        (counts.values[:end], counts.indices[:end], counts.indptr[: n_cells + 1]),
        shape=(n_cells, counts.shape[1]),
    )
    dense: npt.NDArray[np.float64] = rows.toarray()
    return dense


def _equal_totals(rows: npt.NDArray[np.float64], spread: float) -> bool:
    totals = rows.sum(axis=1)
    totals = totals[totals > 0]
    return len(totals) > 1 and bool(totals.std() < spread * totals.mean())


def _common_factor(rows: npt.NDArray[np.float64]) -> float | None:
    """Return what all values are whole multiples of; None: nothing that is seen among them."""
    values = rows[rows > 0]
    least = values.min(initial=np.inf)
    multiples = values / least
    whole = np.isclose(multiples, np.rint(multiples), rtol=1e-6, atol=1e-3)  # float32 rounds
    return float(least) if np.ptp(values) > 0 and whole.all() else None


def _whole_multiples(rows: npt.NDArray[np.float64]) -> bool:
    """Tell whether each row is some number times whole numbers, as after dividing by a total."""
    whole = several = 0
    for row in rows:
        values = row[row > 0]
        if len(values) < 2 or np.ptp(values) == 0:
            continue
        multiples = values / values.min()
        several += 1
        whole += bool(np.mean(np.abs(multiples - np.rint(multiples)) < 0.05) > _WHOLE_SHARE)
    return several > 0 and whole > _WHOLE_SHARE * several


def _advise(adata: Any, layer: str | None, from_file: bool) -> str:
    found = find_counts(adata, layer, from_file=from_file)
    if not found:
        return (
            " No layer, nor .X, nor .raw of this AnnData holds whole numbers: get the counts from "
            "the file they were first saved in."
        )
    ways = "; ".join(f"{place}: {way}" for place, way in found.items())
    return f" Whole numbers are found in {ways}."


def missing_layer(layer: str, adata: Any, name: str = "adata") -> str:
    """Return the fault of a layer that is not in the AnnData that is called ``name``."""
    text = missing_key("layer", layer, f"{name}.layers", adata.layers)
    if not _holds_counts(adata.X):
        return text
    return f"{text} {name}.X holds whole numbers: if these are the counts, leave layer out (null)."


def find_counts(adata: Any, layer: str | None, *, from_file: bool = False) -> Mapping[str, str]:
    """Return the places that hold whole numbers -> how to use each, judged by some cells."""
    found = {}
    if layer is not None and _holds_counts(adata.X):
        found["adata.X"] = "leave out data.layer" if from_file else "leave out layer="
    for name in adata.layers:
        if name != layer and _holds_counts(adata.layers[name]):
            found[f"adata.layers[{name!r}]"] = (
                f"write data: {{layer: {name}}}" if from_file else f"set up with layer={name!r}"
            )
    if adata.raw is not None and _holds_counts(adata.raw.X):
        found["adata.raw"] = (
            "write adata.raw.to_adata() to a file of its own"
            if from_file
            else "set up adata.raw.to_adata()"
        )
    return found


def _holds_counts(matrix: Any) -> bool:
    if matrix is None:
        return False
    rows = matrix[:_SAMPLE_CELLS]
    rows = rows.compute() if hasattr(rows, "compute") else rows
    # What is stored, rather than all of it: columns of a broken matrix lead anywhere.
    rows = rows.data if sp.issparse(rows) else np.asarray(rows)
    if rows.dtype.kind not in "biuf" or rows.size == 0 or not np.isfinite(rows).all():
        return False
    return bool((rows >= 0).all() and (np.rint(rows) == rows).all() and rows.any())
