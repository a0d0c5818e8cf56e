"""Configurations of every form: each is read, or refused by faults that are sentences."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest
import yaml
from any_config import ANYTHING, as_yaml, configurations, texts
from hypothesis import HealthCheck, given, settings

from scvitune._checking import check, check_beside, check_without_data
from scvitune.config import StudyConfig, load_config
from scvitune.errors import InputError
from scvitune.spaces import parse_space

CONFIGS = Path(__file__).parents[2] / "configs"
WHOLE = "\n".join(  # every field; without comments, for YAML is read slowly
    line.partition(" #")[0]
    for line in (CONFIGS / "scvi.yaml").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.lstrip().startswith("#")
)


def check_faults(error: InputError) -> None:
    for fault in error.faults:
        assert fault.strip(), "an empty fault"
        assert len(fault) < 3000, fault
        assert fault.rstrip()[-1] in ".)?", fault
        assert "Traceback" not in fault


def run(n_inputs: int, strategy, attempt) -> Counter[str]:
    """Try so many inputs; return how they ended. What ends in no known way is raised."""
    ends: Counter[str] = Counter()

    @settings(max_examples=n_inputs, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def each(drawn):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                attempt(drawn)
        except InputError as error:
            check_faults(error)
            ends["refused"] += 1
        else:
            ends["works"] += 1

    each()
    return ends


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "study.yaml"


@pytest.fixture
def cells(rich_adata, tmp_path):
    rich_adata.layers["counts"] = rich_adata.X.copy()
    rich_adata.write_h5ad(tmp_path / "cells.h5ad")
    return str(tmp_path / "cells.h5ad")


def read_text(file):
    def attempt(text):
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        config = load_config(file)
        assert StudyConfig.from_yaml_dict(config.to_yaml_dict()) == config

    return attempt


def read_and_check(file):
    def attempt(drawn):
        file.write_text(as_yaml(drawn), encoding="utf-8")
        config = load_config(file)
        assert StudyConfig.from_yaml_dict(config.to_yaml_dict()) == config
        check_without_data(config)

    return attempt


def check_whole(file):
    def attempt(drawn):
        file.write_text(as_yaml(drawn), encoding="utf-8")
        assert check(load_config(file, rest=check_beside))[0]

    return attempt


def set_over(file):
    def attempt(drawn):
        load_config(file, [f"{key}={value}" for key, value in drawn.items()])

    return attempt


def test_texts(file):
    ends = run(150, texts(WHOLE), read_text(file))
    assert min(ends["works"], ends["refused"]) > 1


def test_mappings(file, cells):
    ends = run(150, configurations(cells), read_and_check(file))
    assert min(ends["works"], ends["refused"]) > 10


def test_all_that_check_does(file, cells):
    ends = run(25, configurations(cells), check_whole(file))
    assert min(ends["works"], ends["refused"]) > 2


def test_spaces():
    run(200, ANYTHING, parse_space)


def test_overrides(file):
    file.write_text("model: SCVI\ndata: {path: cells.h5ad}\n")
    ends = run(100, configurations("cells.h5ad"), set_over(file))
    assert ends["refused"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("way", ["texts", "mappings", "check"])
def test_thousands(file, cells, way):
    ways = {
        "texts": (1500, texts(WHOLE), read_text(file)),
        "mappings": (3000, configurations(cells), read_and_check(file)),
        "check": (400, configurations(cells), check_whole(file)),
    }
    ends = run(*ways[way])
    print(f"\n{way}: {ends.total()} tried: {dict(ends)}")
    assert min(ends["works"], ends["refused"]) > ends.total() / 100


def test_what_is_drawn_is_yaml(file):
    """The strategies must not spend their inputs on what no file can hold."""
    run(50, configurations("cells.h5ad"), lambda drawn: yaml.safe_load(as_yaml(drawn)))
