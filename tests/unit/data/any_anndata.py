"""AnnData of every form that a user may come with, drawn by Hypothesis as readable recipes.

A recipe names one choice a trait. `WRONG` says of each choice whether it must be refused, so that
a test can tell a refusal that is due from one that is not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from hypothesis import strategies as st

try:
    import dask.array
except ImportError:  # of the test extra; without it there is nothing dask-backed to try
    DASK = False
else:
    DASK = True

N_CELLS, N_GENES = 14, 6
KEYS = ("batch_key", "labels_key", "categorical", "continuous", "size_factor_key")


# ------------------------------------------------------------------------------------- counts

DTYPES = [
    *("float32", "float64", "float16", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", ">f4", ">i8", "longdouble"),
]


def _strided(dense):
    return np.repeat(dense, 2, axis=1)[:, ::2]


def _backwards(dense):
    return dense[::-1, ::-1].copy()[::-1, ::-1]


def _duplicated(dense):
    """Each count in two entries where it can be halved, columns unsorted, a zero stored."""
    data, columns, indptr = [], [], [0]
    for row in dense:
        seen = np.flatnonzero(row != 0)[::-1]
        for column in seen:
            half = row[column] // 2 if row.dtype != bool else row[column]
            rest = row[column] - half if row.dtype != bool else False
            data += [half, rest]
            columns += [column, column]
        if len(row):
            data.append(row.dtype.type(0))
            columns.append(0)
        indptr.append(len(data))
    values = np.array(data, dtype=dense.dtype)
    return sp.csr_matrix((values, np.array(columns, dtype=int), indptr), shape=dense.shape)


def _unsorted(dense):
    matrix = sp.csr_matrix(dense)
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        matrix.indices[start:end] = matrix.indices[start:end][::-1].copy()
        matrix.data[start:end] = matrix.data[start:end][::-1].copy()
    matrix.has_sorted_indices = False
    return matrix


def _wide(dense):
    matrix = sp.csr_matrix(dense)
    matrix.indices, matrix.indptr = matrix.indices.astype("i8"), matrix.indptr.astype("i8")
    return matrix


def _masked(dense):
    masked = np.ma.array(dense)
    if dense.size:
        masked[0, 0] = np.ma.masked
    return masked


def _broken(form):
    def store(dense):
        matrix = form(dense)
        if matrix.nnz:
            matrix.indices[-1] = max(dense.shape) + 3
        return matrix

    return store


STORAGES = {
    "dense": lambda x: x,
    "fortran": np.asfortranarray,
    "strided": _strided,
    "backwards": _backwards,
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "duplicates": _duplicated,
    "unsorted": _unsorted,
    "unsorted csc": lambda x: _unsorted(x.T).T,
    "wide indices": _wide,
    "broken csr": _broken(sp.csr_matrix),
    "broken csc": _broken(sp.csc_matrix),
    "masked": _masked,
    "matrix": np.asmatrix,
}
DENSE = ("dense", "fortran", "strided", "backwards", "masked", "matrix")
if DASK:
    STORAGES |= {
        "dask": lambda x: dask.array.from_array(x, chunks=(5, -1)),
        "dask columns": lambda x: dask.array.from_array(x, chunks=(-1, 2)),
        "dask csr": lambda x: dask.array.from_array(x, chunks=(5, -1)).map_blocks(sp.csr_matrix),
    }


def _spoil(value):
    def spoil(dense):
        if dense.size:
            dense[-1, -1] = value
        return dense

    return spoil


def _silent_cell(dense):
    dense[: min(2, len(dense))] = 0
    return dense


def _silent_gene(dense):
    dense[:, 1:2] = 0
    return dense


VALUES = {
    "counts": lambda x: x,
    "silent gene": _silent_gene,
    "large": _spoil(2.0**31),
    "negative zero": _spoil(-0.0),
    "silent cell": _silent_cell,
    "nan": _spoil(np.nan),
    "infinite": _spoil(np.inf),
    "negative": _spoil(-3.0),
    "fraction": _spoil(0.5),
    "too large": _spoil(2.0**32),
    "log-normalised": lambda x: np.log1p(x / np.maximum(x.sum(axis=1, keepdims=True), 1) * 1e4),
}

PLACES = ("X", "layer", "layer without X", "layer beside normalised X")


# ------------------------------------------------------------------------------------ columns


def _codes(n: int, rng: np.random.Generator) -> np.ndarray:
    codes = rng.permutation(np.arange(n) % 3)
    return codes


def _with(value):
    """A text column of which one cell has this value."""

    def column(codes):
        names = np.array(["b", "a", "c"], dtype=object)[codes]
        if len(names):
            names[-1] = value
        return names

    return column


def _intervals(codes):
    return pd.cut(pd.Series(codes, dtype=float), [-1, 0, 1, 2]).array


CATEGORIES = {
    "none": None,
    "text": lambda c: np.array(["b", "a", "c"])[c],
    "unicode": lambda c: np.array(["β", "細胞", "🧬 e\u0301"], dtype=object)[c],
    "odd text": lambda c: np.array(["", " ", "a/b\n\"'{}[]"], dtype=object)[c],
    "int8": lambda c: c.astype(np.int8),
    "int64": lambda c: np.array([2**40, -3, 5])[c],
    "uint16": lambda c: np.array([7, 3, 60000], dtype=np.uint16)[c],
    "float": lambda c: np.array([0.1, 2.5, -1.0], dtype=np.float32)[c],
    "infinite": lambda c: np.array([np.inf, 2.5, -np.inf])[c],
    "bool": lambda c: c > 0,
    "one category": lambda c: np.array(["only"] * len(c), dtype=object),
    "categorical": lambda c: pd.Categorical.from_codes(c, ["z", "y", "x"]),
    "unused levels": lambda c: pd.Categorical.from_codes(c, ["z", "y", "x", "never"]),
    "ordered": lambda c: pd.Categorical.from_codes(c, [30, 20, 10, 5], ordered=True),
    "bool levels": lambda c: pd.Categorical.from_codes((c > 0).astype(int), [True, False]),
    "string": lambda c: pd.array(np.array(["b", "a", "c"])[c], dtype="string"),
    "Int64": lambda c: pd.array(c, dtype="Int64"),
    "boolean": lambda c: pd.array(c > 0, dtype="boolean"),
    "Float64": lambda c: pd.array(c / 2, dtype="Float64"),
    "scvi's own": "_scvi_batch",
    "mixed": lambda c: np.array([1, "a", 2.5], dtype=object)[c],
    "bytes": lambda c: np.array([b"x", b"y", b"z"], dtype=object)[c],
    "tuples": lambda c: pd.Series([(int(i), 1) for i in c], dtype=object).array,
    "lists": lambda c: pd.Series([[int(i)] for i in c], dtype=object).array,
    "dates": lambda c: pd.to_datetime("2020-01-01") + pd.to_timedelta(c, unit="D"),
    "periods": lambda c: pd.PeriodIndex.from_ordinals(c + 600, freq="M"),
    "intervals": _intervals,
    "complex": lambda c: c * 1j,
    "lone": lambda c: np.array(["lone", *["rest"] * (len(c) - 1)][: len(c)], dtype=object),
    "missing": _with(None),
    "nan": _with(np.nan),
    "missing level": lambda c: pd.Categorical.from_codes(
        np.where(np.arange(len(c)) == 0, -1, c), ["z", "y", "x"]
    ),
    "Int64 missing": lambda c: pd.array(np.where(c == 2, None, c), dtype="Int64"),
    "all missing": lambda c: np.array([None] * len(c), dtype=object),
}

NUMBERS = {
    "none": None,
    "float64": lambda c: c + 0.25,
    "float32": lambda c: (c + 0.25).astype(np.float32),
    "float16": lambda c: (c + 0.25).astype(np.float16),
    "int8": lambda c: c.astype(np.int8) + np.int8(1),
    "uint64": lambda c: c.astype(np.uint64) + np.uint64(2**60),
    "bool": lambda c: c >= 0,
    "Float64": lambda c: pd.array(c + 0.5, dtype="Float64"),
    "Int64": lambda c: pd.array(c + 1, dtype="Int64"),
    "boolean": lambda c: pd.array(c >= 0, dtype="boolean"),
    "objects": lambda c: np.array([0.5, 2, np.float32(3)], dtype=object)[c],
    "levels": lambda c: pd.Categorical.from_codes(c, [0.5, 1.5, 2.5]),
    "decimals": lambda c: np.array([Decimal("0.5"), Decimal(2), Decimal(3)], dtype=object)[c],
    "digits": lambda c: np.array(["0.5", "2", "3e0"], dtype=object)[c],
    "text": lambda c: np.array(["b", "a", "c"], dtype=object)[c],
    "dates": lambda c: pd.to_datetime("2020-01-01") + pd.to_timedelta(c, unit="D"),
    "durations": lambda c: pd.to_timedelta(c + 1, unit="D"),
    "complex": lambda c: c + 1j,
    "nan": lambda c: np.where(np.arange(len(c)) == 0, np.nan, c + 1.0),
    "infinite": lambda c: np.where(np.arange(len(c)) == 0, np.inf, c + 1.0),
    "beyond float32": lambda c: np.where(np.arange(len(c)) == 0, 1e300, c + 1.0),
    "Float64 missing": lambda c: pd.array(np.where(c == 2, None, c + 1), dtype="Float64"),
    "none at all": lambda c: np.array([None] * len(c), dtype=object),
    "lists": lambda c: pd.Series([[float(i)] for i in c], dtype=object).array,
    "negative": lambda c: -1.0 - c,
    "zero": lambda c: c * 0.0,
    "below float32": lambda c: np.full(len(c), 1e-60),
}

NAMES = {
    "usual": lambda n, what: [f"{what}{i}" for i in range(n)],
    "unicode": lambda n, what: [f"γδ-{what}/{i} 🧬" for i in range(n)],
    "odd": lambda n, what: [f" \"{what}'\\\t{{}}{i}%s" for i in range(n)],
    "double": lambda n, what: [f"{what}{i // 2}" for i in range(n)],
    "empty": lambda n, what: [""] * n,
    "digits": lambda n, what: [str(i) for i in range(n)],
}


# ------------------------------------------------------------------------------------- recipes

CHANGES = (
    *("nothing", "column dropped", "column renamed", "new category", "category lost"),
    *("layer dropped", "X removed", "cells dropped", "genes dropped", "another model"),
    *("set up again", "text for counts", "file closed", "uns cleared", "columns permuted"),
)
"""What happens to an AnnData between `setup_anndata` and us."""

FORMS = ("plain", "copy", "view", "view copied", "backed", "double column", "raw")


@dataclass(frozen=True)
class Recipe:
    """One choice for each trait of an AnnData."""

    n_cells: int = N_CELLS
    n_genes: int = N_GENES
    dtype: str = "float32"
    storage: str = "csr"
    values: str = "counts"
    place: str = "X"
    batch: str = "none"
    labels: str = "none"
    categorical: tuple[str, ...] = ()
    continuous: tuple[str, ...] = ()
    size_factor: str = "none"
    cell_names: str = "usual"
    gene_names: str = "usual"
    form: str = "plain"
    change: str = "nothing"
    shared: bool = False
    model: str = "SCVI"
    seed: int = 0

    def __repr__(self) -> str:
        usual = asdict(Recipe())
        shown = {name: value for name, value in asdict(self).items() if value != usual[name]}
        return f"Recipe({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


_TRAITS: dict[str, Any] = {
    "n_cells": (0, 1, 2, 9, 10, 23),
    "n_genes": (0, 1, 2, 3, 17),
    "dtype": tuple(DTYPES),
    "storage": tuple(STORAGES),
    "values": tuple(VALUES),
    "place": PLACES,
    "batch": tuple(CATEGORIES),
    "labels": tuple(CATEGORIES),
    "categorical": tuple(kind for kind in CATEGORIES if kind not in ("none", "scvi's own")),
    "continuous": tuple(kind for kind in NUMBERS if kind != "none"),
    "size_factor": tuple(NUMBERS),
    "cell_names": tuple(NAMES),
    "gene_names": tuple(NAMES),
    "form": FORMS,
    "change": CHANGES,
    "shared": (True,),
    "model": ("LinearSCVI", "CondSCVI"),
}


@st.composite
def recipes(draw: Any, traits: tuple[str, ...] = tuple(_TRAITS), most: int = 4) -> Recipe:
    """Draw a recipe in which up to ``most`` traits, of those named, are not the usual."""
    chosen = draw(st.lists(st.sampled_from(traits), unique=True, max_size=most))
    found: dict[str, Any] = {"seed": draw(st.integers(0, 3))}
    for trait in chosen:
        options = st.sampled_from(_TRAITS[trait])
        several = trait in ("categorical", "continuous")
        found[trait] = draw(
            st.lists(options, min_size=1, max_size=2).map(tuple) if several else options
        )
    return Recipe(**found)


_GENTLE = {("plain", "nothing"), ("plain", "another model"), ("plain", "columns permuted")}
"""Form and change that leave counts alone."""


@dataclass
class Built:
    """What a recipe makes: an AnnData, how to set it up, and the counts that it truly holds."""

    adata: anndata.AnnData
    kwargs: dict[str, Any]
    counts: np.ndarray


def build(recipe: Recipe) -> Built:
    """Make the AnnData of a recipe; raises what anndata raises where it refuses to hold it."""
    rng = np.random.default_rng(recipe.seed)
    dense = rng.poisson(1.0, (recipe.n_cells, recipe.n_genes)).astype(float)
    dense[:, :1] += 1
    with np.errstate(all="ignore"):
        counts = VALUES[recipe.values](dense).astype(recipe.dtype)
    if recipe.dtype == "float16" and recipe.storage not in DENSE:
        counts = counts.astype(np.float32)  # scipy has no sparse matrix of them
    matrix = STORAGES[recipe.storage](counts.copy())
    if recipe.storage == "duplicates":  # of bools: True twice is 2
        counts = np.asarray(sp.csr_matrix(matrix.astype(float)).toarray())
    codes = _codes(recipe.n_cells, rng)
    obs, kwargs = _columns(recipe, codes)
    frame = pd.DataFrame(obs, index=NAMES[recipe.cell_names](recipe.n_cells, "cell"))
    var = pd.DataFrame(index=NAMES[recipe.gene_names](recipe.n_genes, "gene"))
    in_layer = recipe.place != "X"
    x = matrix if not in_layer else None
    if recipe.place == "layer":
        x = np.ones_like(counts, dtype=np.float32)
    elif recipe.place == "layer beside normalised X":
        x = np.full(counts.shape, 0.37, dtype=np.float32)
    layers = {"counts": matrix} if in_layer else {}
    if recipe.storage.startswith("broken") and (recipe.form, recipe.change) not in _GENTLE:
        raise ValueError(
            "Cutting a broken matrix ends the process, before anything is asked of us."
        )
    adata = anndata.AnnData(X=x, obs=frame, var=var, layers=layers)
    if in_layer:
        kwargs["layer"] = "counts"
    if recipe.form == "raw":
        more = rng.poisson(2.0, (recipe.n_cells, recipe.n_genes + 3)).astype(np.float32)
        adata.raw = anndata.AnnData(more, obs=frame[[]])
    elif recipe.form == "double column" and len(frame.columns):
        adata.obs = pd.concat([adata.obs, adata.obs.iloc[:, :1]], axis=1)
    elif recipe.form == "view copied":
        adata = adata[::-1][:, :].copy()
        counts = counts[::-1]
    return Built(adata, kwargs, counts)


def _columns(recipe: Recipe, codes: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    obs: dict[str, Any] = {}
    kwargs: dict[str, Any] = {}

    def add(argument: str, name: str, options: dict[str, Any], kind: str) -> None:
        made = options[kind]
        if made is None:
            return
        if isinstance(made, str):  # the name of a column that scvi-tools will write
            name, made = made, CATEGORIES["text"]
        if recipe.shared and "batch" in obs and options is CATEGORIES:
            name = "batch"  # one column for all that name categories
        else:
            obs[name] = made(codes)
        if argument.endswith("_keys"):
            kwargs.setdefault(argument, []).append(name)
        else:
            kwargs[argument] = name

    add("batch_key", "batch", CATEGORIES, recipe.batch)
    add("labels_key", "label", CATEGORIES, recipe.labels)
    if recipe.model == "SCVI":
        add("size_factor_key", "size", NUMBERS, recipe.size_factor)
    if recipe.model in ("SCVI",):
        for i, kind in enumerate(recipe.categorical):
            if i == 0 or not recipe.shared:
                add("categorical_covariate_keys", f"donor {i}", CATEGORIES, kind)
        for i, kind in enumerate(recipe.continuous):
            add("continuous_covariate_keys", f"age {i}", NUMBERS, kind)
    return obs, kwargs


# --------------------------------------------------------------------- what is to be refused

_GOOD_CATEGORIES = frozenset(
    {
        *("none", "text", "unicode", "odd text", "int8", "int64", "uint16", "float", "infinite"),
        *("bool", "one category", "categorical", "unused levels", "ordered", "bool levels"),
        *("string", "Int64", "boolean", "Float64"),
    }
)
_UNDECIDED = frozenset({"mixed", "decimals", "digits", "bytes"})
_GOOD_NUMBERS = frozenset(
    {
        *("none", "float64", "float32", "float16", "int8", "uint64", "bool", "Float64", "Int64"),
        *("boolean", "objects", "levels", "negative", "zero", "below float32"),
    }
)
_GOOD_SIZES = _GOOD_NUMBERS - {"negative", "zero", "below float32"}


def verdict(recipe: Recipe, built: Built, *, from_file: bool = False) -> str:
    """Return ``good``, ``bad`` (to be refused) or ``either`` (refused, or as scvi-tools)."""
    truth = built.counts.astype(np.longdouble)
    finite = np.isfinite(truth).all()
    bad = [
        recipe.n_cells < 10 or recipe.n_genes < 2,
        not finite or (truth < 0).any() or (truth % 1 != 0).any() or (truth > 2**31).any(),
        bool(finite and (truth.sum(axis=1) == 0).any()),
        recipe.storage.startswith("broken") and built.counts.any(),
    ]
    kinds = [*_used_categories(recipe, built), *_used_numbers(recipe, built)]
    bad += [kind == "wrong" for kind in kinds]
    if any(bad):
        return "bad"
    if not from_file and np.ma.is_masked(_held(recipe, built)):
        return "bad"
    undecided = "either" in kinds or recipe.form == "double column"
    return "either" if undecided else "good"


def _held(recipe: Recipe, built: Built) -> Any:
    return built.adata.X if recipe.place == "X" else built.adata.layers["counts"]


def _used_categories(recipe: Recipe, built: Built) -> list[str]:
    used = [recipe.batch, recipe.labels]
    some = recipe.categorical[:1] if recipe.shared else recipe.categorical
    used += some if recipe.model == "SCVI" else ()
    if recipe.shared and built.kwargs.get("batch_key") == "batch":
        used = [recipe.batch if kind != "none" else kind for kind in used]
    found = [
        "right" if kind in _GOOD_CATEGORIES else "either" if kind in _UNDECIDED else "wrong"
        for kind in used
    ]
    for place, kind in enumerate(used):
        if kind == "lone" and place > 0:  # a label or a covariate of one cell is allowed
            found[place] = "right"
    return found


def _used_numbers(recipe: Recipe, built: Built) -> list[str]:
    if recipe.model != "SCVI":
        return []
    good = [(kind, _GOOD_NUMBERS) for kind in recipe.continuous]
    good.append((recipe.size_factor, _GOOD_SIZES))
    return [
        "right" if kind in fine else "either" if kind in _UNDECIDED else "wrong"
        for kind, fine in good
    ]
