"""What report, summary and methods paragraph of a confirmed study say, and of what."""

from __future__ import annotations

import re
from html import unescape

import pytest

from scvitune.results import render_report, summarise
from scvitune.results._methods import describe_methods

SCOPE = (
    "All trainings share the split, so this speaks of other seeds on these 10 test cells, not of "
    "other cells."
)


@pytest.fixture
def confirmed(small_run):
    """Trial 00001 wins over 3 seeds by another gain than in the search, where it was 8 to 10."""
    small_run.settings(confirm={"top_k": 1, "seeds": 3})
    for seed in (1, 2, 3):
        for trial_id, value in (("00000", 14.0), ("00001", 12.0)):
            value += 0.1 * seed if trial_id == "00000" else 0.2 * seed
            small_run.confirm(trial_id, seed, elbo_validation=value, elbo_test=value + 1)
    return small_run


def page(builder) -> str:
    """The report as it is read, without its figures."""
    html = re.sub(
        r"<script.*?</script>|<style.*?</style>", "", render_report(builder.read()), flags=re.S
    )
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_it_is_said_that_it_speaks_of_seeds_and_not_of_other_cells(confirmed) -> None:
    report, methods = page(confirmed).split("For your methods section")
    assert report.count(SCOPE) == 1
    assert methods.count(SCOPE) == 1
    assert summarise(confirmed.read()).count(SCOPE) == 1


def test_where_no_cells_were_held_out_none_are_counted(confirmed) -> None:
    confirmed.settings(confirm={"top_k": 1, "seeds": 3}, split={"train": 90, "validation": 10})
    assert "other seeds on these cells, not of other cells." in summarise(confirmed.read())


def test_the_interval_over_cells_stays_in_the_methods_paragraph(confirmed) -> None:
    before = describe_methods(confirmed.read()).text
    assert "interval" not in before
    confirmed.judge_cells("00001", [8.0, 8.5, 9.0, 9.5], [10.0, 10.4, 11.1, 11.5])
    text = describe_methods(confirmed.read()).text
    assert (
        "In the search, each trained once, it was 2.00 nats per cell lower (better, 19 %; 95 % "
        "interval over 4 test cells: 1.87 to 2.13), paired over cells (Student's t)."
    ) in text
