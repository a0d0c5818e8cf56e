"""Warm-ups of the KL weight: the longest of a space, and those that would be ignored."""

from __future__ import annotations

import pytest

from scvitune.contracts import Choice, Hyperparameter, IntRange, SearchSpace
from scvitune.errors import Faults, InputError
from scvitune.experiment._kl_warmup import longest_warmup
from scvitune.experiment._space import faults_of_space
from scvitune.models import get_adapter

STEPS = Hyperparameter("n_steps_kl_warmup", IntRange(100, 501))
BATCH = Hyperparameter("batch_size", Choice((64, 256)))
EPOCHS = Hyperparameter("n_epochs_kl_warmup", Choice((None, 10)))


@pytest.mark.parametrize(
    ("searched", "constants", "longest"),
    [
        ((), {}, 400.0),  # scvi-tools' default
        ((), {"n_epochs_kl_warmup": None}, None),
        ((), {"n_epochs_kl_warmup": None, "n_steps_kl_warmup": 400}, 400 * 128 / 1000),
        ((STEPS, BATCH), {"n_epochs_kl_warmup": None}, 500 * 256 / 1000),
        ((STEPS, EPOCHS), {}, 500 * 128 / 1000),
        ((STEPS,), {"n_epochs_kl_warmup": 20}, 20.0),  # epochs win
        ((Hyperparameter("n_epochs_kl_warmup", IntRange(5, 51)),), {}, 50.0),
    ],
)
def test_the_longest_warmup_in_epochs(searched, constants, longest):
    space = SearchSpace(searched, constants)
    assert longest_warmup(get_adapter("SCVI"), space, n_train=1000) == longest


def faults_of(model, searched, constants):
    faults = Faults()
    faults_of_space(model, SearchSpace(searched, constants), faults)
    try:
        faults.raise_if_any()
    except InputError as error:
        return error.faults
    return ()


@pytest.mark.parametrize("model", ["SCVI", "CondSCVI", "DestVI"])
def test_steps_that_scvi_tools_would_ignore_are_refused(model):
    (fault,) = faults_of(model, (STEPS,), {})
    assert "n_steps_kl_warmup is in the space, but scvi-tools ignores it" in fault
    assert "n_epochs_kl_warmup: null" in fault
    assert faults_of(model, (STEPS,), {"n_epochs_kl_warmup": 20})
    assert faults_of(model, (STEPS, EPOCHS), {})


def test_steps_that_count_are_fine():
    assert not faults_of("SCVI", (STEPS,), {"n_epochs_kl_warmup": None})
    only = Hyperparameter("n_steps_kl_warmup", IntRange(1, 9), {"n_epochs_kl_warmup": (None,)})
    assert not faults_of("SCVI", (EPOCHS, only), {})
    assert not faults_of("SCVI", (), {"n_steps_kl_warmup": None})
