"""Types of configuration fields: each says itself what is allowed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from scvitune._config._numbers import read_number
from scvitune._config._yaml_text import plain_value
from scvitune._home import expand_home
from scvitune.errors import Faults, InputError, nearest, one_of

FAULT = "scvitune"
"""Type of the validation errors whose messages are written here."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(
    r"(\d+(?:\.\d*)?)\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)\.?"
)
_LONGEST_NAME = 200
_EXTRA_NAME_CHARACTERS = "._-+="


def fault(*messages: str) -> PydanticCustomError:
    """Return a validation error with just these messages."""
    said = {"message": " ".join(messages), "messages": messages}
    return PydanticCustomError(FAULT, "{message}", said)


def messages_of(error: PydanticCustomError) -> tuple[str, ...]:
    """Return the messages of an error made by `fault`."""
    found: tuple[str, ...] = (error.context or {})["messages"]
    return found


def shown(value: Any) -> str:
    """Return a value as messages show it."""
    return "nothing (null)" if value is None else f"{value!r:.80}"


def _bounds(above: float | None, least: float | None, below: float | None) -> str:
    words = []
    if above is not None:
        words.append(f"above {above:g}")
    if least is not None:
        words.append(f"of at least {least:g}")
    if below is not None:
        words.append(f"below {below if isinstance(below, int) else format(below, 'g')}")
    return "".join(f" {word}" for word in [" and ".join(words)] if word)


def _number(
    kind: str,
    *,
    whole: bool,
    optional: bool,
    above: float | None,
    least: float | None,
    below: float | None,
    advise: Callable[[Any], str] = lambda value: "",
) -> BeforeValidator:
    wanted = f"must be {kind}{_bounds(above, least, below)}{' or null' if optional else ''}"

    def check(value: Any) -> int | float | None:
        if value is None and optional:
            return None
        number = read_number(value)
        inside = (
            number is not None
            and math.isfinite(number)
            and (not whole or number == int(number))
            and (above is None or number > above)
            and (least is None or number >= least)
            and (below is None or number < below)
        )
        if number is None or not inside:
            raise fault(f"{wanted}, but is {shown(value)}.{advise(value)}")
        return int(number) if whole else number

    return BeforeValidator(check)


def number(
    *,
    optional: bool = False,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
) -> BeforeValidator:
    """Return the check of a finite number within bounds."""
    return _number(
        "a number",
        whole=False,
        optional=optional,
        above=above,
        least=least,
        below=below,
    )


def seconds(*, optional: bool = False, above: float | None = None) -> BeforeValidator:
    """Return the check of a number of seconds, which reads a time in words to say how many."""

    def advise(value: Any) -> str:
        if not isinstance(value, str):
            return ""
        found = _TIME.fullmatch(value.strip().lower())
        if found is None:
            return " It is in seconds."
        unit = next(unit for unit in _SECONDS if found[2].startswith(unit))
        return f" It is in seconds: {float(found[1]) * _SECONDS[unit]:g}."

    return _number(
        "a number",
        whole=False,
        optional=optional,
        above=above,
        least=None,
        below=None,
        advise=advise,
    )


def number_or_word(word: str, *, least: float) -> BeforeValidator:
    """Return the check of a finite number from ``least`` on, or of one word."""

    def check(value: Any) -> float | str:
        if value == word:
            return word
        found = read_number(value)
        if found is None or not math.isfinite(found) or found < least:
            raise fault(
                f"must be a number of at least {least:g}, or {word!r}, but is {shown(value)}."
                + (nearest(value, [word]) if isinstance(value, str) else "")
            )
        return float(found)

    return BeforeValidator(check)


def whole_number(
    *, optional: bool = False, least: int | None = None, below: int | None = None
) -> BeforeValidator:
    """Return the check of a whole number within bounds; ``1e2`` is one."""
    return _number(
        "a whole number", whole=True, optional=optional, above=None, least=least, below=below
    )


def _check_text(value: Any, *, optional: bool = False) -> str | None:
    if value is None and optional:
        return None
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        quotable = value is not None and not isinstance(value, Collection)
        remedy = f' Put it in quotes: "{value!s:.80}".' if quotable else ""
        raise fault(
            f"must be text{' or null' if optional else ''}, but is {shown(value)}.{remedy}"
        )
    if not value.strip():
        raise fault(f"must be text that is not empty, but is {value!r}.")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise fault(f"must not hold control characters or line breaks, but is {value!r:.80}.")
    return value


