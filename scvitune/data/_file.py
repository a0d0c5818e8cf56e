"""An ``.h5ad`` file -> filtered, set-up AnnData and its `PreparedData`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.contracts import PreparedData
from scvitune.data._built_in import BUILT_IN
from scvitune.data._counts import Counts, read_counts
from scvitune.data._diagnosis import add_value_faults, missing_layer
from scvitune.data._filtering import Limits, filter_counts
from scvitune.data._gene_selection import GeneChoice
from scvitune.data._gene_selection import choose_genes as choose
from scvitune.data._large_file import LargeFile, open_large, read_kept, survey
from scvitune.data._message import missing_key, name_some
from scvitune.data._preparation import add_size_faults, prepare_anndata
from scvitune.data._registration import (
    OWN_COLUMNS,
    find_model_class,
    own_column_fault,
    setup_arguments,
)
from scvitune.data._selection import describe_selection
from scvitune.errors import Faults, InputError, nearest, one_of, warn_user

_LONGEST_REASON = 300

_LISTS = ("categorical_covariate_keys", "continuous_covariate_keys")


def prepare_file(
    path: str | Path,
    *,
    model: str,
    layer: str | None = None,
    batch_key: str | None = None,
    labels_key: str | None = None,
    size_factor_key: str | None = None,
    categorical_covariate_keys: Sequence[str] | None = None,
    continuous_covariate_keys: Sequence[str] | None = None,
    n_top_genes: int | None = None,
    min_counts: int | None = None,
    min_genes: int | None = None,
    min_cells: int | None = None,
    choose_genes: bool = True,
) -> tuple[Any, PreparedData]:
    """Read a file, filter it, choose genes, set it up for a model and prepare it.

    Parameters
    ----------
    path
        An ``.h5ad`` file, or the name of a built-in dataset (`scvitune.data.BUILT_IN`).
    model
        Name of the scvi-tools model class.
    layer
        Layer of the counts; None for ``.X``.
    batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        Columns of ``obs``, handed to the model's ``setup_anndata``.
    n_top_genes
        Keep so many genes, chosen by `select_genes` after filtering; all, if there are fewer.
    min_counts, min_genes
        Keep cells with at least so many counts, or genes seen.
    min_cells
        Keep genes seen in at least so many of the cells kept.
    choose_genes
        False where only faults are looked for: ``n_top_genes`` is checked, but all genes are kept,
        for choosing takes seconds.

    Returns
    -------
    adata
        AnnData of the cells and genes that were kept, set up for the model.
    prepared
        What `prepare_anndata` makes of it, with what was done to the file's cells and genes.

    Raises
    ------
    InputError
        If the file, a key or the data cannot be used; all faults that can be seen at once.

    Warns
    -----
    UserWarning
        If there are fewer genes than ``n_top_genes``, or cells lost all their counts with the
        genes, and were dropped.
    """
    keys = {
        "layer": layer,
        "batch_key": batch_key,
        "labels_key": labels_key,
        "size_factor_key": size_factor_key,
        "categorical_covariate_keys": _as_list(categorical_covariate_keys),
        "continuous_covariate_keys": _as_list(continuous_covariate_keys),
    }
    kwargs = {name: value for name, value in keys.items() if value is not None}
    limits = Limits(min_counts, min_genes, min_cells)
    faults = Faults()
    model_class = None
    try:
        model_class = find_model_class(model)
        _check_accepted(model_class, kwargs, faults)
    except InputError as error:
        faults.extend(error)
    _check_limits({"n_top_genes": n_top_genes, **vars(limits)}, faults)
    source = None
    try:
        source = _open(path, layer)
        _check_keys(source, kwargs, faults)
    except InputError as error:
        faults.extend(error)
    if source is not None:
        add_size_faults(source.n_obs, source.n_vars, faults)
    before = (0, 0) if source is None else (source.n_obs, source.n_vars)
    if isinstance(source, LargeFile):
        faults.raise_if_any()  # rather than after minutes of reading
        with _unreadable_explained(path):
            adata, filtered, choice = _keep_of_large(source, limits, layer, n_top_genes, batch_key)
    else:
        counts = _read(source, layer, faults)
        faults.raise_if_any()
        if source is None or counts is None:
            raise RuntimeError("What cannot be read is a fault.")
        adata = _filter(source, counts, limits)
        filtered, choice = adata.shape, None
        if n_top_genes is not None and choose_genes:
            choice = choose(adata, n_top_genes, layer=layer, batch_key=batch_key)
            adata = adata[:, choice.kept].copy()
    if model_class is None:
        raise RuntimeError("A model that is not known is a fault.")
    if n_top_genes is not None or min_cells is not None:
        adata = _drop_emptied(adata, layer)
    model_class.setup_anndata(adata, **kwargs)
    selection = describe_selection(
        before=before,
        filtered=filtered,
        kept=adata.shape,
        limits=limits,
        n_top_genes=n_top_genes,
        choice=choice,
        batch_key=batch_key,
    )
    return adata, replace(prepare_anndata(adata, model=model), selection=selection)


def _open(path: str | Path, layer: str | None) -> Any:
    """Return the file's AnnData, or a `LargeFile` that stands in for it."""
    check_file(path)
    large = None
    if str(path) not in BUILT_IN:
        with _unreadable_explained(path):
            large = open_large(Path(path).expanduser(), layer)
    return large or read_anndata(path)


