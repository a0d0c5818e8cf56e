"""What a searcher cannot take is refused in words that help."""

from __future__ import annotations

import dataclasses

import pytest

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace
from scvitune.errors import InputError
from scvitune.searchers import CAPABILITIES, check_capabilities

SPACE = SearchSpace(
    (
        Hyperparameter("lr", FloatRange(1e-4, 1e-2, log=True)),
        Hyperparameter("dropout_rate", FloatRange(0.0, 0.5, quantum=0.1)),
        Hyperparameter("n_hidden", IntRange(16, 513, log=True, quantum=16)),
        Hyperparameter("n_layers", Choice((1, 2, 3), ordered=True)),
        Hyperparameter("use_layer_norm", Choice((False, True)), {"n_layers": (2, 3)}),
        Hyperparameter("gene_likelihood", Choice(("nb", "zinb"))),
    ),
    {},
)


def faults_of(name, space=SPACE):
    try:
        check_capabilities(name, space)
    except InputError as error:
        return error.faults
    return ()


def test_every_quantised_hyperparameter_is_named_for_bohb():
    faults = [fault for fault in faults_of("bohb") if "Install" not in fault]
    assert faults == [
        "The searcher 'bohb' drops quantisation, but dropout_rate has q=0.1. Leave q out, or list "
        "the values as an ordered choice, or use the searcher 'tpe', 'optuna_tpe', 'gp', 'cmaes', "
        "'nsga2' or 'local'.",
        "The searcher 'bohb' drops quantisation, but n_hidden has q=16. Leave q out, or list "
        "the values as an ordered choice, or use the searcher 'tpe', 'optuna_tpe', 'gp', 'cmaes', "
        "'nsga2' or 'local'.",
    ]


def test_a_grid_lists_no_range_and_no_thousands():
    space = SearchSpace((*SPACE.hyperparameters, Hyperparameter("n", IntRange(0, 5000))), {})
    assert faults_of("grid", space) == (
        "The searcher 'grid' needs a list of values, but lr is a continuous range. Give it "
        "choices or a q, or use the searcher 'random' or 'qmc'.",
        "The searcher 'grid' lists at most 1000 values, but n is a range of 5000. Give it choices "
        "or a q, or use the searcher 'random' or 'qmc'.",
    )


@pytest.mark.parametrize("name", sorted(set(CAPABILITIES) - {"bohb", "grid"}))
def test_all_others_take_everything(name):
    assert [fault for fault in faults_of(name) if "Install" not in fault] == []


@pytest.mark.parametrize(
    ("kind", "hyperparameter"),
    [
        ("log", "lr"),
        ("continuous", "lr"),
        ("integer", "n_hidden"),
        ("quantised", "dropout_rate"),
        ("ordered", "n_layers"),
        ("boolean", "use_layer_norm"),
        ("conditional", "use_layer_norm"),
        ("categorical", "gene_likelihood"),
    ],
)
def test_every_column_of_the_table_is_read(monkeypatch, kind, hyperparameter):
    limited = dataclasses.replace(CAPABILITIES["random"], **{kind: False})
    monkeypatch.setitem(CAPABILITIES, "limited", limited)
    assert any(f" {hyperparameter} " in fault for fault in faults_of("limited"))


@pytest.mark.parametrize(
    ("extra", "expected"), [("bohb", "'scvitune[bohb]'"), (None, "'no_such_package'")]
)
def test_a_missing_package_names_what_to_install(monkeypatch, extra, expected):
    lacking = dataclasses.replace(
        CAPABILITIES["random"], packages=("json", "no_such_package"), extra=extra
    )
    monkeypatch.setitem(CAPABILITIES, "lacking", lacking)
    (fault,) = faults_of("lacking")
    assert "needs the package no_such_package" in fault
    assert fault.endswith(f"Install: pip install {expected}.")
