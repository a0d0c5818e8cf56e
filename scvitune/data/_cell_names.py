"""The names of a study's cells, and which of them trained, validated and tested."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scvitune._disk import write_whole
from scvitune.contracts import Split
from scvitune.errors import StudyError


def save_cell_names(names: Iterable[object], path: Path, *, split: Split | None) -> None:
    """Write a parquet table with a row a cell, whole or not at all.

    Columns are ``cell``, its name, and ``split``: ``train``, ``validation`` or ``test``.

    Parameters
    ----------
    names
        In the order of the prepared cells.
    path
        The file; its folder must exist.
    split
        None: they were not split, and there is no such column.
    """
    import pandas as pd

    table = pd.DataFrame({"cell": pd.Series(map(str, names), dtype=object)})
    if split is not None:
        parts = np.empty(len(table), dtype=object)
        for part in ("train", "validation", "test"):
            parts[getattr(split, part)] = part
        table["split"] = parts
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    write_whole(path, content.getbuffer())


def load_cell_names(path: Path, n_cells: int) -> list[str] | None:
    """Return the names that `save_cell_names` wrote; None where it did not, in an older run.

    Parameters
    ----------
    path
        The file.
    n_cells
        How many it must name.

    Raises
    ------
    StudyError
        If the file cannot be read, or is one of another number of cells.
    """
    import pandas as pd

    if not path.exists():
        return None
    try:
        names = [str(name) for name in pd.read_parquet(path, columns=["cell"])["cell"]]
    except Exception as error:  # pyarrow has many kinds, for a file that is no parquet alone
        raise StudyError(
            f"{path} cannot be read ({type(error).__name__}). Copy it again from where the study "
            "ran, or delete it: cells are named by their numbers then."
        ) from error
    if len(names) != n_cells:
        raise StudyError(
            f"{path} names {len(names)} cells, but the study has {n_cells}: it is of another "
            "study. Delete it: cells are named by their numbers then."
        )
    return names
