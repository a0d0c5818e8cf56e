"""Prepared data copied once to a node."""

from __future__ import annotations

import multiprocessing
import shutil
from collections import namedtuple

import numpy as np
import pytest

from scvitune.data import copy_to_node, load_prepared, prepare_anndata, save_prepared


@pytest.fixture
def shared(tmp_path, rich_adata):
    import scvi

    scvi.model.SCVI.setup_anndata(rich_adata)
    prepared = save_prepared(prepare_anndata(rich_adata, model="SCVI"), tmp_path / "runs")
    return tmp_path / "runs" / ".data" / prepared.fingerprint


def test_without_a_node_directory_the_shared_files_are_read(shared, monkeypatch):
    monkeypatch.delenv("SCVITUNE_NODE_DIR", raising=False)
    assert copy_to_node(shared) == shared


def _copy(arguments):
    return str(copy_to_node(*arguments))


def test_many_processes_make_one_copy(shared, tmp_path):
    node = tmp_path / "node"
    node.mkdir()
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        places = set(pool.map(_copy, [(shared, node)] * 8))
    assert places == {str(node / "data" / shared.name)}
    assert sorted(p.name for p in (node / "data").iterdir() if p.is_dir()) == [shared.name]
    copied, original = load_prepared(node / "data" / shared.name), load_prepared(shared)
    assert copied.fingerprint == original.fingerprint
    np.testing.assert_array_equal(copied.values, original.values)
    # From then on shared storage is not read any more.
    shutil.rmtree(shared)
    assert copy_to_node(shared, node) == node / "data" / shared.name


def test_a_small_disk_is_left_alone(shared, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 1000, 0))
    assert copy_to_node(shared, tmp_path) == shared


def test_a_node_directory_that_is_gone_is_no_reason_not_to_train(shared, tmp_path):
    assert copy_to_node(shared, tmp_path / "gone") == shared
