"""Domains as numbers from 0 to 1."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scvitune.contracts import Choice, FloatRange, IntRange
from scvitune.searchers._neighbours import neighbour
from scvitune.searchers._unit_interval import (
    count_values,
    from_unit,
    index_of,
    to_unit,
    value_at,
)

LISTS = {
    "quniform": (FloatRange(0.1, 0.9, quantum=0.1), [round(0.1 * i, 1) for i in range(1, 10)]),
    "qloguniform": (FloatRange(0.05, 0.2, log=True, quantum=0.05), [0.05, 0.1, 0.15, 0.2]),
    "int": (IntRange(-2, 3), [-2, -1, 0, 1, 2]),
    "logint": (IntRange(1, 5, log=True), [1, 2, 3, 4]),
    "qint": (IntRange(8, 33, quantum=8), [8, 16, 24, 32]),
    "qlogint": (IntRange(16, 65, log=True, quantum=16), [16, 32, 48, 64]),
    "choice": (Choice((None, True, "nb", 3)), [None, True, "nb", 3]),
    "one": (IntRange(3, 4), [3]),
}
RANGES = {
    "uniform": FloatRange(-1.5, 2.0),
    "loguniform": FloatRange(1e-5, 1e-1, log=True),
}


@pytest.mark.parametrize(("domain", "values"), LISTS.values(), ids=LISTS)
def test_a_list_goes_there_and_back(domain, values):
    assert count_values(domain) == len(values)
    assert [value_at(domain, i) for i in range(len(values))] == values
    assert [index_of(domain, value) for value in values] == list(range(len(values)))
    assert [from_unit(domain, to_unit(domain, value)) for value in values] == values
    # Every place belongs to a value, the ends included, and every value has a place.
    cells = [from_unit(domain, unit) for unit in np.linspace(0, 1, 401)]
    assert list(dict.fromkeys(cells)) == values
    assert [type(value) for value in dict.fromkeys(cells)] == [type(value) for value in values]


@pytest.mark.parametrize("kind", ["int", "qint", "quniform", "choice"])
def test_values_without_a_scale_have_cells_of_one_size(kind):
    domain, values = LISTS[kind]
    n = 400 * len(values)
    counts = Counter(repr(from_unit(domain, (i + 0.5) / n)) for i in range(n))
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("domain", RANGES.values(), ids=RANGES)
def test_a_range_goes_there_and_back_within_its_bounds(domain):
    assert count_values(domain) is None
    assert from_unit(domain, 0.0) == domain.low
    assert from_unit(domain, 1.0) == domain.high
    for unit in np.linspace(0, 1, 11):
        assert to_unit(domain, from_unit(domain, unit)) == pytest.approx(unit, abs=1e-12)
    middle = 1e-3 if domain.log else 0.25
    assert from_unit(domain, 0.5) == pytest.approx(middle)


@pytest.mark.parametrize("step", [0.02, 0.5, 5.0])
@pytest.mark.parametrize("kind", sorted(set(LISTS) - {"one"}))
def test_a_neighbour_of_a_listed_value_is_another(kind, step):
    domain, values = LISTS[kind]
    rng = np.random.default_rng(0)
    for value in values:
        found = {repr(neighbour(domain, value, rng, step=step)) for _ in range(60)}
        assert repr(value) not in found
        assert found <= {repr(other) for other in values}
    near = {neighbour(IntRange(0, 100), 50, rng, step=0.02) for _ in range(200)}
    assert {49, 51} < near
    assert near < set(range(38, 63))


def test_a_neighbour_in_a_range_is_near_on_its_scale():
    rng = np.random.default_rng(0)
    domain = RANGES["loguniform"]
    found = [neighbour(domain, 1e-3, rng, step=0.05) for _ in range(500)]
    assert all(domain.low <= value <= domain.high for value in found)
    assert np.std(np.log10(found)) == pytest.approx(4 * 0.05, rel=0.15)
    edge = [neighbour(domain, domain.low, rng, step=0.05) for _ in range(100)]
    assert min(edge) >= domain.low
    assert len(set(edge)) == 100  # turned back at the end, not heaped upon it
