"""The errors that users see, and the collector that gathers all faults before one is raised."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_LONG_LIST = 8
"""From so many names on, a suggestion stands without the others."""


class ScvituneError(Exception):
    """Base of every error that scvitune raises on purpose."""


class InputError(ScvituneError):
    """Something the user gave cannot work; nothing has been written or started.

    Parameters
    ----------
    faults
        One sentence a fault: what is wrong, what was given, what is allowed, what to do.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        if len(self.faults) == 1:
            message = self.faults[0]
        else:
            listed = "\n".join(f"  {i}. {fault}" for i, fault in enumerate(self.faults, 1))
            message = f"{len(self.faults)} things are wrong:\n{listed}"
        super().__init__(message)

    def __reduce__(self) -> tuple[type, tuple[tuple[str, ...], ...]]:
        return (type(self), (self.faults,))


class UnnamedFunctionError(InputError):
    """A run directory names code of the user's that the user has not named for it.

    Parameters
    ----------
    faults
        As of any `InputError`.
    functions
        What it names, each as ``package.module:function``.
    """

    def __init__(self, faults: str | Sequence[str], functions: Sequence[str] = ()) -> None:
        super().__init__(faults)
        self.functions = tuple(functions)

    def __reduce__(self) -> tuple[type, tuple[tuple[str, ...], ...]]:
        return (type(self), (self.faults, self.functions))


class StudyError(ScvituneError):
    """A study that had started could not be carried on; what it recorded so far is kept."""


class CheckpointError(StudyError):
    """A checkpoint that is there cannot be used: it is damaged, or of another version."""


class DiskFault(StudyError):
    """The run directory cannot be written: a resume goes on once it can be."""


class ScvituneWarning(UserWarning):
    """Something that works, but may not be what is wanted."""


def warn_user(message: str) -> None:
    """Warn, in the name of the line outside of this package that called it.

    Parameters
    ----------
    message
        What is to be known, and what to do.
    """
    package = str(Path(__file__).parent)
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ScvituneWarning, stacklevel=level)


class Faults:
    """Collects faults, so that a user hears of all of them at once.

    Examples
    --------
    >>> faults = Faults()
    >>> faults.add("low (3) must be below high (2).")
    >>> faults.raise_if_any()
    Traceback (most recent call last):
    scvitune.errors.InputError: low (3) must be below high (2).
    """

    def __init__(self) -> None:
        self._messages: list[str] = []

    def add(self, message: str) -> None:
        """Remember a fault, once: several checks may find the same.

        Parameters
        ----------
        message
            What is wrong, what was given, and what is allowed.
        """
        if message not in self._messages:
            self._messages.append(message)

    def extend(self, error: InputError) -> None:
        """Remember all faults of an error raised by a part.

        Parameters
        ----------
        error
            Of a part that was checked by itself.
        """
        for message in error.faults:
            self.add(message)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Remember the faults of an `InputError` raised in the block, and go on after it."""
        try:
            yield
        except InputError as error:
            self.extend(error)

    def __len__(self) -> int:
        return len(self._messages)

    def raise_if_any(self) -> None:
        """Raise one `InputError` with all faults, if there are any."""
        if self._messages:
            raise InputError(self._messages)


def nearest_name(name: object, options: Iterable[str]) -> str | None:
    """Return the closest of ``options`` if any is close to what was given.

    Letters that have changed places are nearer than any other slip: ``modle`` is ``model``.

    Parameters
    ----------
    name
        What was given.
    options
        What is allowed.
    """
    known = [str(option) for option in options]
    lowered = {option.lower(): option for option in known}
    swapped = [option for option in lowered if sorted(option) == sorted(str(name).lower())]
    close = swapped or difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def nearest(name: object, options: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest of ``options``, or an empty string.

    Parameters
    ----------
    name, options
        As in `nearest_name`.
    """
    close = nearest_name(name, options)
    return "" if close is None else f" Did you mean {close!r}?"


def instead(
    name: object, options: Iterable[object], *, what: str = "Allowed", meant: str | None = None
) -> str:
    """Return what to write instead: the nearest first, then what is allowed.

    A long list is left out where something is near: the suggestion would be lost in it.

    Parameters
    ----------
    name
        What was given.
    options
        What is allowed, in the order in which it is to be said.
    what
        What comes before the list.
    meant
        What was given, in words that are nearer to the options; None: ``name``.
    """
    listed = list(options)
    close = nearest(name if meant is None else meant, map(str, listed))
    if close and len(listed) > _LONG_LIST:
        return close
    return f"{close} {what}: {one_of(listed)}." if listed else close


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error of a name that is not among those that there are.

    Parameters
    ----------
    kind
        What it is the name of, as a noun.
    name
        What was given.
    known
        What is allowed.
    """
    return InputError(f"There is no {kind} {name!r}.{instead(name, known, what='There are')}")


def one_of(options: Iterable[object]) -> str:
    """Return the options as text for a message, quoted: ``'a', 'b' or 'c'``.

    Parameters
    ----------
    options
        What is allowed, in the order in which it is to be said.
    """
    quoted = [repr(option) for option in options]
    if len(quoted) < 2:
        return "".join(quoted)
    return ", ".join(quoted[:-1]) + " or " + quoted[-1]
