"""A search space from what a user writes, with all faults at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from scvitune.config import read_number
from scvitune.contracts import (
    Choice,
    Domain,
    FloatRange,
    Hyperparameter,
    IntRange,
    SearchSpace,
    Value,
)
from scvitune.errors import Faults, InputError, nearest
from scvitune.spaces._conditions import BROKEN, settle_conditions
from scvitune.spaces._declaring import Declared
from scvitune.spaces._domains import build_choice, build_float_range, build_int_range
from scvitune.spaces._ray_domains import from_ray_domain, is_ray_domain
from scvitune.spaces._values import is_among, plain
from scvitune.spaces._yaml_form import domain_from_yaml

_LONGEST_NAME = 100

_NESTED = ("model_params", "train_params", "plan_kwargs")
"""The groups of `scvi.autotune`'s form; the names in them are flat here."""


def parse_space(spec: Mapping[str, Any], faults: Faults | None = None) -> SearchSpace:
    """Return the search space that a mapping describes.

    Parameters
    ----------
    spec
        Hyperparameter -> a plain value (held constant), a domain of ``ray.tune``, a mapping with
        ``type`` as in YAML, ``{"grid_search": [...]}``, or what `scvitune.spaces.ordered`,
        `conditional`, `mutable` and `structural` return. The nested form of ``scvi.autotune``
        (``model_params``, ``train_params``, ``plan_kwargs``) is flattened.
    faults
        Gets what is wrong, instead of an error. Then a choice without values stands for each
        domain that cannot be read, so that the rest of the space can be checked too.

    Returns
    -------
    The space, in the order given, except that a hyperparameter comes after those that it depends
    on.

    Raises
    ------
    scvitune.errors.InputError
        With all faults of all hyperparameters; with ``faults`` only if it is no mapping.
    """
    if isinstance(spec, SearchSpace):
        return spec
    if not isinstance(spec, Mapping):
        raise InputError(
            f"space must be a mapping of names to values or domains, but is {spec!r:.80}."
        )
    found = Faults() if faults is None else faults
    hyperparameters: dict[str, Hyperparameter] = {}
    constants: dict[str, Value] = {}
    for name, written, group in _flatten(spec, "", found):
        if name in hyperparameters or name in constants:
            found.add(
                f"{name!r} is there twice, the second time in {group or 'space'!r}. Remove one."
            )
            continue
        parsed = _parse_one(name, written, found)
        if isinstance(parsed, Hyperparameter):
            hyperparameters[name] = parsed
        else:
            constants[name] = parsed
    ordered = settle_conditions(list(hyperparameters.values()), constants, found)
    if faults is None:
        found.raise_if_any()
    return SearchSpace(ordered, constants)


def _flatten(
    spec: Mapping[Any, Any], group: str, faults: Faults
) -> Iterator[tuple[str, Any, str]]:
    for name, written in spec.items():
        if name in _NESTED:
            if isinstance(written, Mapping):
                yield from _flatten(written, str(name), faults)
            elif written is not None:
                faults.add(
                    f"space.{name} must be a mapping of hyperparameters, but is {written!r:.80}."
                )
        elif not isinstance(name, str) or not name.isidentifier() or len(name) > _LONGEST_NAME:
            faults.add(
                f"{name!r:.80} cannot be a hyperparameter's name, which is made of letters, "
                f"digits and underscores, at most {_LONGEST_NAME}, such as 'n_latent'."
            )
        else:
            yield name, written, group


def _parse_one(name: str, written: Any, faults: Faults) -> Hyperparameter | Value:
    """Return what is searched or held constant; where that is a fault, a stand-in."""
    what = f"space.{name}"
    declared = isinstance(written, Declared)
    mutable: bool | None = None
    when: dict[str, tuple[Value, ...]] = {}
    while isinstance(written, Declared):
        mutable = _join_mutable(mutable, written.mutable, what, faults)
        _note_conditions(when, written.when, what, faults)
        written = written.domain
    if isinstance(written, Mapping) and "type" in written:
        mutable = _join_mutable(mutable, written.get("mutable"), what, faults)
        _note_conditions(when, written.get("when"), what, faults)
    try:
        _refuse_bare_range(written, what)
        domain = _parse_domain(written, what)
        if domain is not None:
            return Hyperparameter(name, domain, when, mutable)
        value = plain(written, what=what)
    except InputError as error:
        faults.extend(error)
        return Hyperparameter(name, BROKEN, when, mutable)
    if declared:
        faults.add(
            f"{what}: conditional, mutable and structural take a domain, but got the value "
            f"{value!r:.80}. Give it plainly to hold it constant."
        )
    return value


