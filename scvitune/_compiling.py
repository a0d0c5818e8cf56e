"""Functions compiled by numba at run time, kept in its cache; without numba, none."""

from __future__ import annotations

import functools
import hashlib
import importlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

EXACT: dict[str, Any] = {
    "fastmath": {"contract"},
    "error_model": "numpy",
    "nogil": True,
    "boundscheck": False,
}
"""Options of ``numba.njit``: fast, but sums stay in the order in which they are written."""

ANY_ORDER: dict[str, Any] = EXACT | {"fastmath": {"contract", "reassoc", "nsz"}}
"""The same where sums may be taken in any order, so that loops over them become vectors."""


@functools.cache
def load_kernels(module: str) -> Any | None:
    """Import a module of compiled functions when it is first wanted.

    The very first time that compiles for seconds; later processes load it from numba's cache,
    which lies in the package's ``__pycache__``, else in the user's cache folder, or in
    ``NUMBA_CACHE_DIR``; where none can be written to, each process compiles for itself.

    Returns
    -------
    The module, or None if numba cannot be imported, is switched off or fails (with a warning).
    """
    try:
        import numba
    except ImportError:
        return None
    if numba.config.DISABLE_JIT:
        return None
    try:
        return importlib.import_module(module)
    except numba.core.errors.NumbaError as error:
        warnings.warn(f"numba cannot compile {module}, it is slower: {error}", stacklevel=2)
        return None


def compile_kernel(
    function: Callable[..., Any],
    signatures: Any,
    *,
    options: dict[str, Any],
    calls: Iterable[str] = (),
) -> Any:
    """Compile a function, or load it from numba's cache where there is one.

    Parameters
    ----------
    signatures
        One numba signature or a list of them.
    options
        Of ``numba.njit``.
    calls
        Source files of other modules whose compiled functions it calls.
    """
    from numba import njit

    try:
        # The cache notices changes of the function's own file alone, but keeps its entries by
        # this name; this file has the options.
        sources = [Path(path).read_bytes() for path in (__file__, *calls)]
        digest = hashlib.sha256(b"".join(sources)).hexdigest()
        function.__qualname__ = f"{function.__name__}_{digest[:16]}"
        return njit(signatures, cache=True, **options)(function)
    except (RuntimeError, OSError):  # no folder that numba may write to, or a full one
        return njit(signatures, **options)(function)
