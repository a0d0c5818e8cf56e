"""Two tables of proportions -> arrays in one order, or every fault that keeps them apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from scvitune.errors import Faults, InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

_ROUNDING = 1e-6
"""A softmax in single precision may pass 1 by so much."""

_SHOWN = 5
"""So many names are listed before a message says how many more there are."""


@dataclass(frozen=True)
class MatchedTables:
    """True and predicted proportions whose rows and columns mean the same.

    Attributes
    ----------
    truth
        (n_spots, n_all_types) in the type the user gave, dropped types included.
    predicted
        (n_spots, n_types) float64, without the dropped types.
    keep
        (n_all_types,) which columns of ``truth`` are those of ``predicted``.
    types
        Names of the columns of ``predicted``.
    spots
        Names of the rows.
    """

    truth: npt.NDArray[Any]
    predicted: npt.NDArray[np.float64]
    keep: npt.NDArray[np.bool_]
    types: pd.Index
    spots: pd.Index


def match_tables(truth: Any, predicted: Any, *, drop: Any, faults: Faults) -> MatchedTables:
    """Return both tables in the order of the truth.

    Raises
    ------
    InputError
        With the faults found here and those ``faults`` held before.
    """
    import pandas as pd

    dropped = _read_drop(drop, faults)
    true = _read_table(truth, "truth", faults)
    guess = _read_table(predicted, "predicted", faults)
    by_name = isinstance(truth, pd.DataFrame) and isinstance(predicted, pd.DataFrame)
    if true is not None and guess is not None:
        if not by_name:
            _share_names(
                true, guess, names_of_truth=isinstance(truth, pd.DataFrame), faults=faults
            )
        _check_drop(dropped, true, guess, faults)
    # Every value of the truth enters its row's sum; what is dropped of the prediction is not used.
    if true is not None:
        _check_values(true, "truth", faults)
    if guess is not None:
        _check_values(guess.loc[:, _kept(guess, dropped)], "predicted", faults, highest=1.0)
    if true is None or guess is None:
        faults.raise_if_any()
        raise InputError("truth and predicted must be tables of numbers.")
    keep = _kept(true, dropped)
    types = true.columns[keep]
    if by_name:
        _check_names(types, guess.columns[_kept(guess, dropped)], "types", faults)
        _check_names(true.index, guess.index, "spots", faults)
    faults.raise_if_any()
    rows, columns = guess.index.get_indexer(true.index), guess.columns.get_indexer(types)
    values = guess.to_numpy()[np.ix_(rows, columns)].astype(np.float64)
    return MatchedTables(true.to_numpy(), values, keep, types, true.index)


def _read_drop(drop: Any, faults: Faults) -> list[object]:
    if isinstance(drop, str) or not isinstance(drop, Iterable):
        faults.add(
            f"drop must be a sequence of names of types, but got {drop!r}. Write drop=[{drop!r}]."
        )
        return []
    return list(drop)


def _read_table(table: Any, name: str, faults: Faults) -> pd.DataFrame | None:
    """Return the table as a DataFrame of numbers, or None after adding what is wrong with it."""
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        frame = _read_frame(table, name, faults)
    else:
        frame = _read_array(table, name, faults)
    if frame is not None and not frame.size:
        faults.add(
            f"{name} is empty: it has {_shape(frame)}. Give at least one spot and one type."
        )
        return None
    return frame


def _read_frame(table: pd.DataFrame, name: str, faults: Faults) -> pd.DataFrame | None:
    import pandas as pd

    texts = [column for column, dtype in table.dtypes.items() if dtype.kind not in "biuf"]
    if texts:
        faults.add(
            f"{name} has columns that are not numbers: {_some(texts)}. Every column must be a "
            "cell type with its proportions. Leave the others out, make names of spots the "
            "index, or convert with .astype(float)."
        )
        return None
    for axis, kind in ((table.columns, "types"), (table.index, "spots")):
        if not axis.is_unique:
            faults.add(
                f"{name} has {kind} of the same name: {_some(axis[axis.duplicated()].unique())}. "
                "Every name must occur once. Rename them, or give plain arrays in the same order."
            )
    values = table.to_numpy()
    if values.dtype.kind not in "biuf":  # columns with pandas' own missing values
        values = table.to_numpy(dtype=np.float64, na_value=np.nan)
    return pd.DataFrame(values, index=table.index, columns=table.columns)


def _read_array(table: Any, name: str, faults: Faults) -> pd.DataFrame | None:
    import pandas as pd

    try:
        values = np.asarray(table)
    except (TypeError, ValueError):  # rows of unequal length; a tensor that lies on a GPU
        values = np.empty(0, dtype=object)
    if values.ndim == 2 and values.dtype.kind in "biuf":
        return pd.DataFrame(values)
    of = f" of shape {tuple(table.shape)}" if hasattr(table, "shape") else ""
    faults.add(
        f"{name} must be a DataFrame or an array of numbers with the two dimensions spots and "
        f"types, but got a {type(table).__name__}{of}. Give one row a spot and one column a type."
    )
    return None


def _share_names(
    true: pd.DataFrame, guess: pd.DataFrame, *, names_of_truth: bool, faults: Faults
) -> None:
    """Give a plain array the names of the other table, in its order."""
    if true.shape != guess.shape:
        faults.add(
            f"truth has {_shape(true)}, but predicted has {_shape(guess)}. A plain array must "
            "have the shape of the other table. Give two DataFrames to match them by name."
        )
        return
    source, target = (true, guess) if names_of_truth else (guess, true)
    target.index, target.columns = source.index, source.columns


def _check_drop(
    dropped: list[object], true: pd.DataFrame, guess: pd.DataFrame, faults: Faults
) -> None:
    known = list(dict.fromkeys([*true.columns, *guess.columns]))
    for name in dropped:
        if name not in known:
            faults.add(
                f"drop names {_quoted(name)}, which neither truth nor predicted has."
                f"{nearest(name, map(str, known))} Allowed: {_some(known, len(known))}."
            )
    if dropped and not _kept(true, dropped).any():
        faults.add(
            f"drop leaves none of truth's types, {_some(true.columns)}. Name fewer of them."
        )


def _kept(table: pd.DataFrame, dropped: list[object]) -> npt.NDArray[np.bool_]:
    return np.array([name not in dropped for name in table.columns], dtype=bool)


def _check_values(
    table: pd.DataFrame, name: str, faults: Faults, *, highest: float | None = None
) -> None:
    values = table.to_numpy()
    finite = np.isfinite(values)
    if not finite.all():
        faults.add(
            f"{name} has {_found(table, ~finite)}: NaN or infinite. Every proportion must be a "
            "finite number. Leave such spots out, or put 0 where none is meant."
        )
    negative = finite & (values < 0)
    if negative.any():
        faults.add(
            f"{name} has {_found(table, negative)}: below 0. Proportions are 0 or more. Give "
            "proportions, not logarithms or z-scores."
        )
    if highest is not None and (above := finite & (values > highest + _ROUNDING)).any():
        faults.add(
            f"{name} has {_found(table, above)}: above {highest:g}. Proportions lie between 0 "
            "and 1. Divide each row by its sum."
        )


def _check_names(
    true: Iterable[object],
    guess: Iterable[object],
    kind: Literal["types", "spots"],
    faults: Faults,
) -> None:
    in_true, in_guess = dict.fromkeys(true), dict.fromkeys(guess)
    missing = [name for name in in_true if name not in in_guess]
    extra = [name for name in in_guess if name not in in_true]
    if not missing and not extra:
        return
    found = [f"lacks {_some(missing)}"] if missing else []
    found += [f"has {_some(extra)}, which truth lacks"] if extra else []
    hint = {
        "types": "Rename them, or leave types out with drop.",
        "spots": "Select the same spots of both, or give plain arrays in the same order.",
    }[kind]
    faults.add(
        f"The {kind} of predicted are not those of truth: predicted {' and '.join(found)}. "
        f"Both must have the same {kind}, in any order. {hint}"
    )


def _shape(table: pd.DataFrame) -> str:
    return f"{table.shape[0]} spots x {table.shape[1]} types"


def _found(table: pd.DataFrame, mask: npt.NDArray[np.bool_]) -> str:
    """Say how many values a mask marks, and which is the first."""
    row, column = np.argwhere(mask)[0]
    count = int(mask.sum())
    number = f"{count} bad values, the first" if count > 1 else "a bad value,"
    spot, cell_type = _quoted(table.index[row]), _quoted(table.columns[column])
    return f"{number} {table.to_numpy()[row, column]:.7g} at spot {spot}, type {cell_type}"


def _some(names: Iterable[object], shown: int = _SHOWN) -> str:
    every = list(names)
    more = len(every) - shown
    listed = ", ".join(_quoted(name) for name in every[:shown])
    return f"{listed} and {more} more" if more > 0 else listed


def _quoted(name: object) -> str:
    return repr(name.item() if isinstance(name, np.generic) else name)
