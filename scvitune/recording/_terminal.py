"""Writing to a terminal that may break."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

_BROKEN = (OSError, ValueError, UnicodeError)
"""What writing to a closed, full or odd terminal raises."""


def write_safely(console: Console, write: Callable[[], object]) -> bool:
    """Call a function that writes to a console and return whether the console still works."""
    try:
        write()
    except _BROKEN:
        return False
    except SystemExit:
        # rich answers a closed pipe by leaving the program, with itself made quiet
        if not console.quiet:
            raise
        return False
    return True
