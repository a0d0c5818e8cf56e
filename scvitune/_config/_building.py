"""Plain values to configuration sections, gathering every fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from scvitune._config._fields import FAULT, shown
from scvitune._config._numbers import read_number
from scvitune._config._sections import Section
from scvitune._keywords import other_name, say_unit
from scvitune.errors import Faults, instead, nearest, nearest_name

S = TypeVar("S", bound=Section)


def section_fault(key: object, own: Iterable[str], places: Mapping[str, str], here: str) -> str:
    """Return what to say of a key that does not belong where it stands.

    Parameters
    ----------
    key
        The key.
    own
        The keys that belong here.
    places
        Every key of a configuration -> where it belongs, dotted (``search.num_samples``).
    here
        Where the key stands, dotted; empty at the top level.
    """
    own = tuple(own)
    written = f"{here}.{key!s:.80}" if here else f"{key!s:.80}"
    if str(key) in places:
        target = places[str(key)]
        section, _, _ = target.rpartition(".")
        where = f"in the section {section!r}" if section else "at the top level"
        return f"{written!r} stands in the wrong place: it belongs {where}, as {target!r}."
    meant = _other_key(key, places)
    if meant is not None:
        return f"Unknown key {written!r}. Did you mean {places[meant]!r}?{say_unit(meant)}"
    elsewhere = nearest_name(key, places)
    if elsewhere is not None and not nearest(key, own):
        return f"Unknown key {written!r}. Did you mean {places[elsewhere]!r}?"
    place = f"in the section {here!r}" if here else "at the top level"
    return f"Unknown key {written!r}.{instead(key, own, what=f'Allowed {place}')}"


def place_meant(key: object, own: Iterable[str], places: Mapping[str, str], here: str) -> str:
    """Return, dotted, what a key that does not belong where it stands was probably to set."""
    if str(key) in places:
        return places[str(key)]
    meant = _other_key(key, places)
    if meant is not None:
        return places[meant]
    name = nearest_name(key, own)
    if name is None:
        return here or str(key)
    return f"{here}.{name}" if here else name


def _other_key(key: object, places: Mapping[str, str]) -> str | None:
    """Return the key that goes by another name elsewhere; ``path`` is here the data's."""
    return other_name(str(key), [name for name in places if name != "path"])


def build_section(
    section: type[S],
    raw: Mapping[str, Any],
    *,
    prefix: str,
    faults: Faults,
    doubtful: set[str],
    stand_ins: Mapping[str, Any] | None = None,
) -> S | None:
    """Return the section made of these values, without those that are wrong; None if none can be.

    Parameters
    ----------
    section
        What to make.
    raw
        Known keys only.
    prefix
        What comes before a field's name in messages, such as ``search.``.
    faults
        Where faults go.
    doubtful
        Gets the names of fields that are not what was asked for.
    stand_ins
        What stands for fields that must be given, where they are missing or wrong.
    """
    try:
        return section.model_validate(dict(raw))
    except ValidationError as error:
        wrong = set()
        for part in error.errors(include_url=False):
            if not part["loc"]:
                continue
            key = str(part["loc"][0])
            wrong.add(key)
            if part["type"] == FAULT:
                for message in part["ctx"]["messages"]:
                    faults.add(f"{prefix}{key} {message}")
            elif part["type"] == "missing":
                faults.add(f"{prefix}{key} is missing. Give it a value.")
            else:
                faults.add(f"{prefix}{key} must not be {shown(part['input'])}.")
        right = {
            name: raw.get(name, field.default)
            for name, field in section.model_fields.items()
            if name not in wrong
        }
        crossing = list(section.cross_faults({k: _as_number(v) for k, v in right.items()}))
        for message in crossing:
            faults.add(prefix + message)
        doubtful |= section.model_fields.keys() if crossing else wrong
        stand_ins = {k: v for k, v in (stand_ins or {}).items() if k in wrong}
        try:
            kept = {k: v for k, v in raw.items() if k not in wrong}
            return section.model_validate(kept | stand_ins)
        except ValidationError:
            doubtful |= section.model_fields.keys()
            return None


def _as_number(value: Any) -> Any:
    number = read_number(value)
    return value if number is None else number


def field_names(section: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of a section's fields, in order."""
    return tuple(section.model_fields)
