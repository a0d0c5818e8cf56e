"""How long something takes, in words."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a duration in words: ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_estimate(seconds: float) -> str:
    """Return an estimated duration in words: from ten minutes on without seconds."""
    if 600 <= round(seconds) < 3600:
        return f"{round(seconds / 60)} min" if seconds < 3570 else "1 h 0 min"
    return format_duration(seconds)
