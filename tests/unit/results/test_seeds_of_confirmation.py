"""Few seeds, and seeds that were added after the first were told, are named for what they are."""

import pytest

from scvitune.results._cautions import find_cautions
from scvitune.results.methods import describe_methods


def notes_of(run):
    return " ".join(find_cautions(run.read()))


@pytest.fixture
def confirm(small_run):
    def give(seeds):
        small_run.settings(confirm={"top_k": 1, "seeds": max(seeds)})
        for seed in seeds:
            small_run.confirm("00000", seed, elbo_validation=10.0, elbo_test=11.0 + seed**0.5)
            small_run.confirm("00001", seed, elbo_validation=8.0, elbo_test=9.0 + seed**0.4)
        small_run.driver("end")
        return small_run

    return give


@pytest.mark.parametrize(("n_seeds", "few"), [(2, True), (4, True), (5, False)])
def test_few_seeds(confirm, n_seeds, few):
    run = confirm(range(1, n_seeds + 1))
    assert (f"{n_seeds} seeds are few" in notes_of(run)) == few
    assert "more were asked for" not in notes_of(run)
    assert "had been looked at" not in describe_methods(run.read()).text


def test_seeds_that_were_added(confirm):
    confirm(range(1, 3))
    run = confirm(range(3, 7))
    assert "told after 2 seeds, and more were asked for then, 6 in all" in notes_of(run)
    assert "The first 2 seeds had been looked at" in describe_methods(run.read()).text


def test_an_interrupted_confirmation_was_not_told(confirm, small_run):
    small_run.settings(confirm={"top_k": 1, "seeds": 5})
    small_run.confirm("00001", 1, elbo_validation=8.0, elbo_test=9.0)
    small_run.driver("interrupted")
    run = confirm(range(2, 6))
    assert "more were asked for" not in notes_of(run)


def test_where_the_default_leads_nothing_rests_on_them(small_run):
    small_run.settings(confirm={"top_k": 1, "seeds": 2})
    for seed in (1, 2):
        small_run.confirm("00000", seed, elbo_validation=5.0, elbo_test=6.0 + seed)
        small_run.confirm("00001", seed, elbo_validation=8.0, elbo_test=9.0 + seed)
    assert "are few" not in notes_of(small_run)
