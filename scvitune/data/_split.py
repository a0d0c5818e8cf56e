"""Cells -> train, validation and test indices."""

from __future__ import annotations

import math
import os
import uuid
import zipfile
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scvitune._seeding import derive_seed
from scvitune.contracts import Split
from scvitune.errors import Faults, InputError, StudyError

_NAMES = ("train", "validation", "test")


def split_cells(
    n_cells: int,
    *,
    train_size: float,
    test_size: float,
    seed: int,
    stratify: npt.ArrayLike | None = None,
) -> Split:
    """Split cells into train, validation and test by a seed.

    Parameters
    ----------
    n_cells
        Number of cells.
    train_size
        Share to train on, in (0, 1); ``ceil(train_size * n_cells)`` cells, as scvi-tools counts.
    test_size
        Share that no search may see, in [0, 1); ``floor(test_size * n_cells)`` cells. The rest
        validates.
    seed
        The study's seed; equal seeds give equal splits on every machine.
    stratify
        (n_cells,) category codes. Each code then has its share of every split, to within one
        cell; the sizes of the splits stay the same.

    Returns
    -------
    Split
        Sorted int64 indices that together are all cells.

    Raises
    ------
    InputError
        If a size is out of range, or no cell is left to train on or to validate with.
    """
    n_train, n_test = _split_sizes(n_cells, train_size=train_size, test_size=test_size)
    rng = np.random.default_rng(derive_seed(seed, "split"))
    order = rng.permutation(n_cells).astype(np.int64)
    if stratify is None:
        parts = np.split(order, [n_train, n_cells - n_test])
    else:
        codes = np.asarray(stratify)
        if codes.shape != (n_cells,):
            raise InputError(
                f"stratify has shape {codes.shape}; it must hold one code for each of the "
                f"{n_cells} cells."
            )
        sizes = (n_train, n_cells - n_train - n_test, n_test)
        parts = _split_strata(order, codes, sizes, rng)
    return Split(*(np.sort(part) for part in parts))


def _split_sizes(n_cells: int, *, train_size: float, test_size: float) -> tuple[int, int]:
    faults = Faults()
    if not isinstance(n_cells, Integral) or n_cells < 2:
        faults.add(f"n_cells must be a whole number of at least 2, but got {n_cells!r}.")
    for name, size, lowest in (("train_size", train_size, False), ("test_size", test_size, True)):
        number = isinstance(size, Real) and not isinstance(size, bool)
        if not number or not (0 < size <= 1 or (lowest and size == 0)):
            allowed = "in [0, 1)" if lowest else "in (0, 1)"
            faults.add(f"{name} must be a number {allowed}, but got {size!r}.")
    faults.raise_if_any()
    n_train = math.ceil(train_size * n_cells)
    n_test = math.floor(test_size * n_cells)
    n_validation = n_cells - n_train - n_test
    if n_validation < 1:
        raise InputError(
            f"train_size={train_size} and test_size={test_size} leave no cell to validate with: "
            f"of {n_cells} cells {n_train} train and {n_test} test. Lower one of them, for "
            "example train_size=0.8, test_size=0.1."
        )
    return n_train, n_test


def _split_strata(
    order: npt.NDArray[np.int64],
    codes: npt.NDArray[np.generic],
    sizes: tuple[int, int, int],
    rng: np.random.Generator,
) -> list[npt.NDArray[np.int64]]:
    _, strata = np.unique(codes, return_inverse=True)
    table = _round_table(np.bincount(strata), sizes, rng)
    by_stratum = order[np.argsort(strata[order], kind="stable")]
    split_of = np.repeat(np.tile(np.arange(3), len(table)), table.ravel())
    return [by_stratum[split_of == number] for number in range(3)]


def _round_table(
    stratum_sizes: npt.NDArray[np.int64], sizes: tuple[int, int, int], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Round the (n_strata, 3) table of expected numbers up or down, both margins kept.

    Such a table is a point of a transportation polytope, whose vertices are whole numbers; a
    random linear objective takes a random one of them.
    """
    import scipy.sparse as sp
    from scipy.optimize import linprog

    n_strata = len(stratum_sizes)
    expected = np.outer(stratum_sizes, np.asarray(sizes) / sum(sizes))
    # Products such as 0.1 * 30 miss whole numbers by rounding, which would make them free.
    whole = np.abs(expected - np.rint(expected)) < 1e-6
    low = np.where(whole, np.rint(expected), np.floor(expected))
    high = np.where(whole, np.rint(expected), np.ceil(expected))
    of_row = sp.kron(sp.eye_array(n_strata), np.ones((1, 3)))
    of_column = sp.kron(np.ones((1, n_strata)), sp.eye_array(3))
    solution = linprog(
        rng.random(3 * n_strata),
        A_eq=sp.vstack([of_row, of_column], format="csr"),
        b_eq=np.concatenate([stratum_sizes, sizes]),
        bounds=np.column_stack([low.ravel(), high.ravel()]),
        method="highs-ds",
    )
    if not solution.success:
        raise RuntimeError(f"No stratified split was found: {solution.message}")
    return np.asarray(np.rint(solution.x), dtype=np.int64).reshape(n_strata, 3)


def take_share(split: Split, share: float, *, seed: int) -> Split:
    """Return the split with a part of its training cells; smaller parts lie within larger ones.

    Parameters
    ----------
    split
        Of all cells.
    share
        Of the training cells, in (0, 1]; rounded up.
    seed
        Of the order in which cells are taken.
    """
    rng = np.random.default_rng(derive_seed(seed, "share"))
    order = rng.permutation(split.train)
    taken = order[: math.ceil(share * len(order) - 1e-9)]
    return Split(np.sort(taken), split.validation, split.test)


def save_split(split: Split, path: Path) -> None:
    """Write a split as ``.npz``, whole or not at all.

    Parameters
    ----------
    split
        The indices.
    path
        The file; its folder must exist.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with part.open("wb") as file:
        np.savez(file, train=split.train, validation=split.validation, test=split.test)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_split(path: Path) -> Split:
    """Read a split that `save_split` wrote.

    Parameters
    ----------
    path
        The ``.npz`` file.

    Raises
    ------
    StudyError
        If the file is missing or is no split.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Split(*(archive[name].astype(np.int64, copy=False) for name in _NAMES))
    except FileNotFoundError as error:
        raise StudyError(
            f"{path} is missing, so it is not known which cells train, validate and test. Give "
            "the directory of a whole run, or start the study anew."
        ) from error
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StudyError(
            f"{path} cannot be read as a split ({error}). Copy it again from where the study ran, "
            "or start the study anew."
        ) from error
