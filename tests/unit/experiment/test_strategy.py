"""The choice of a searcher and a scheduler, rule by rule."""

import pytest

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace
from scvitune.errors import InputError
from scvitune.experiment._strategy import (
    STRATEGIES,
    Situation,
    choose_strategy,
)
from scvitune.searchers import count_combinations

LR = Hyperparameter("lr", FloatRange(1e-4, 1e-2, log=True))
LATENT = Hyperparameter("n_latent", IntRange(5, 50))
HIDDEN = Hyperparameter("n_hidden", Choice((64, 128, 256), ordered=True))
MUTABLE = frozenset({"lr", "weight_decay"})


def choose(*hyperparameters, **changes):
    usual = {"num_samples": 100, "max_epochs": 100.0, "slots": 2}
    space = SearchSpace(hyperparameters, {})
    chosen = choose_strategy("auto", Situation(space, MUTABLE, **(usual | changes)))
    assert chosen.reason
    assert chosen.searcher in str(chosen)
    return chosen.searcher, chosen.scheduler


def test_nothing_to_search():
    assert choose() == ("random", "fifo")


def test_only_mutable_hyperparameters_are_changed_while_training():
    assert choose(LR) == ("random", "pbt")
    assert choose(LR, LATENT) != ("random", "pbt")
    assert choose(LR, max_epochs=3.0) == ("tpe", "fifo")
    assert choose(LR, num_samples=4)[1] != "pbt"
    assert choose(LR, affordable_trials=5) == ("gp", "asha")
    assert choose(LR, affordable_trials=8) == ("random", "pbt")


def test_a_small_finite_space_is_tried_out():
    assert choose(HIDDEN, num_samples=3) == ("grid", "fifo")
    assert choose(HIDDEN, LATENT, num_samples=100) == ("tpe", "asha")
    assert choose(HIDDEN, LATENT, num_samples=135) == ("grid", "fifo")
    assert choose(HIDDEN, LATENT, num_samples=135, affordable_trials=5) == ("gp", "asha")
    assert choose(HIDDEN, num_samples=100, affordable_trials=5) == ("grid", "fifo")
    assert choose(HIDDEN, num_samples=100, affordable_trials=2.9) == ("gp", "asha")


def test_few_whole_trials_go_to_the_gaussian_process():
    assert choose(LR, LATENT, num_samples=20) == ("gp", "asha")
    assert choose(LR, LATENT, num_samples=5) == ("gp", "fifo")
    assert choose(LR, LATENT, num_samples=500, affordable_trials=12.5) == ("gp", "asha")


def test_many_slots():
    assert choose(LR, LATENT, slots=32) == ("optuna_tpe", "asha")
    assert choose(LR, LATENT, slots=32, num_samples=20) == ("optuna_tpe", "asha")


def test_the_rest_is_tpe_and_short_trials_run_to_the_end():
    assert choose(LR, LATENT) == ("tpe", "asha")
    assert choose(LR, LATENT, max_epochs=8.0) == ("tpe", "fifo")


def test_named_ones_are_looked_up():
    situation = Situation(SearchSpace((LR,), {}), MUTABLE, 10, 10.0, 1)
    for name, (searcher, scheduler, purpose) in STRATEGIES.items():
        chosen = choose_strategy(name, situation)
        assert (chosen.searcher, chosen.scheduler) == (searcher, scheduler)
        assert purpose in str(chosen)


def test_unknown_names_show_the_nearest():
    situation = Situation(SearchSpace((LR,), {}), MUTABLE, 10, 10.0, 1)
    with pytest.raises(InputError, match="'tpe_asha'"):
        choose_strategy("tpe_ahsa", situation)


def test_combinations():
    space = SearchSpace(
        (HIDDEN, LATENT, Hyperparameter("d", FloatRange(0.0, 0.5, quantum=0.1))), {}
    )
    assert count_combinations(space) == 3 * 45 * 6
    assert count_combinations(SearchSpace((LR,), {})) is None
