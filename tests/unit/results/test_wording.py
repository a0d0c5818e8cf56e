from __future__ import annotations

import math

import pytest

from scvitune._durations import format_duration
from scvitune.results import _wording as wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1256.034, "1256.0"),
        (-9.87654321, "-9.8765"),
        (0.0012345678, "0.0012346"),
        (0, "0"),
        (99999.5, "100000"),
        (1234567.0, "1.2346e+06"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert wording.format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "parts", "mode"),
    [
        ("elbo_validation", ("elbo", "validation"), "min"),
        ("marginal_ll_test", ("marginal_ll", "test"), "max"),
        ("scib_total", ("scib_total", ""), "max"),
        ("proportion_jsd_test", ("proportion_jsd", "test"), "min"),
        ("my_own", ("my_own", ""), None),
    ],
)
def test_metrics(name: str, parts: tuple[str, str], mode: str | None) -> None:
    assert wording.split_metric(name) == parts
    assert wording.metric_words(name).mode == mode


def test_differences_name_their_direction() -> None:
    assert (
        wording.describe_difference(200.0, 190.0, name="elbo_test", mode="min")
        == "10.0 nats per cell lower (better, 5 %)"
    )
    assert (
        wording.describe_difference(0.5, 0.4, name="scib_total", mode="max")
        == "0.1 lower (worse, 20 %)"
    )
    assert wording.describe_difference(0.0, 1.0, name="own", mode=None) == "1.00 higher"
    assert wording.describe_difference(1.0, 1.0, name="own", mode="min") == "no difference"


def test_capitals_inside_a_sentence() -> None:
    assert wording.in_sentence("Negative ELBO") == "negative ELBO"
    assert wording.in_sentence("KL divergence") == "KL divergence"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0344, "3.4 %"), (0.2, "20 %"), (0.996, "100 %"), (3.5, "350 %"), (12.34, "1,234 %")],
)
def test_percent_has_no_exponent(share: float, text: str) -> None:
    assert wording.format_percent(share) == text


def test_a_gain_of_more_than_all() -> None:
    text = wording.describe_difference(0.1, 0.45, name="nmi_test", mode="max")
    assert text == "0.35 higher (better, 350 %)"


@pytest.mark.parametrize(
    ("value", "text"), [(62.0, "62"), (1234.56, "1,235"), (20400.0, "20,400"), (9999.7, "10,000")]
)
def test_amounts_have_no_exponent(value: float, text: str) -> None:
    assert wording.format_amount(value) == text
