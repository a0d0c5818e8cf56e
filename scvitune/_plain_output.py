"""What the package says on its way, as who runs a command is to read it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scvitune.errors import ScvituneWarning


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show our warnings as sentences: a line of our source tells nothing to who runs a command."""
    usual = warnings.formatwarning

    def plain(message: Any, category: type[Warning], *place: Any, **more: Any) -> str:
        if issubclass(category, ScvituneWarning):
            return f"Warning: {message}\n"
        return usual(message, category, *place, **more)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


class _Saying(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Say what takes long while data are prepared; in Python that is left to logging.

    Parameters
    ----------
    say
        Gets each line.
    """
    log, handler = logging.getLogger("scvitune.data"), _Saying(say)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
