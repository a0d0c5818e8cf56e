"""What is saved comes back whole, or not at all."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import scvi

from scvitune.data import load_prepared, prepare_anndata, save_prepared
from scvitune.errors import StudyError

ARRAYS = (
    "values",
    "indices",
    "indptr",
    "batch",
    "labels",
    "categorical_covariates",
    "continuous_covariates",
    "size_factor",
    "library_log_means",
    "library_log_vars",
)


@pytest.fixture
def prepared(rich_adata):
    scvi.model.SCVI.setup_anndata(
        rich_adata,
        batch_key="batch",
        size_factor_key="size",
        categorical_covariate_keys=["donor", "site"],
        continuous_covariate_keys=["age"],
    )
    return prepare_anndata(rich_adata, model="SCVI")


def test_everything_comes_back_memory_mapped(prepared, tmp_path):
    saved = save_prepared(prepared, tmp_path / "runs with spaces")
    assert saved.directory == tmp_path / "runs with spaces" / ".data" / prepared.fingerprint
    loaded = load_prepared(saved.directory, verify=True)
    for name in ARRAYS:
        array = getattr(loaded, name)
        assert isinstance(array, np.memmap), name
        assert not array.flags.writeable
        assert array.dtype == getattr(prepared, name).dtype
        assert np.array_equal(array, getattr(prepared, name)), name
    for name in ("n_genes", "n_batch", "n_labels", "n_categories_per_covariate", "gene_names"):
        assert getattr(loaded, name) == getattr(prepared, name)
    assert loaded.setup == prepared.setup
    assert loaded.fingerprint == prepared.fingerprint
    assert sorted(p.name for p in saved.directory.iterdir()) == sorted(
        ["meta.json", *(f"{name}.npy" for name in ARRAYS)]
    )


def test_absent_covariates_stay_absent(rich_adata, tmp_path):
    scvi.model.LinearSCVI.setup_anndata(rich_adata)
    loaded = save_prepared(prepare_anndata(rich_adata, model="LinearSCVI"), tmp_path)
    assert loaded.categorical_covariates is None
    assert loaded.continuous_covariates is None
    assert loaded.size_factor is None
    assert loaded.n_categories_per_covariate == ()


def test_what_is_there_is_reused(prepared, tmp_path):
    first = save_prepared(prepared, tmp_path)
    before = (first.directory / "values.npy").stat()
    save_prepared(prepared, tmp_path)
    after = (first.directory / "values.npy").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [p.name for p in (tmp_path / ".data").iterdir()] == [prepared.fingerprint]


def test_what_is_there_but_broken_is_replaced(prepared, tmp_path):
    directory = save_prepared(prepared, tmp_path).directory
    (directory / "indices.npy").unlink()
    loaded = save_prepared(prepared, tmp_path)
    assert np.array_equal(loaded.indices, prepared.indices)
    assert [p.name for p in (tmp_path / ".data").iterdir()] == [prepared.fingerprint]


def test_what_is_there_but_has_changed_is_replaced(prepared, tmp_path):
    """One count is another: names, types and sizes are right, the fingerprint tells."""
    directory = save_prepared(prepared, tmp_path).directory
    content = bytearray((directory / "values.npy").read_bytes())
    content[-1] ^= 1
    (directory / "values.npy").write_bytes(content)
    loaded = save_prepared(prepared, tmp_path)
    assert np.array_equal(loaded.values, prepared.values)
    assert [p.name for p in (tmp_path / ".data").iterdir()] == [prepared.fingerprint]


def test_processes_may_race(prepared, tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        runs = [pool.submit(save_prepared, prepared, tmp_path) for _ in range(9)]
        directories = {run.result().directory for run in runs}
    assert directories == {tmp_path / ".data" / prepared.fingerprint}
    assert [p.name for p in (tmp_path / ".data").iterdir()] == [prepared.fingerprint]
    load_prepared(directories.pop(), verify=True)


def test_losing_the_race_gives_the_winners_data(prepared, tmp_path, monkeypatch):
    """The target appears between the look and the rename."""
    from scvitune.data import _storage

    winner = save_prepared(prepared, tmp_path / "other").directory
    write = _storage._write

    def write_late(data, directory):
        write(data, directory)
        shutil.copytree(winner, directory.parent / data.fingerprint)

    monkeypatch.setattr(_storage, "_write", write_late)
    loaded = save_prepared(prepared, tmp_path)
    assert loaded.directory == tmp_path / ".data" / prepared.fingerprint
    assert [p.name for p in (tmp_path / ".data").iterdir()] == [prepared.fingerprint]


def test_a_failed_write_leaves_nothing(prepared, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_prepared(prepared, tmp_path)
    assert list((tmp_path / ".data").iterdir()) == []


def truncate(directory):
    path = directory / "values.npy"
    path.write_bytes(path.read_bytes()[:-10])


def pickle_inside(directory):
    np.save(directory / "values.npy", np.array([{}], dtype=object), allow_pickle=True)


def swap_dtype(directory):
    path = directory / "batch.npy"
    np.save(path, np.load(path).astype(np.int32))


def half_meta(directory):
    path = directory / "meta.json"
    path.write_text(path.read_text()[:50])


def edit_meta(directory):
    path = directory / "meta.json"
    meta = json.loads(path.read_text())
    del meta["setup"]
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        pickle_inside,
        swap_dtype,
        half_meta,
        edit_meta,
        lambda d: (d / "values.npy").write_bytes(b""),
        lambda d: (d / "meta.json").write_text("[]"),
    ],
)
def test_damage_is_told(prepared, tmp_path, damage):
    directory = save_prepared(prepared, tmp_path).directory
    damage(directory)
    with pytest.raises(StudyError, match="cannot be read.*Delete that folder"):
        load_prepared(directory)


@pytest.mark.parametrize("name", ["values.npy", "meta.json"])
def test_missing_files_are_told(prepared, tmp_path, name):
    directory = save_prepared(prepared, tmp_path).directory
    (directory / name).unlink()
    with pytest.raises(StudyError, match=rf"{name} is missing.*copy that folder along"):
        load_prepared(directory)
    with pytest.raises(StudyError, match="is missing"):
        load_prepared(tmp_path / "nowhere")


def test_a_changed_number_is_found_when_asked(prepared, tmp_path):
    directory = save_prepared(prepared, tmp_path).directory
    batch = np.load(directory / "batch.npy")
    batch[0] = (batch[0] + 1) % 3
    np.save(directory / "batch.npy", batch)
    load_prepared(directory)
    with pytest.raises(StudyError, match="have changed"):
        load_prepared(directory, verify=True)


def test_another_format_is_told(prepared, tmp_path):
    path = save_prepared(prepared, tmp_path).directory / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(StudyError, match="format 99.*reads format 1"):
        load_prepared(path.parent)


def test_a_worker_loads_without_heavy_imports(prepared, tmp_path):
    """A trial's process must not pay for AnnData, scanpy or scvi-tools to open its data."""
    directory = save_prepared(prepared, tmp_path).directory
    code = (
        "import sys, pathlib, scvitune.data as d\n"
        "d.load_prepared(pathlib.Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'scvi', 'scanpy', 'anndata', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
