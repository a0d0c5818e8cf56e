"""Hypothesis strategies of domains and whole spaces, conditions included."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace

words = st.text("abcdefghij_", min_size=1, max_size=6)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(-1e6, 1e6, allow_nan=False),
    words,
)


@st.composite
def float_ranges(draw: Any) -> FloatRange:
    log = draw(st.booleans())
    quantum = draw(st.none() | st.sampled_from([0.1, 0.05, 0.25, 2.0, 1e-3]))
    if quantum is not None:
        first = draw(st.integers(1 if log else -50, 100))
        last = first + draw(st.integers(1, 100))
        step = Decimal(repr(quantum))
        return FloatRange(float(step * first), float(step * last), log=log, quantum=quantum)
    low = draw(st.floats(1e-9, 1e3) if log else st.floats(-1e3, 1e3))
    return FloatRange(low, low + draw(st.floats(1e-6, 1e3)) + abs(low), log=log)


@st.composite
def int_ranges(draw: Any) -> IntRange:
    log = draw(st.booleans())
    quantum = draw(st.none() | st.integers(2, 64))
    first = draw(st.integers(1 if log else -50, 100))
    if quantum is None:
        return IntRange(first, first + draw(st.integers(1, 1000)), log=log)
    last = first + draw(st.integers(1, 20))
    return IntRange(first * quantum, last * quantum + 1, log=log, quantum=quantum)


choices = st.builds(
    Choice, st.lists(values, min_size=1, max_size=5, unique=True).map(tuple)
) | st.builds(
    lambda numbers: Choice(tuple(sorted(numbers)), ordered=True),
    st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True),
)

domains = st.one_of(float_ranges(), int_ranges(), choices)


@st.composite
def spaces(draw: Any) -> SearchSpace:
    names = draw(st.lists(words, max_size=6, unique=True))
    names = [f"h{name}" for name in names]
    hyperparameters: list[Hyperparameter] = []
    constants: dict[str, Any] = {}
    for name in names:
        if draw(st.integers(0, 3)) == 0:
            constants[name] = draw(values)
            continue
        parents = [h for h in hyperparameters if isinstance(h.domain, Choice)]
        when = {}
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            allowed = st.lists(
                st.sampled_from(parent.domain.values), min_size=1, max_size=3, unique=True
            )
            when[parent.name] = tuple(draw(allowed))
        mutable = draw(st.sampled_from([None, True, False]))
        hyperparameters.append(Hyperparameter(name, draw(domains), when, mutable))
    return SearchSpace(tuple(hyperparameters), constants)
