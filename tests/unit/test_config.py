"""Tests of the configuration: form, numbers, overrides, paths, lossless round trip."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scvitune.config import (
    ConfirmConfig,
    DataConfig,
    Resources,
    SearchConfig,
    SimulationConfig,
    StudyConfig,
    dump_yaml,
    load_config,
    number_if_exponent,
    parse_yaml,
    read_number,
)
from scvitune.errors import InputError
from scvitune.experiment._strategy import STRATEGIES
from scvitune.models import MODELS
from scvitune.schedulers import SCHEDULERS
from scvitune.searchers import SEARCHERS
from scvitune.spaces import default_space, parse_space

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))

INTERFACE_EXAMPLE = """
schema: 1
model: SCVI
data: {path: cells.h5ad, layer: counts, batch_key: batch, labels_key: cell_type, \
n_top_genes: 2000, reference: null}
space:
  lr: {type: loguniform, low: 1e-4, high: 1e-2}
  n_hidden: {type: choice, values: [64, 128, 256], ordered: true}
  n_latent: {type: randint, low: 5, high: 50}
  dispersion: {type: choice, values: [gene, gene-batch], when: {gene_likelihood: zinb}}
  gene_likelihood: {type: choice, values: [nb, zinb]}
  n_layers: 1
metric: elbo_validation
search: {searcher: tpe, scheduler: asha, num_samples: 50, max_epochs: 100, time_budget_s: null, \
epoch_budget: null, seed: 0}
resources: {cpu: 1, gpu: 0}
confirm: {top_k: 3, seeds: 5}
storage: runs
name: pbmc-scvi
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def faults_of(tmp_path: Path, text: str, overrides: tuple[str, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        load_config(write(tmp_path, text), overrides)
    return caught.value.faults


def argument_faults(**arguments: object) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        StudyConfig.from_arguments("SCVI", **arguments)
    return caught.value.faults


def test_the_example_of_the_interface(tmp_path):
    config = load_config(write(tmp_path, INTERFACE_EXAMPLE))
    assert config.model == "SCVI"
    assert config.data == DataConfig(
        path="cells.h5ad",
        layer="counts",
        batch_key="batch",
        labels_key="cell_type",
        n_top_genes=2000,
    )
    assert config.space is not None
    assert config.space["lr"] == {"type": "loguniform", "low": 1e-4, "high": 1e-2}
    assert config.space["n_layers"] == 1
    assert config.search == SearchConfig(
        searcher="tpe", scheduler="asha", num_samples=50, max_epochs=100
    )
    assert config.resources == Resources(cpu=1, gpu=0)
    assert config.confirm == ConfirmConfig(top_k=3, seeds=5)
    assert config.name == "pbmc-scvi"
    assert parse_space(config.space).constants == {"n_layers": 1}


def test_defaults(tmp_path):
    config = load_config(write(tmp_path, "model: SCVI\ndata: {path: pbmc68k}\n"))
    assert config == StudyConfig(model="SCVI", data=DataConfig(path="pbmc68k"))
    assert (config.space, config.mode, config.resources, config.name) == (None, None, None, None)
    assert (config.search.num_samples, config.search.max_failures) == (50, 2)
    assert (config.search.train_size, config.search.test_size) == (0.8, 0.1)
    assert config.storage == "runs"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_of_the_repository_loads(path):
    config = load_config(path)
    space = default_space(config.model) if config.space is None else parse_space(config.space)
    assert space.hyperparameters
    assert StudyConfig.from_yaml_dict(config.to_yaml_dict()) == config


def test_there_are_configs():
    assert {"scvi.yaml", "scvi-quick.yaml", "linear_scvi.yaml"} <= {p.name for p in CONFIGS}


def test_scvi_yaml_shows_every_field():
    shown = yaml.safe_load(next(p for p in CONFIGS if p.name == "scvi.yaml").read_text())
    assert set(shown) == {"schema", *StudyConfig.model_fields} - {"schema_version"}
    for name, section in [
        ("data", DataConfig),
        ("search", SearchConfig),
        ("resources", Resources),
    ]:
        assert set(shown[name]) == set(section.model_fields)


def test_scvi_yaml_shows_the_defaults():
    config = load_config(next(p for p in CONFIGS if p.name == "scvi.yaml"))
    bare = StudyConfig(model="SCVI")
    shown = config.to_yaml_dict() | {"data": None, "space": None, "confirm": None}
    assert shown | {"resources": None} == bare.to_yaml_dict()
    assert config.data == DataConfig(path="pbmc68k")


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("model:", MODELS),
        ("  searcher:", SEARCHERS),
        ("  scheduler:", SCHEDULERS),
        ("  strategy:", ["auto", *STRATEGIES]),
    ],
)
def test_scvi_yaml_names_all_that_there_are(field, names):
    text = next(p for p in CONFIGS if p.name == "scvi.yaml").read_text()
    _, _, rest = text.partition(f"\n{field}")
    first, *others = rest.splitlines()
    comment = first + " ".join(itertools.takewhile(lambda line: line[:20].isspace(), others))
    assert set(names) <= set(re.findall(r"\w+", comment))
    assert "reserved" not in text


