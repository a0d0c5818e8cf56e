"""Python's cyclic garbage collector, kept out of the way where there is no garbage."""

from __future__ import annotations

import atexit
import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Collect no cycles within the block.

    Importing torch and Ray makes a million objects, all of them to stay; looking through them
    again and again takes a fifth of the time of these imports.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def keep_what_is_there() -> None:
    """Never look for garbage among the objects that exist now: for processes of our own.

    Collecting later is cheaper, and so is the end of the process, where Python goes through
    everything once more (0.8 s with torch and Ray).
    """
    gc.freeze()


@functools.cache
def end_quickly() -> None:
    """Let this process end without looking for garbage once more.

    With torch, Ray and scvi-tools loaded that takes Python one to two seconds, for memory that the
    operating system takes back anyway.
    """
    atexit.register(gc.freeze)


@contextmanager
def garbage_collected() -> Iterator[None]:
    """Leave no unreachable cycles of the block's objects behind.

    Older objects are left out of it: with torch, Ray and scvi-tools there are a million, and
    looking through them takes half a second.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
