"""AnnData of every form, in memory and in files: each works as in scvi-tools, or is refused.

Refused means one `InputError` whose faults are sentences. What is wrong must be refused, and what
is right must not; see `any_anndata.verdict`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from functools import partial

import any_anndata
import h5py
import numpy as np
import pytest
from any_anndata import Recipe, recipes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tried_anndata import check_message, try_file, try_in_memory

from scvitune.data import _large_file, prepare_file
from scvitune.errors import InputError

FILE_TRAITS = tuple(t for t in any_anndata._TRAITS if t not in ("change", "form"))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "n_top_genes": st.integers(-1, 20),
        "min_counts": st.integers(-1, 12),
        "min_genes": st.integers(0, 6),
        "min_cells": st.integers(0, 25),
        "choose_genes": st.booleans(),
    },
)


def bounded(n_inputs: int):
    return settings(max_examples=n_inputs, deadline=None, suppress_health_check=list(HealthCheck))


def run(n_inputs: int, strategy, attempt) -> Counter[str]:
    """Try so many inputs; return how they ended. What ends in no known way is raised."""
    ends: Counter[str] = Counter()

    @bounded(n_inputs)
    @given(strategy)
    def each(drawn):
        ends[attempt(drawn)] += 1

    each()
    return ends


def test_in_memory(tmp_path):
    ends = run(200, recipes(), lambda recipe: try_in_memory(recipe, tmp_path))
    assert ends["works"] > 50
    assert ends["refused"] > 30


def test_in_files(tmp_path):
    ends = run(60, recipes(FILE_TRAITS), lambda recipe: try_file(recipe, tmp_path))
    assert ends["works"] > 15
    assert ends["refused"] > 10


def test_in_files_that_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(_large_file, "LARGE", 0)
    ends = run(30, recipes(FILE_TRAITS), lambda recipe: try_file(recipe, tmp_path))
    assert ends["works"] > 5


def test_in_files_that_are_filtered(tmp_path):
    drawn = st.tuples(recipes(FILE_TRAITS, most=2), OPTIONS)
    ends = run(30, drawn, lambda pair: try_file(pair[0], tmp_path, **pair[1]))
    assert ends["works"] > 3


@pytest.mark.skipif(not any_anndata.DASK, reason="needs dask (pip install 'dask[array]')")
@pytest.mark.parametrize("storage", [s for s in any_anndata.STORAGES if "dask" in s])
@pytest.mark.parametrize("place", any_anndata.PLACES)
def test_dask_works_as_anything_else(tmp_path, storage, place):
    recipe = Recipe(storage=storage, place=place, batch="text", continuous=("float64",))
    assert try_in_memory(recipe, tmp_path) == "works"
    wrong = Recipe(storage=storage, place=place, values="fraction")
    assert try_in_memory(wrong, tmp_path) == "refused"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["memory", "file", "blocks", "filtered"])
def test_thousands(tmp_path, monkeypatch, way):
    if way == "blocks":
        monkeypatch.setattr(_large_file, "LARGE", 0)
    if way == "memory":
        ends = run(5000, recipes(), lambda recipe: try_in_memory(recipe, tmp_path))
    elif way == "filtered":
        drawn = st.tuples(recipes(FILE_TRAITS, most=2), OPTIONS)
        ends = run(500, drawn, lambda pair: try_file(pair[0], tmp_path, **pair[1]))
    else:
        ends = run(700, recipes(FILE_TRAITS), lambda recipe: try_file(recipe, tmp_path))
    print(f"\n{way}: {ends.total()} tried: {dict(ends)}")
    assert ends["works"] > ends.total() / 5


# ---------------------------------------------------------------------------- broken files


@pytest.fixture
def whole_file(rich_adata, tmp_path):
    rich_adata.layers["counts"] = rich_adata.X.toarray()
    rich_adata.obs["batch"] = rich_adata.obs["batch"].astype("category")
    rich_adata.raw = rich_adata.copy()
    path = tmp_path / "whole.h5ad"
    rich_adata.write_h5ad(path)
    return path


KEYS = {"batch_key": "batch", "continuous_covariate_keys": ["age"]}


def attempt_file(path, layer=None) -> str:
    try:
        prepare_file(path, model="SCVI", layer=layer, **KEYS)
    except InputError as error:
        check_message(error)
        return "refused"
    return "works"


def spoil_everything(whole_file, directory, *, step: int) -> Counter[str]:
    """Spoil groups, arrays and attributes of a file in every way; try each step-th."""
    places: list[str] = []
    with h5py.File(whole_file) as file:
        file.visit(places.append)
        attributes = [(place, key) for place in ["/", *places] for key in file[place].attrs]
    changes = [partial(spoil, place=place) for place in places for spoil in SPOILS]
    changes += [
        partial(_set, place=place, key=key, value=value)
        for place, key in attributes
        for value in (None, "other", 7)
    ]
    ends: Counter[str] = Counter()
    spoiled = directory / "spoiled.h5ad"
    for change in changes[::step]:
        shutil.copyfile(whole_file, spoiled)
        with h5py.File(spoiled, "a") as file:
            change(file)
        for layer in (None, "counts"):
            ends[attempt_file(spoiled, layer)] += 1
    return ends


LARGE = pytest.mark.parametrize("large", [1 << 29, 0], ids=["whole", "blocks"])


@LARGE
@pytest.mark.filterwarnings("ignore")
def test_files_of_which_a_part_is_gone_or_another(whole_file, tmp_path, monkeypatch, large):
    monkeypatch.setattr(_large_file, "LARGE", large)
    ends = spoil_everything(whole_file, tmp_path, step=11)
    assert min(ends["works"], ends["refused"]) > 10


@LARGE
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_files_of_which_any_part_is_gone_or_another(whole_file, tmp_path, monkeypatch, large):
    monkeypatch.setattr(_large_file, "LARGE", large)
    ends = spoil_everything(whole_file, tmp_path, step=1)
    print(f"\nspoiled files: {ends.total()} tried: {dict(ends)}")
    assert min(ends["works"], ends["refused"]) > 100


def _set(file, place, key, value) -> None:
    del file[place].attrs[key]
    if value is not None:
        file[place].attrs[key] = value


def _gone(file, place):
    del file[place]


def _renamed(file, place):
    file.move(place, place + " elsewhere")


def _array(file, place):
    del file[place]
    file[place] = np.arange(3.0)


def _text(file, place):
    del file[place]
    file[place] = "text"


def _group(file, place):
    del file[place]
    file.create_group(place)


def _shorter(file, place):
    _other(file, place, lambda array: array[:-1])


def _negative(file, place):
    _other(file, place, lambda array: -array - 1 if array.dtype.kind in "if" else array)


def _other(file, place, change):
    found = file[place]
    if isinstance(found, h5py.Dataset) and found.ndim:
        kept = dict(found.attrs)
        values = change(found[:])
        del file[place]
        file[place] = values
        file[place].attrs.update(kept)


SPOILS = (_gone, _renamed, _array, _text, _group, _shorter, _negative)


@pytest.mark.filterwarnings("ignore")
def test_files_cut_short_anywhere(whole_file, tmp_path):
    whole = whole_file.read_bytes()
    cut = tmp_path / "cut.h5ad"
    for length in np.linspace(0, len(whole) - 1, 40).astype(int):
        cut.write_bytes(whole[:length])
        assert attempt_file(cut) == "refused"
