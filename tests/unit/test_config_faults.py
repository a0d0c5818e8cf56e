"""Tests of wrong configurations: every fault at once, each with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

import scvitune
from scvitune._checking import check_without_data
from scvitune.config import _SECTIONS, StudyConfig, load_config
from scvitune.errors import InputError, nearest


def faults_of(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    return caught.value.faults


def argument_faults(**arguments: object) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        StudyConfig.from_arguments("SCVI", **arguments)
    return caught.value.faults


def test_all_faults_come_at_once(tmp_path):
    faults = faults_of(
        tmp_path,
        "model: SCVI\n"
        "metrics: x\n"
        "num_samples: 3\n"
        "data: {path: x.h5ad, bach_key: batch, seed: 1}\n"
        "search: {num_samples: many, train_size: 0.9, test_size: 0.2, storage: here}\n"
        "resources: {cpu: 0, gpu: -1}\n"
        "confirm: {top_k: 0}\n"
        "mode: maximum\n"
        "name: ../../etc\n",
    )
    text = "\n".join(faults)
    assert len(faults) == 13
    for expected in [
        "Unknown key 'metrics'. Did you mean 'metric'?",
        "'num_samples' stands in the wrong place: it belongs in the section 'search'",
        "Unknown key 'data.bach_key'. Did you mean 'batch_key'?",
        "'data.seed' stands in the wrong place: it belongs in the section 'search'",
        "search.num_samples must be a whole number of at least 0, but is 'many'.",
        "search.train_size (0.9) and test_size (0.2)",
        "'search.storage' stands in the wrong place: it belongs at the top level",
        "resources.cpu must be a number above 0, but is 0.",
        "resources.gpu must be a number of at least 0, or 'auto', but is -1.",
        "confirm.top_k must be a whole number of at least 1, but is 0.",
        "confirm.seeds is missing",
        "mode must be 'min' or 'max' or null, but is 'maximum'.",
        "name must be made of letters",
    ]:
        assert expected in text


def test_a_near_name_in_another_section_is_named(tmp_path):
    (fault,) = faults_of(tmp_path, "model: SCVI\ndata: {path: x}\nnum_sample: 3\n")
    assert "Did you mean 'search.num_samples'?" in fault


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("search: {num_samples: -1}", "search.num_samples must be a whole number of at least 0"),
        ("search: {num_samples: 2.5}", "but is 2.5"),
        ("search: {num_samples: true}", "but is True"),
        ("search: {num_samples: null}", "but is nothing (null)"),
        ("search: {max_epochs: 0}", "search.max_epochs must be a whole number of at least 1 or"),
        ("search: {max_epochs: 0.5}", "must be a whole number of at least 1 or null, but is 0.5"),
        ("search: {max_epochs: 2.5}", "but is 2.5"),
        ("search: {max_epochs: .inf}", "but is inf"),
        ("search: {time_budget_s: -3}", "search.time_budget_s must be a number above 0"),
        (
            "search: {time_budget_s: 10min}",
            "search.time_budget_s must be a number above 0 or null, but is '10min'. It is in "
            "seconds: 600.",
        ),
        ("search: {time_budget_s: 1.5 hours}", "is '1.5 hours'. It is in seconds: 5400."),
        ("search: {time_budget_s: 2d}", "is '2d'. It is in seconds: 172800."),
        ("search: {time_budget_s: '01:30:00'}", "is '01:30:00'. It is in seconds."),
        (
            "search: {max_hours: 1}",
            "Unknown key 'search.max_hours'. Did you mean 'search.time_budget_s'? It is in "
            "seconds: 3600 for an hour.",
        ),
        ("timeout: 60", "Unknown key 'timeout'. Did you mean 'search.time_budget_s'?"),
        ("search: {epoch_budget: 0}", "search.epoch_budget must be a number above 0"),
        ("search: {train_size: 1}", "search.train_size must be a number above 0 and below 1"),
        ("search: {train_size: 0}", "search.train_size must be a number above 0"),
        ("search: {test_size: -0.1}", "search.test_size must be a number of at least 0"),
        ("search: {train_size: 0.9}", "their sum must be below 1, but is 1."),
        ("search: {seed: -1}", "search.seed must be a whole number of at least 0"),
        ("search: {seed: 1" + "0" * 400 + "}", "search.seed must be a whole number"),
        ("search: {max_epochs: '" + "9" * 5000 + "'}", "search.max_epochs must be a whole"),
        ("search: {seed: 1e30}", "below 9223372036854775808"),
        ("search: {max_failures: -1}", "search.max_failures must be a whole number of at least 0"),
        ("search: {max_concurrent: 0}", "search.max_concurrent must be a whole number of at"),
        ("search: {default_trial: 1}", "search.default_trial must be true or false, but is 1."),
        ("search: {default_trial: false, num_samples: 0}", "there is nothing to run"),
        ("search: {strategy: auto, searcher: tpe}", "searcher 'tpe' is given too"),
        ("search: {strategy: auto, scheduler: asha}", "scheduler 'asha' is given too"),
        ("search: {searcher: 5}", "search.searcher must be text or null, but is 5."),
        ("search: {points_to_evaluate: {lr: 1}}", "must be a list of configurations"),
        ("search: {points_to_evaluate: [3]}", "must be a list of configurations"),
        ("search: 5", "search must be a mapping"),
        ("search: [1]", "search must be a mapping"),
        ("resources: {gpu: autos}", "resources.gpu must be a number of at least 0, or 'auto'"),
        ("resources: {tf32: 1}", "resources.tf32 must be true or false, but is 1."),
        ("resources: {gpu: 1.5}", "resources.gpu must be a share of one GPU or a whole number"),
        ("confirm: {}", "confirm.top_k is missing"),
        ("final_fit: all", "final_fit must be 'all_cells' or null, but is 'all'."),
        ("final_fit: true", "final_fit must be 'all_cells' or null, but is True."),
        ("metric: null", "metric must be text, but is nothing (null)."),
        ("metric: ''", "metric must be text that is not empty"),
        ("storage: s3://bucket/runs", "storage must be a directory in a file system"),
        ("storage: ''", "storage must be text that is not empty"),
        ("space: [lr]", "space must be a mapping of names to values"),
        ("space: {lr: .nan}", "space.lr must be finite"),
        ("space: {lr: 2024-01-01}", "Text that looks like a date needs quotes"),
        ("space: {1: 2}", "The key 1 in space must be text"),
        ("name: 2024-01-01", 'Put it in quotes: "2024-01-01"'),
        ("name: 7", "name must be text or null, but is 7."),
        ("1: 2", "Unknown key '1'"),
        ("schema: 0", "schema must be 1, but is 0."),
        ("schema: '1'", "schema must be 1, but is '1'."),
    ],
)
def test_one_fault(tmp_path, line, message):
    faults = faults_of(tmp_path, f"model: SCVI\ndata: {{path: x.h5ad}}\n{line}\n")
    assert any(message in fault for fault in faults), faults


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", ".hidden", "", " ", "a b", "a\nb", "a\\b", "-rf", "a;b", "$HOME", "a\0b", "~x"]
    + ["a" * 300, "é" * 150, "*", "a'b", 'a"b', "`x`", "=x"],
)
def test_hostile_names_are_refused(name):
    (fault,) = argument_faults(name=name)
    assert fault.startswith("name ")


@pytest.mark.parametrize("name", ["pbmc-scvi", "SCVI-20260101-120000", "β_cells.v2", "7", "_x"])
def test_ordinary_names_are_taken(name):
    assert StudyConfig.from_arguments("SCVI", name=name).name == name


def test_a_newer_schema_is_refused_with_a_remedy(tmp_path):
    (fault,) = faults_of(tmp_path, "schema: 2\nmodel: SCVI\nnew_key: 1\n")
    assert "Upgrade scvitune" in fault


def test_model_and_data_are_needed(tmp_path):
    text = "\n".join(faults_of(tmp_path, "metric: elbo_validation\n"))
    assert "model is missing" in text
    assert "data.path is missing" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("SCVI", "holds a str"),
        ("model: SCVI\nmodel: LinearSCVI\n", "line 2, column 1: the key 'model' is there twice"),
        ("model: SCVI\nsearch:\n\tseed: 1\n", "line 3"),
        ("model: SCVI\nsearch: {seed: 1\n", "line 3"),
        ("model: SCVI\n  data: x\n", "line 2"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("model: !!python/object:os.system x\n", "line 1"),
        ("model: *nowhere\n", "line 1"),
        ("model: 2024-99-99\n", "not valid YAML"),
        ("{[1]: {[2]: 3}}: 4", "not valid YAML"),
        ("model: !!timestamp x", "Leave tags out"),
        ("model: !!bool maybe", "Leave tags out"),
        ("model: !!int ''", "Leave tags out"),
        ("[" * 5000, "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: &a [*a]\nspace: {x: *a}\n", "space.x"),
    ],
)
def test_broken_files(tmp_path, text, message):
    faults = faults_of(tmp_path, text)
    assert any(message in fault for fault in faults), faults


def test_a_tab_is_called_a_tab(tmp_path):
    (fault,) = faults_of(tmp_path, "model: SCVI\nsearch:\n\tseed: 1\n")
    assert "indented by a tab" in fault


def test_a_recursive_space_is_one_fault_and_no_endless_loop(tmp_path):
    (fault,) = faults_of(tmp_path, "model: SCVI\ndata: {path: x}\nspace: {x: &a {y: *a}}\n")
    assert "levels deep" in fault


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="directory"):
        load_config(tmp_path)
    binary = tmp_path / "x.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="UTF-8"):
        load_config(binary)
    with pytest.raises(InputError, match="cannot be read"):
        load_config("a\0b")


def test_faults_of_a_simulation_come_at_once():
    given = {"max_cells": 0, "concentration": "some", "smoothness": -1, "sparsity": 2}
    with pytest.raises(InputError) as raised:
        StudyConfig.from_arguments("DestVI", simulation=given)
    for expected in (
        "simulation.max_cells must be a whole number of at least 1, but is 0.",
        "simulation.concentration must be a number above 0, but is 'some'.",
        "simulation.smoothness must be a number of at least 0, but is -1.",
        "Unknown key 'simulation.sparsity'",
    ):
        assert expected in str(raised.value)


def test_a_key_of_a_simulation_elsewhere_is_put_in_its_place(tmp_path):
    (fault,) = faults_of(tmp_path, "model: DestVI\ndata: {path: x}\nsmoothness: 3\n")
    assert "belongs in the section 'simulation', as 'simulation.smoothness'" in fault


# ------------------------------------------------- faults of form, and of all else with them


def with_the_rest(tmp_path: Path, text: str) -> str:
    from scvitune._checking import check_beside

    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path, rest=check_beside)
    return str(caught.value)


def test_an_unknown_key_hides_no_other_fault(tmp_path, rich_adata):
    rich_adata.X = -rich_adata.X
    rich_adata.write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "file").write_text("")
    text = with_the_rest(
        tmp_path,
        "model: SCVI\n"
        "metrics: x\n"
        f"data: {{path: {tmp_path}/cells.h5ad, bach_key: batch, labels_key: labl}}\n"
        "space: {n_hiden: 3}\n"
        "search: {num_samples: many, searcher: tpee}\n"
        f"storage: {tmp_path}/file\n",
    )
    for part in (
        "Unknown key 'metrics'",
        "Unknown key 'data.bach_key'",
        "search.num_samples must be a whole number",
        "'tpee'",
        "'n_hiden'",
        "labels_key 'labl' is not in adata.obs",
        "negative values",
        "is a file, not a directory",
    ):
        assert part in text, text
    assert text.startswith("8 things are wrong")


SPOILED = {
    "lr": {"type": "loguniform", "low": 1e-2, "high": 1e-4},
    "n_hiden": {"type": "choice", "values": []},
    "n_layers": [1, 2],
    "n_latnt": 5,
    "n_hidden": -3,
    "dropout_rate": {"type": "uniform", "low": 0, "high": 1.5},
}
FAULTS_OF_SPOILED = (
    "space.lr: low (0.01) must be below high (0.0001)",
    "space.n_hiden: the choice is empty",
    "space.n_layers is a list",
    "SCVI takes no hyperparameter 'n_hiden'. Did you mean 'n_hidden'?",
    "SCVI takes no hyperparameter 'n_latnt'. Did you mean 'n_latent'?",
    "n_hidden must be a whole number of at least 1, but got -3",
    "dropout_rate must be at least 0 and below 1, but got 1.5",
)


def test_no_fault_of_a_space_hides_another(rich_adata):
    """What one domain is meant to be says nothing about the names and values of the others."""
    with pytest.raises(InputError) as of_arguments:
        scvitune.tune("SCVI", rich_adata, space=SPOILED)
    with pytest.raises(InputError) as of_config:
        check_without_data(StudyConfig(model="SCVI", space=SPOILED))
    for said in (of_arguments, of_config):
        assert len(said.value.faults) == len(FAULTS_OF_SPOILED), said.value
        for part in FAULTS_OF_SPOILED:
            assert part in str(said.value), said.value


def test_letters_that_changed_places_are_nearer_than_a_lost_one():
    assert nearest("modle", ["mode", "model"]) == " Did you mean 'model'?"
    assert nearest("mod", ["mode", "model"]) == " Did you mean 'mode'?"


@pytest.mark.parametrize(
    "text",
    [
        # What a wrong key was to say is not known, so nothing that hangs on it is said.
        "data: {path: PATH, layr: counts}",
        "data: {path: PATH, min_count: 1}",
        "spce: {lr: 0.1}\nsearch: {points_to_evaluate: [{lr: 5}]}\ndata: {path: PATH}",
        "metric: {name: mine, function: 'json:dumps', mode: up}\ndata: {path: PATH}",
        "metric: {name: mine, function: 'json:dumps'}\nmode: upwards\ndata: {path: PATH}",
        "search: {searchr: pbt, scheduler: pbt}\ndata: {path: PATH}",
        "confirm: {top_k: 3, seeds: none}\nsearch: {test_size: 0}\ndata: {path: PATH}",
    ],
)
def test_nothing_follows_from_what_is_not_known(tmp_path, rich_adata, text):
    import numpy as np

    rich_adata.layers["counts"] = rich_adata.X.copy()
    if "layr" in text:
        rich_adata.X = rich_adata.X * np.float32(0.37)
    elif "min_count" in text:
        rich_adata.X[0] = 0
    path = tmp_path / "cells.h5ad"
    rich_adata.write_h5ad(path)
    said = with_the_rest(tmp_path, "model: SCVI\n" + text.replace("PATH", str(path)))
    assert "things are wrong" not in said, said


@pytest.mark.parametrize("model", ["", "modle: SCVI\n", "model: 3\n", "model: SCVY\n"])
def test_a_wrong_model_hides_nothing(tmp_path, model):
    said = with_the_rest(
        tmp_path,
        f"{model}metric: [elbo_validaton, nonsense]\n"
        "space: {n_latent: {type: randint, lo: 1, high: 3}, n_hiden: 3}\n"
        "search: {searcher: tpee, num_samples: many}\n"
        "data: {path: pbmc68k}\n",
    )
    for part in (
        {"": "model is missing", "modle: SCVI\n": "'modle'. Did you mean 'model'?"}.get(
            model, "Did you mean 'SCVI'?" if "SCVY" in model else "model must be text, but is 3"
        ),
        "no metric 'elbo_validaton'",
        "no metric 'nonsense'",
        "no searcher 'tpee'",
        "unknown key 'lo'",
        "search.num_samples",
    ):
        assert part in said, said
    # whose hyperparameters they are is known of a misspelt key alone
    assert ("'n_hiden'" in said) == ("modle" in model)
    assert said.startswith(f"{6 + ('modle' in model)} things are wrong"), said


@pytest.mark.parametrize("other", ["lo", "lower", "lw", "min"])
def test_a_misspelt_field_of_a_domain_is_one_fault(tmp_path, other):
    said = with_the_rest(
        tmp_path,
        "model: SCVI\ndata: {path: pbmc68k}\nsearch: {num_samples: many}\n"
        f"space: {{n_latent: {{type: randint, {other}: 1, high: 3}}}}\n",
    )
    assert said.startswith("2 things are wrong"), said
    assert f"unknown key {other!r} for the type 'randint'. Did you mean 'low'?" in said


ODD = (None, True, 0, -1, 2.5, float("inf"), float("nan"), "", "x", [1], ["a", None], {"a": 1})


def test_no_fault_speaks_in_the_validators_words():
    keys = [(None, "schema" if k == "schema_version" else k) for k in StudyConfig.model_fields]
    keys += [(name, key) for name, kind in _SECTIONS.items() for key in kind.model_fields]
    found = []
    for section, key in keys:
        for value in (*ODD, b"x", [["a"]], [{}], {1: 2}, set(), 3**500):
            raw = {"model": "SCVI"} | ({section: {key: value}} if section else {key: value})
            try:
                StudyConfig.from_yaml_dict(raw)
            except InputError as error:
                found += error.faults
    assert len(found) > 300
    foreign = ("Input should", "valid ", "Value error", "Field required", "instance of")
    assert [fault for fault in found if any(words in fault for words in foreign)] == []


def test_a_wrong_model_with_a_wrong_form(tmp_path):
    text = with_the_rest(tmp_path, "model: 3\nsearch: {num_samples: many}\ndata: {path: x}\n")
    assert text.startswith("3 things are wrong")  # there is no file x
    text = with_the_rest(tmp_path, "model: SCVY\nmetrics: x\ndata: {path: pbmc68k}\n")
    assert text.startswith("2 things are wrong")
    assert "Did you mean 'SCVI'?" in text