# ------------------------------------------------------------------ numbers


def test_numbers_that_yaml_reads_as_text(tmp_path):
    config = load_config(
        write(
            tmp_path,
            "model: SCVI\n"
            "data: {path: x.h5ad, n_top_genes: 2e3}\n"
            "space:\n"
            "  lr: {type: choice, values: [1e-4, 1e-3, 0.01]}\n"
            "  weight_decay: 1e-6\n"
            "  gene_likelihood: {type: choice, values: [nb, 'zinb']}\n"
            "search: {max_epochs: 1e2, time_budget_s: 36e2, points_to_evaluate: [{lr: 1e-3}]}\n"
            "resources: {gpu: 25e-2}\n"
            "name: 1e-4\n",
        )
    )
    assert config.space is not None
    assert config.space["lr"]["values"] == [0.0001, 0.001, 0.01]
    assert config.space["weight_decay"] == 1e-6
    assert config.space["gene_likelihood"]["values"] == ["nb", "zinb"]
    assert config.search.max_epochs == 100
    assert isinstance(config.search.max_epochs, int)
    assert config.search.time_budget_s == 3600
    assert config.search.points_to_evaluate == ({"lr": 0.001},)
    assert config.data is not None
    assert config.data.n_top_genes == 2000
    assert config.resources == Resources(cpu=1, gpu=0.25)
    assert config.name == "1e-4"


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1e-4", 1e-4),
        ("-2E+3", -2000.0),
        ("1.e3", 1000.0),
        (".5", 0.5),
        ("12", 12),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        ("nb", None),
        ("", None),
        ("e", None),
        ("1e", None),
        ("0x10", None),
        ("nan", None),
        ("1_000", None),
        (True, None),
        (None, None),
    ],
)
def test_read_number(written, number):
    read = read_number(written)
    assert read == number
    assert type(read) is type(number)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["e", "E"]))
def test_any_float_in_exponent_form_is_read_back(value, letter):
    assert read_number(f"{value:.17{letter}}") == value


@pytest.mark.parametrize("text", ["0.5", "1.0e-4", "12", "gene", "e", "", "nb", "-", "1e5x"])
def test_text_that_stays_text(text):
    assert number_if_exponent(text) == text


# ------------------------------------------------------------------ overrides


