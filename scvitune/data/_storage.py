"""Prepared data <-> a folder of ``.npy`` files and a ``meta.json``, shared, memory-mapped."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scvitune.contracts import PreparedData
from scvitune.data._fingerprint import ARRAYS, compute_fingerprint
from scvitune.errors import StudyError

FOLDER = ".data"
"""Where prepared data lie below a storage directory."""

FORMAT = 1
"""Number of the layout; raised when older versions could not read what is written."""

_META = "meta.json"


def save_prepared(prepared: PreparedData, storage: Path) -> PreparedData:
    """Write the arrays to ``storage/.data/FINGERPRINT`` and return them memory-mapped.

    Any number of processes may do so at once: each writes into a folder of its own and renames
    it, the first one wins, and a reader sees whole data or none. What is already there is reused
    if it still has its fingerprint, and else written anew.

    Parameters
    ----------
    prepared
        The data, from `prepare_anndata`.
    storage
        Directory of the runs; made if it is not there.

    Returns
    -------
    PreparedData
        With read-only memory-mapped arrays and ``directory`` set.

    Raises
    ------
    OSError
        If the directory cannot be written.
    """
    home = Path(storage) / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    target = home / prepared.fingerprint
    if target.exists():
        try:
            # Reading them whole costs what their fingerprint did, and trials want them in memory.
            return _as_selected(load_prepared(target, verify=True), prepared)
        except StudyError:
            # Cut short or changed: put aside, since a reader may still map it.
            _discard(target)
    part = home / f".{prepared.fingerprint}.{uuid.uuid4().hex}"
    part.mkdir()
    try:
        _write(prepared, part)
        part.rename(target)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not (target / _META).exists():
            raise
    return _as_selected(load_prepared(target), prepared)


def _as_selected(found: PreparedData, prepared: PreparedData) -> PreparedData:
    """Return what lies on disk with what is known of how it was come by, which does not."""
    return replace(found, selection=prepared.selection)


def _discard(target: Path) -> None:
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.broken")
    try:
        target.rename(aside)
    except FileNotFoundError:
        return  # Another process was faster.
    shutil.rmtree(aside, ignore_errors=True)


def _write(prepared: PreparedData, directory: Path) -> None:
    forms: dict[str, dict[str, Any]] = {}
    for name in ARRAYS:
        array = getattr(prepared, name)
        if array is None:
            continue
        forms[name] = {"shape": list(array.shape), "dtype": array.dtype.str}
        with (directory / f"{name}.npy").open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    meta = {
        "format": FORMAT,
        "fingerprint": prepared.fingerprint,
        "n_genes": prepared.n_genes,
        "n_batch": prepared.n_batch,
        "n_labels": prepared.n_labels,
        "n_categories_per_covariate": list(prepared.n_categories_per_covariate),
        "gene_names": list(prepared.gene_names),
        "setup": dict(prepared.setup),
        "arrays": forms,
    }
    with (directory / _META).open("w", encoding="utf-8") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())


def load_prepared(directory: Path, *, verify: bool = False) -> PreparedData:
    """Open prepared data, memory-mapped and read-only.

    Parameters
    ----------
    directory
        ``storage/.data/FINGERPRINT``.
    verify
        Read everything and compare its fingerprint; otherwise only names, types and sizes are
        checked, which reads next to nothing.

    Raises
    ------
    StudyError
        If files are missing, cut short or changed.
    """
    directory = Path(directory)
    try:
        meta = json.loads((directory / _META).read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise StudyError(
                f"{directory} holds prepared data of format {meta['format']!r}, but this version "
                f"of scvitune reads format {FORMAT}. Use the version that wrote it, or start the "
                "study anew."
            )
        arrays = {name: _open_array(directory, name, meta["arrays"].get(name)) for name in ARRAYS}
        prepared = PreparedData(
            **arrays,
            n_genes=meta["n_genes"],
            n_batch=meta["n_batch"],
            n_labels=meta["n_labels"],
            n_categories_per_covariate=tuple(meta["n_categories_per_covariate"]),
            gene_names=tuple(meta["gene_names"]),
            setup=meta["setup"],
            fingerprint=meta["fingerprint"],
            directory=directory,
        )
    except FileNotFoundError as error:
        raise StudyError(
            f"{error.filename} is missing. Prepared data lie beside the runs, in a folder "
            f"{FOLDER!r}, and are needed to go on: copy that folder along with the run, or start "
            "the study anew from the data file."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise StudyError(
            f"The prepared data in {directory} cannot be read ({error}). Delete that folder and "
            "copy it again, or start the study anew from the data file."
        ) from error
    if verify and compute_fingerprint(prepared) != prepared.fingerprint:
        raise StudyError(
            f"The prepared data in {directory} have changed since they were written. Delete that "
            "folder and copy it again, or start the study anew from the data file."
        )
    return prepared


def _open_array(directory: Path, name: str, form: dict[str, Any] | None) -> Any:
    if form is None:
        return None
    array = np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    if list(array.shape) != form["shape"] or array.dtype.str != form["dtype"]:
        raise ValueError(
            f"{name}.npy holds {array.dtype.str} of shape {list(array.shape)}, expected "
            f"{form['dtype']} of shape {form['shape']}"
        )
    return array
