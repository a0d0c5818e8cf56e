"""Parts of messages about data that several files say alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scvitune.errors import nearest

_SHOWN = 5
"""So many names are listed before a message says how many more there are."""

_SHOWN_KEYS = 30


def name_some(names: Sequence[object], shown: int = _SHOWN) -> str:
    """Return the first few names, quoted, and how many more there are."""
    listed = ", ".join(repr(str(name)) for name in names[:shown])
    more = len(names) - shown
    return f"{listed} and {more} more" if more > 0 else listed


def missing_key(argument: str, key: object, place: str, there: Iterable[object]) -> str:
    """Return the fault of a key that is not in ``adata.obs`` or ``adata.layers``."""
    names = [str(name) for name in there]
    close = nearest(key, names)
    shown = _SHOWN if close else _SHOWN_KEYS
    known = f"It has {name_some(names, shown)}." if names else "It is empty."
    return f"{argument} {key!r} is not in {place}.{close} {known}"