def test_overrides(tmp_path):
    config = load_config(
        write(tmp_path, INTERFACE_EXAMPLE),
        [
            "search.num_samples=10",
            "search.num_samples=11",
            "resources.gpu=0.5",
            "space.lr.low=1e-5",
            "space.n_hidden.values=[32, 64]",
            "space.batch_size={type: choice, values: [128, 256]}",
            "name=",
            "final_fit=all_cells",
            "data.layer=a=b",
        ],
    )
    assert config.search.num_samples == 11
    assert config.search.searcher == "tpe"
    assert config.resources == Resources(cpu=1, gpu=0.5)
    assert config.space is not None
    assert config.space["lr"]["low"] == 1e-5
    assert config.space["n_hidden"]["values"] == [32, 64]
    assert config.space["batch_size"]["values"] == [128, 256]
    assert config.name is None
    assert config.final_fit == "all_cells"
    assert config.data is not None
    assert config.data.layer == "a=b"


def test_overrides_make_sections(tmp_path):
    path = write(tmp_path, "model: SCVI\n")
    config = load_config(path, ["data.path=x.h5ad", "confirm.top_k=1", "confirm.seeds=2"])
    assert config.data == DataConfig(path="x.h5ad")
    assert config.confirm == ConfirmConfig(top_k=1, seeds=2)


def test_wrong_overrides_are_faults_with_the_rest(tmp_path):
    faults = faults_of(
        tmp_path,
        "model: SCVI\ndata: {path: x.h5ad}\n",
        ("search.num_sample=3", "num_samples=3", "nonsense", "a..b=1", "model.x=2", "name=[1"),
    )
    text = "\n".join(faults)
    assert len(faults) == 6
    assert "Unknown key 'search.num_sample'. Did you mean 'num_samples'?" in text
    assert "it belongs in the section 'search', as 'search.num_samples'" in text
    assert "'nonsense' must be KEY=VALUE" in text
    assert "'a..b=1' must be KEY=VALUE" in text
    assert "'model' is 'SCVI', not a mapping" in text
    assert "'name=[1'" in text


def test_an_override_changes_no_other_key_of_a_shared_anchor(tmp_path):
    text = (
        "model: SCVI\ndata: {path: x}\nspace:\n  a: &d {type: uniform, low: 0, high: 1}\n  b: *d\n"
    )
    config = load_config(write(tmp_path, text), ["space.a.low=0.5"])
    assert config.space is not None
    assert (config.space["a"]["low"], config.space["b"]["low"]) == (0.5, 0)


# ------------------------------------------------------------------ paths