def text(*, optional: bool = False) -> BeforeValidator:
    """Return the check of text that is not empty; a `pathlib.Path` counts as text."""
    return BeforeValidator(lambda value: _check_text(value, optional=optional))


def text_list(*, empty: bool = False) -> BeforeValidator:
    """Return the check of a list of different texts, or null, with ``empty`` for an empty one."""

    def check(value: Any) -> tuple[str | None, ...] | None:
        if value is None:
            return () if empty else None
        if not isinstance(value, (list, tuple)):
            raise fault(f"must be a list ([a, b]) or null, but is {shown(value)}.")
        wrong: list[str] = []
        parts: list[str | None] = []
        for part in value:
            try:
                parts.append(_check_text(part))
            except PydanticCustomError as error:
                wrong += messages_of(error)
        repeated = sorted({str(part) for part in parts if parts.count(part) > 1})
        if repeated:
            wrong.append(f"must not name anything twice, but repeats {one_of(repeated)}.")
        if wrong:
            raise fault(*wrong)
        return tuple(parts)

    return BeforeValidator(check)


def flag() -> BeforeValidator:
    """Return the check of true or false."""

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise fault(f"must be true or false, but is {shown(value)}.")
        return value

    return BeforeValidator(check)


def one_word_of(*options: str, optional: bool = True) -> BeforeValidator:
    """Return the check of one of the given words, or null."""

    def check(value: Any) -> str | None:
        if value is None and optional:
            return None
        if isinstance(value, str) and value in options:
            return str(value)
        raise fault(
            f"must be {one_of(options)}{' or null' if optional else ''}, but is {shown(value)}."
            f"{nearest(value, options)}"
        )

    return BeforeValidator(check)


def run_name() -> BeforeValidator:
    """Return the check of a run's name, which becomes a directory's; or null."""

    def check(value: Any) -> str | None:
        name = _check_text(value, optional=True)
        if name is None:
            return None
        bad = sorted({c for c in name if not (c.isalnum() or c in _EXTRA_NAME_CHARACTERS)})
        if bad:
            raise fault(
                f"must be made of letters, digits and {' '.join(_EXTRA_NAME_CHARACTERS)} "
                f"(it names a directory), but {name!r:.80} holds {one_of(bad)}."
            )
        if name[0] in ".-+=":
            raise fault(f"must begin with a letter, a digit or _, but is {name!r:.80}.")
        if len(name.encode()) > _LONGEST_NAME:
            raise fault(
                f"must not be longer than {_LONGEST_NAME} bytes, but has {len(name.encode())}."
            )
        return name

    return BeforeValidator(check)


def directory() -> BeforeValidator:
    """Return the check of a directory in a file system."""

    def check(value: Any) -> str | None:
        path = _check_text(value)
        if path is not None and "://" in path:
            raise fault(
                f"must be a directory in a file system, but is the address {path!r:.80}. Mount "
                "it, or write the runs to a local directory and copy them afterwards."
            )
        found = expand_home(path or "")
        if found.startswith("~"):
            raise fault(
                f"begins with a home that is not known here: {path!r:.80}. Write the whole path, "
                f"or ./{path!s:.80} for a directory of that name."
            )
        return found

    return BeforeValidator(check)


def file(*, optional: bool = False) -> BeforeValidator:
    """Return the check of a file's path or a data set's name; whether it is there is seen later.

    A ``~`` that is nobody's home is said where the file is opened.
    """

    def check(value: Any) -> str | None:
        path = _check_text(value, optional=optional)
        return None if path is None else expand_home(path)

    return BeforeValidator(check)


def plain_mapping() -> BeforeValidator:
    """Return the check of a mapping that JSON can hold, or null."""

    def check(value: Any) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise fault(f"must be a mapping of names to values, but is {shown(value)}.")
        plain: dict[str, Any] = _plain(value)
        return plain

    return BeforeValidator(check)


def plain_mappings() -> BeforeValidator:
    """Return the check of a list of mappings that JSON can hold."""

    def check(value: Any) -> tuple[dict[str, Any], ...]:
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(part, Mapping) for part in value
        ):
            raise fault(
                f"must be a list of configurations ([{{lr: 0.001}}]), but is {shown(value)}."
            )
        return tuple(_plain(part) for part in value)

    return BeforeValidator(check)


def _plain(value: Any) -> Any:
    faults = Faults()
    plain = plain_value(value, where="its value", faults=faults)
    try:
        faults.raise_if_any()
    except InputError as error:
        raise fault(*(f"is wrong: {message}" for message in error.faults)) from error
    return plain