def _refuse_bare_range(written: Any, what: str) -> None:
    """Raise for a list or tuple of two numbers, which may be meant as the ends of a range."""
    if not isinstance(written, (list, tuple)) or len(written) != 2:
        return
    ends = sorted(n for n in map(read_number, written) if n is not None and math.isfinite(n))
    if len(ends) < 2 or ends[0] == ends[1]:
        return
    low, high = ends
    ways, kind, last = [], "uniform", high
    if isinstance(low, int) and isinstance(high, int):
        kind, last = "randint", high + 1
        ways.append(
            f"ray.tune.randint({low}, {last}) (whole numbers from {low} to {high}: the upper end "
            "is excluded)"
        )
    if low > 0:
        kind = kind if ways else "loguniform"
        ways.append(f"ray.tune.loguniform({low!r}, {high!r}) (on a logarithmic scale)")
    ways.append(f"ray.tune.uniform({low!r}, {high!r})")
    listed = " or ".join(filter(None, [", ".join(ways[:-1]), ways[-1]]))
    raise InputError(
        f"{what} is a {type(written).__name__} ({written!r:.80}), which is no value. To search "
        f"the range write {listed}, in YAML {{type: {kind}, low: {low!r}, high: "
        f"{last!r}}} and the like. To choose among the two write ray.tune.choice("
        f"[{written[0]!r}, {written[1]!r}]), in YAML {{type: choice, values: [...]}}."
    )


def _join_mutable(before: bool | None, says: Any, what: str, faults: Faults) -> bool | None:
    if says is None:
        return before
    if not isinstance(says, bool):
        faults.add(f"{what}: mutable must be true, false or null, but is {says!r:.80}.")
        return before
    if before is not None and before != says:
        faults.add(f"{what} is declared both mutable and structural. Choose one.")
    return says


def _note_conditions(
    when: dict[str, tuple[Value, ...]], says: Any, what: str, faults: Faults
) -> None:
    if says is None:
        return
    if not isinstance(says, Mapping):
        faults.add(
            f"{what}: when must be a mapping of a hyperparameter to its values, "
            f"but is {says!r:.80}."
        )
        return
    for parent, allowed in says.items():
        listed = allowed if isinstance(allowed, (list, tuple)) else [allowed]
        values: list[Value] = []
        for value in listed:
            try:
                value = plain(value, what=f"{what}: when.{parent}")
            except InputError as error:
                faults.extend(error)
                continue
            if not is_among(value, values):
                values.append(value)
        if not listed:
            faults.add(f"{what}: when.{parent} lists no value. Give at least one.")
        if str(parent) in when:
            faults.add(f"{what}: there are two conditions on {parent!r}. Write one.")
        when[str(parent)] = tuple(values)


def _parse_domain(written: Any, what: str) -> Domain | None:
    """Return the domain, or None if it is a value."""
    if is_ray_domain(written):
        return from_ray_domain(written, what=what)
    if isinstance(written, Choice):
        return build_choice(written.values, ordered=written.ordered, what=what)
    if isinstance(written, FloatRange):
        return build_float_range(
            written.low, written.high, log=written.log, quantum=written.quantum, what=what
        )
    if isinstance(written, IntRange):
        return build_int_range(
            written.low, written.high, log=written.log, quantum=written.quantum, what=what
        )
    if not isinstance(written, Mapping):
        return None
    if "type" in written:
        return domain_from_yaml(written, what=what)
    if set(written) == {"grid_search"}:
        return build_choice(written["grid_search"], ordered=False, what=what)
    hint = "".join(nearest(key, ("type", "grid_search")) for key in written)
    raise InputError(
        f"{what}: a mapping needs the key 'type' (uniform, choice, ...), but has only "
        f"{sorted(map(str, written))}.{hint}"
    )
