"""What a study was started on: noticing that it is something else when the study goes on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scvitune.config import StudyConfig
from scvitune.contracts import PreparedData
from scvitune.data import prepare_anndata
from scvitune.errors import InputError
from scvitune.models import get_adapter

SETTINGS = "data_files"
"""Where study.yaml says what the files were like."""


def describe_data_files(config: StudyConfig) -> dict[str, dict[str, int]]:
    """Return path -> ``size`` in bytes and ``modified`` (Unix seconds) of the files of a study."""
    named = (config.data.path, config.data.reference) if config.data is not None else ()
    files = [Path(path).absolute() for path in named if path is not None and Path(path).is_file()]
    return {str(path): _describe(path) for path in files}


def _describe(path: Path) -> dict[str, int]:
    facts = path.stat()
    return {"size": facts.st_size, "modified": int(facts.st_mtime)}


def find_changed_files(settings: Mapping[str, Any], prepared: PreparedData) -> list[str]:
    """Return a sentence for each file that is another one now.

    Files that are no longer there are not missed: the prepared cells are all that is needed.

    Parameters
    ----------
    settings
        ``study.yaml``; of older versions without the files' sizes, and then nothing is found.
    """
    found = []
    for written, before in settings.get(SETTINGS, {}).items():
        path = Path(written)
        if not path.is_file() or (now := _describe(path)) == before:
            continue
        if now["size"] != before["size"]:
            what = f"has {now['size']} bytes, but had {before['size']} when the study was started"
        else:
            what = f"was written again, {_date(now)}, after the study was started"
        found.append(
            f"{path} {what}. The study goes on with the cells as they were then, prepared "
            f"in {prepared.directory}, fingerprint {prepared.fingerprint}. To tune on what the "
            "file holds now, start a new study."
        )
    return found


def _date(facts: Mapping[str, int]) -> str:
    return f"{datetime.fromtimestamp(facts['modified'], UTC):%Y-%m-%d %H:%M:%S} UTC"


def refuse_other_cells(adata: Any, config: StudyConfig, prepared: PreparedData) -> None:
    """Refuse an AnnData that a resumed study's best model could not be put on.

    Of spots nothing is checked: their model is trained on the prepared ones.

    Raises
    ------
    InputError
        If its fingerprint is not that of the study's cells.
    """
    if get_adapter(config.model).first_stage_prefix is not None:
        return
    found = prepare_anndata(adata, model=config.model).fingerprint
    if found != prepared.fingerprint:
        raise InputError(
            f"adata holds other cells than the study was started on: its fingerprint is {found}, "
            f"the study's is {prepared.fingerprint}. Give the same AnnData, set up in the same "
            "way, or none: the prepared cells are all that a resume needs. For other cells, start "
            "a new study."
        )