def _as_list(keys: Sequence[str] | None) -> list[str] | None:
    if not keys:
        return None
    return [keys] if isinstance(keys, str) else list(keys)


def check_file(path: str | Path) -> None:
    """Check that data are there to be read, which costs no more than a look at the file's head.

    Parameters
    ----------
    path
        An ``.h5ad`` file, or the name of a built-in dataset.

    Raises
    ------
    InputError
        If there is no such file, or it is no AnnData.
    """
    import h5py

    if str(path) in BUILT_IN:
        return
    try:
        file = Path(path).expanduser()
        if not file.exists():
            raise InputError(_missing_file(path, file))
    except (OSError, RuntimeError) as error:  # a closed directory, a name too long, no such home
        why = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise InputError(
            f"The data file {str(path)!r:.200} cannot be looked for: {why}. Check the path."
        ) from error
    if not file.is_file() or not h5py.is_hdf5(file):
        kind = "a directory" if file.is_dir() else "no HDF5 file"
        raise InputError(
            f"{str(path)!r} is {kind}, but an .h5ad file is needed. Write one with "
            "adata.write_h5ad('cells.h5ad'); scanpy reads other formats (sc.read_10x_mtx, "
            "sc.read_loom, ...)."
        )
    with _unreadable_explained(path), h5py.File(file, "r") as content:
        names = sorted(content)
    lacking = [name for name in ("obs", "var") if name not in names]
    if lacking:
        raise InputError(
            f"{str(path)!r} is an HDF5 file, but no AnnData: it lacks {name_some(lacking)} and "
            f"holds {name_some(names) or 'nothing'}. 10x files are read by sc.read_10x_h5; write "
            "the result with adata.write_h5ad('cells.h5ad')."
        )


def read_anndata(path: str | Path) -> Any:
    """Read an ``.h5ad`` file, or make the built-in dataset of that name.

    Parameters
    ----------
    path
        The file, or a key of the built-in datasets, such as ``pbmc68k``.

    Raises
    ------
    InputError
        If there is no such file, or it is no AnnData.
    """
    import anndata

    check_file(path)
    if str(path) in BUILT_IN:
        return BUILT_IN[str(path)]()
    with _unreadable_explained(path):
        return anndata.read_h5ad(Path(path).expanduser())