def test_a_relative_path_is_seen_from_here_then_from_the_file(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    path = there / "study.yaml"
    path.write_text("model: SCVI\ndata: {path: cells.h5ad, reference: ref.h5ad}\n")

    def paths() -> tuple[str | None, str | None]:
        data = load_config(path).data
        assert data is not None
        return data.path, data.reference

    assert paths() == ("cells.h5ad", "ref.h5ad")
    (there / "cells.h5ad").touch()
    assert paths() == (str(there / "cells.h5ad"), "ref.h5ad")
    (here / "cells.h5ad").touch()
    assert paths()[0] == str(here / "cells.h5ad")


def test_a_directory_does_not_hide_a_built_in_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pbmc68k").mkdir()
    config = load_config(write(tmp_path, "model: SCVI\ndata: {path: pbmc68k}\n"))
    assert config.data is not None
    assert config.data.path == "pbmc68k"


# ------------------------------------------------------------------ arguments


def test_arguments_of_tune(tmp_path):
    config = StudyConfig.from_arguments(
        "SCVI",
        space={"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
        metric="mine",
        mode="max",
        searcher="tpe",
        scheduler=None,
        strategy=None,
        num_samples=np.int64(7),
        max_epochs=3,
        time_budget_s=None,
        epoch_budget=None,
        points_to_evaluate=[{"lr": np.float64(1e-3)}],
        default_trial=False,
        resources={"cpu": 1, "gpu": 0.25},
        max_concurrent=2,
        max_failures=0,
        train_size=0.5,
        test_size=0,
        confirm={"top_k": 3, "seeds": 5},
        final_fit="all_cells",
        reference=None,
        labels_key="cell_type",
        target="simulated",
        simulation={"smoothness": 2},
        seed=1,
        storage=tmp_path,
        name=None,
    )
    assert config.data == DataConfig(labels_key="cell_type")
    assert config.mode == "max"
    assert config.simulation == SimulationConfig(max_cells=10, concentration=3.0, smoothness=2.0)
    assert config.search.points_to_evaluate == ({"lr": 1e-3},)
    assert type(config.search.points_to_evaluate[0]["lr"]) is float
    assert config.search.num_samples == 7
    assert config.search.test_size == 0
    assert config.storage == str(tmp_path)
    json.dumps(config.to_yaml_dict())


def test_no_data_without_data_arguments():
    assert StudyConfig.from_arguments("SCVI", reference=None, labels_key=None).data is None


def test_arguments_are_named_as_tune_names_them():
    faults = argument_faults(num_sample=3, seed=-1, max_epochs=0, resources={"gpus": 1})
    text = "\n".join(faults)
    assert "Unknown argument 'num_sample'. Did you mean 'num_samples'?" in text
    assert any(fault.startswith("seed must be") for fault in faults)
    assert any(fault.startswith("max_epochs must be") for fault in faults)
    assert "Unknown key 'resources.gpus'. Did you mean 'gpu'?" in text
    assert len(faults) == 4


def test_domain_objects_are_refused_here():
    tune = pytest.importorskip("ray.tune")
    (fault,) = argument_faults(space={"lr": tune.uniform(0, 1)})
    assert fault.startswith("space.lr is a Float")


def test_it_is_frozen():
    config = StudyConfig(model="SCVI")
    with pytest.raises(ValueError, match="frozen"):
        config.model = "DestVI"  # type: ignore[misc]


# ------------------------------------------------------------------ round trip

texts = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\x85\u2028\u2029"),
    min_size=1,
).filter(str.strip)
positive = st.floats(min_value=1e-6, max_value=1e9)
plain = st.one_of(st.none(), st.booleans(), st.integers(), positive, st.sampled_from("ab"))
configs = st.builds(
    StudyConfig,
    model=texts,
    data=st.none() | st.builds(DataConfig, layer=st.none() | texts, path=st.none() | texts),
    space=st.none() | st.dictionaries(texts, plain | st.lists(plain), max_size=4),
    metric=texts,
    mode=st.sampled_from([None, "min", "max"]),
    search=st.builds(
        SearchConfig,
        num_samples=st.integers(0, 10**6),
        max_epochs=st.none() | st.integers(1, 1000),
        epoch_budget=st.none() | positive,
        points_to_evaluate=st.lists(st.dictionaries(texts, plain), max_size=2),
        train_size=st.floats(0.1, 0.8),
        seed=st.integers(0, 2**63 - 1),
    ),
    resources=st.none() | st.builds(Resources, gpu=st.floats(0, 1)),
    simulation=st.none() | st.builds(SimulationConfig, smoothness=st.floats(0, 20)),
    confirm=st.none() | st.builds(ConfirmConfig, top_k=st.integers(1), seeds=st.integers(1)),
    name=st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,50}", fullmatch=True),
)


@settings(deadline=None, max_examples=60)
@given(configs)
def test_round_trip_through_yaml_and_json(config):
    written = config.to_yaml_dict()
    assert StudyConfig.from_yaml_dict(written) == config
    assert StudyConfig.from_yaml_dict(json.loads(json.dumps(written))) == config
    assert StudyConfig.from_yaml_dict(parse_yaml(dump_yaml(written), origin="text")) == config


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, scvitune.config; "
        "print([m for m in ('ray', 'torch', 'scvi', 'anndata') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_what_rungs_compare_is_one_of_three_words():
    assert StudyConfig.from_arguments("SCVI").search.rung_value is None
    for word in ("best", "value", "smoothed"):
        assert StudyConfig.from_arguments("SCVI", rung_value=word).search.rung_value == word
    with pytest.raises(InputError, match="rung_value must be .*Did you mean 'smoothed'"):
        StudyConfig.from_arguments("SCVI", rung_value="smooth")
