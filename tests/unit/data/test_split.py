"""Splits: sizes as scvi-tools counts, one seed one split, strata within one cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scvi.dataloaders._data_splitting import validate_data_split

from scvitune.data import load_split, save_split, split_cells, take_share
from scvitune.errors import InputError, StudyError


def parts(split):
    return split.train, split.validation, split.test


@pytest.mark.parametrize(
    ("n_cells", "train_size", "test_size"),
    [(700, 0.8, 0.1), (701, 0.8, 0.1), (100, 0.55, 0.29), (20, 0.9, 0.0), (2, 0.5, 0.0)],
)
def test_sizes_are_those_of_scvi_tools(n_cells, train_size, test_size):
    split = split_cells(n_cells, train_size=train_size, test_size=test_size, seed=0)
    n_train, n_other = validate_data_split(n_cells, train_size, test_size)
    assert len(split.train) == n_train
    assert len(split.test) == n_other
    together = np.concatenate(parts(split))
    assert np.array_equal(np.sort(together), np.arange(n_cells))
    for part in parts(split):
        assert part.dtype == np.int64
        assert np.all(np.diff(part) > 0)


def test_a_seed_means_one_split_and_zero_is_a_seed():
    def train(seed):
        return split_cells(500, train_size=0.8, test_size=0.1, seed=seed).train

    assert np.array_equal(train(0), train(0))
    assert not np.array_equal(train(0), train(1))
    # Pinned, so that no release silently resplits the studies of the one before.
    assert train(0)[:8].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_every_cell_may_land_anywhere():
    hits = np.zeros((3, 50))
    for seed in range(300):
        split = split_cells(50, train_size=0.6, test_size=0.2, seed=seed)
        for row, part in zip(hits, parts(split), strict=True):
            row[part] += 1
    # Binomial(300, p): six standard deviations.
    for row, share in zip(hits / 300, (0.6, 0.2, 0.2), strict=True):
        assert np.all(np.abs(row - share) < 6 * np.sqrt(share * (1 - share) / 300))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    train_size=st.floats(0.1, 0.8),
    test_size=st.floats(0.0, 0.15),
    seed=st.integers(0, 1000),
)
def test_strata_keep_their_share_within_one_cell(sizes, train_size, test_size, seed):
    codes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    n_cells = len(codes)
    try:
        plain = split_cells(n_cells, train_size=train_size, test_size=test_size, seed=seed)
    except InputError:
        return
    split = split_cells(
        n_cells, train_size=train_size, test_size=test_size, seed=seed, stratify=codes
    )
    assert [len(part) for part in parts(split)] == [len(part) for part in parts(plain)]
    assert np.array_equal(np.sort(np.concatenate(parts(split))), np.arange(n_cells))
    for code, size in zip(np.arange(len(sizes)) * 3, sizes, strict=True):
        for part in parts(split):
            expected = size * len(part) / n_cells
            assert abs(np.count_nonzero(codes[part] == code) - expected) < 1 + 1e-6


def test_strata_may_have_names_and_are_seeded():
    names = np.random.default_rng(0).choice(["B", "T", "NK"], 300)
    one, two = (
        split_cells(300, train_size=0.8, test_size=0.1, seed=3, stratify=names) for _ in range(2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(parts(one), parts(two), strict=True))


def test_faults_come_together():
    with pytest.raises(InputError) as error:
        split_cells(100, train_size=1.5, test_size=-0.1, seed=0)
    assert len(error.value.faults) == 2
    for size in (0, True, "0.8", float("nan"), None):
        with pytest.raises(InputError, match="train_size must be a number"):
            split_cells(100, train_size=size, test_size=0.1, seed=0)
    with pytest.raises(InputError, match="n_cells"):
        split_cells(1, train_size=0.5, test_size=0, seed=0)


@pytest.mark.parametrize(
    ("n_cells", "sizes"), [(100, (0.9, 0.1)), (100, (1.0, 0)), (15, (0.9, 0.1))]
)
def test_no_cell_left_to_validate_with(n_cells, sizes):
    with pytest.raises(InputError, match="leave no cell to validate with"):
        split_cells(n_cells, train_size=sizes[0], test_size=sizes[1], seed=0)


def test_strata_of_another_length():
    with pytest.raises(InputError, match=r"shape \(5,\).*20 cells"):
        split_cells(20, train_size=0.8, test_size=0.1, seed=0, stratify=np.zeros(5))


def test_a_split_comes_back(tmp_path):
    split = split_cells(70, train_size=0.8, test_size=0.1, seed=0)
    path = tmp_path / "splits.npz"
    save_split(split, path)
    save_split(split, path)
    loaded = load_split(path)
    for name in ("train", "validation", "test"):
        assert np.array_equal(loaded[name], split[name])
        assert loaded[name].dtype == np.int64
    assert [p.name for p in tmp_path.iterdir()] == ["splits.npz"]


def test_a_missing_or_broken_split_is_told(tmp_path):
    path = tmp_path / "splits.npz"
    with pytest.raises(StudyError, match="is missing"):
        load_split(path)
    save_split(split_cells(70, train_size=0.8, test_size=0.1, seed=0), path)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(StudyError, match="cannot be read as a split"):
            load_split(path)
    with path.open("wb") as file:
        np.savez(file, train=np.arange(3))
    with pytest.raises(StudyError, match="cannot be read as a split"):
        load_split(path)


def test_parts_of_the_training_cells_are_nested():
    split = split_cells(100, train_size=0.5, test_size=0.1, seed=0)
    parts = [take_share(split, share, seed=3) for share in (0.02, 0.3, 0.31, 1.0)]
    assert [len(part.train) for part in parts] == [1, 15, 16, 50]
    for smaller, larger in zip(parts, parts[1:], strict=False):
        assert set(smaller.train) < set(larger.train)
        assert np.array_equal(smaller.validation, split.validation)
    assert np.array_equal(parts[-1].train, split.train)
    again, other = take_share(split, 0.3, seed=3), take_share(split, 0.3, seed=4)
    assert np.array_equal(again.train, parts[1].train)
    assert not np.array_equal(other.train, parts[1].train)