@contextmanager
def _unreadable_explained(path: str | Path) -> Iterator[None]:
    """Raise what a damaged file makes anndata and HDF5 raise, which is anything, as one fault."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())  # HDF5 writes a stack of lines
        why = why if len(why) <= _LONGEST_REASON else f"{why[:_LONGEST_REASON]} ..."
        raise InputError(
            f"{str(path)!r} cannot be read as an AnnData ({type(error).__name__}: {why}). It may "
            f"be cut short or damaged, or written by a newer anndata than {version('anndata')}."
        ) from error


def _missing_file(path: str | Path, file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return (
            f"The data file {str(path)!r} does not exist, nor does its folder {str(folder)!r} "
            f"(seen from {str(Path.cwd())!r}). Built-in data are {one_of(BUILT_IN)}."
        )
    there = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".h5ad", ".h5"))
    close = nearest(file.name, [*there, *BUILT_IN])
    listed = f"That folder holds {name_some(there)}" if there else "No .h5ad file is there"
    return (
        f"The data file {str(path)!r} does not exist (looked in {str(folder.absolute())!r})."
        f"{close} {listed}. Built-in data are {one_of(BUILT_IN)}."
    )


def _check_accepted(model_class: Any, kwargs: Mapping[str, Any], faults: Faults) -> None:
    accepted = setup_arguments(model_class)
    for name in kwargs:
        if name not in accepted:
            faults.add(
                f"{model_class.__name__} does not take {name} (got {kwargs[name]!r}): its "
                f"setup_anndata takes {one_of(accepted)}. Leave it out."
            )


def _check_limits(limits: Mapping[str, Any], faults: Faults) -> None:
    for name, value in limits.items():
        least = 1 if name == "n_top_genes" else 0
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if value is not None and (not whole or value < least):
            faults.add(f"{name} must be a whole number of at least {least}, but got {value!r}.")


def _check_keys(adata: Any, kwargs: Mapping[str, Any], faults: Faults) -> None:
    for name, value in kwargs.items():
        if name == "layer":
            if value not in adata.layers:
                faults.add(missing_layer(value, adata))
            continue
        for key in value if name in _LISTS else [value]:
            if key not in adata.obs:
                faults.add(missing_key(name, key, "adata.obs", adata.obs.columns))
            elif key in OWN_COLUMNS:
                faults.add(own_column_fault(key))
            elif name not in ("size_factor_key", "continuous_covariate_keys"):
                n_missing = int(adata.obs[key].isna().sum())
                if n_missing:
                    faults.add(
                        f"{name} {key!r} is missing in {n_missing} of {adata.n_obs} cells. Drop "
                        f"these cells, or name what is unknown: adata.obs[{key!r}] = "
                        f"adata.obs[{key!r}].astype(object).fillna('unknown')."
                    )


def _matrix_of(adata: Any, layer: str | None, faults: Faults) -> Any:
    """Return the matrix of counts; None if there is none, which is a fault."""
    if layer is not None:
        return adata.layers[layer] if layer in adata.layers else None
    if adata.X is None:
        known = name_some(list(adata.layers)) or "none"
        faults.add(f"The file has no .X; name the layer with the counts (layers: {known}).")
    return adata.X


def _read(adata: Any, layer: str | None, faults: Faults) -> Counts | None:
    matrix = None if adata is None else _matrix_of(adata, layer, faults)
    if matrix is None:
        return None
    try:
        counts = read_counts(matrix)
    except InputError as error:
        faults.extend(error)
        return None
    add_value_faults(counts, adata, layer, faults, from_file=True)
    return counts


def _filter(adata: Any, counts: Counts, limits: Limits) -> Any:
    n_genes_seen = np.diff(counts.indptr)

    def count_cells(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        if not limits.min_cells:
            return np.zeros(counts.shape[1], dtype=np.int64)
        seen = counts.indices[np.repeat(cells, n_genes_seen)]
        return np.bincount(seen, minlength=counts.shape[1])

    cells, genes = filter_counts(counts.cell_totals(), n_genes_seen, count_cells, limits)
    if cells.all() and genes.all():
        return adata
    return adata[cells, genes].copy()


def _keep_of_large(
    file: LargeFile,
    limits: Limits,
    layer: str | None,
    n_top_genes: int | None,
    batch_key: str | None,
) -> tuple[Any, tuple[int, int], GeneChoice | None]:
    faults = Faults()
    surveyed = survey(file.X if layer is None else file.layers[layer], limits)
    add_value_faults(surveyed.sample, file, layer, faults, from_file=True)
    faults.raise_if_any()
    filtered = (int(surveyed.cells.sum()), int(surveyed.genes.sum()))
    adata, choice = read_kept(
        file, surveyed, layer=layer, n_top_genes=n_top_genes, batch_key=batch_key
    )
    return adata, filtered, choice


def _drop_emptied(adata: Any, layer: str | None) -> Any:
    totals = read_counts(adata.X if layer is None else adata.layers[layer]).cell_totals()
    n_empty = int(np.count_nonzero(totals == 0))
    if not n_empty:
        return adata
    warn_user(
        f"{n_empty} of {adata.n_obs} cells have no counts in the {adata.n_vars} genes that were "
        "kept, and were dropped. Keep more genes (n_top_genes) to keep these cells.",
    )
    return adata[totals > 0].copy()
