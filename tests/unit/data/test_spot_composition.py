"""Spots of drawn composition: theory of the Dirichlet, cells told apart by genes of their own."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from scvitune.data import SimulatedSpots, simulate_composition
from scvitune.data._spot_shares import draw_shares
from scvitune.errors import InputError


@pytest.fixture
def own_genes():
    """120 cells of 6 types, each with 3 to 40 counts of a gene that no other cell has."""
    rng = np.random.default_rng(0)
    return sp.csr_matrix(np.diag(rng.integers(3, 41, 120))), np.arange(120) % 6


def cells_used(spots: SimulatedSpots, counts) -> np.ndarray:
    """How often each cell is in each spot, which private genes tell while nothing is thinned."""
    return spots.counts.toarray() / counts.diagonal()


def test_spots_are_sums_of_their_cells(own_genes):
    counts, labels = own_genes
    spots = simulate_composition(counts, labels, 6, n_spots=500)
    used = cells_used(spots, counts)
    assert set(np.unique(used)) == {0, 1}
    assert np.array_equal(used.sum(axis=1), spots.n_cells)
    of_types = used @ np.eye(6)[labels]
    assert np.allclose(spots.proportions, of_types / of_types.sum(axis=1, keepdims=True))
    assert np.array_equal(np.unique(spots.n_cells), np.arange(1, 11))
    assert stats.chisquare(np.bincount(spots.n_cells)[1:]).pvalue > 1e-3


def test_form(own_genes):
    counts, labels = own_genes
    spots = simulate_composition(counts.astype(np.uint8), labels, 6, n_spots=10)
    assert spots.counts.format == "csr"
    assert spots.counts.dtype == np.int64
    assert spots.counts.has_canonical_format
    assert spots.counts.shape == (10, 120)
    assert spots.proportions.dtype == np.float64
    assert np.allclose(spots.proportions.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert spots.n_cells.dtype == np.int64
    assert spots.coordinates.tolist() == [
        *([0, column] for column in range(4)),
        *([1, column] for column in range(4)),
        *([2, column] for column in range(2)),
    ]


def test_sums_do_not_overflow_a_small_type():
    counts = sp.csr_matrix(np.full((6, 2), 250, dtype=np.uint8))
    spots = simulate_composition(counts, np.zeros(6, int), 1, n_spots=20, max_cells=6)
    assert np.array_equal(spots.counts.toarray(), np.outer(spots.n_cells, [250, 250]))


def test_only_the_cells_given_are_used_and_their_order_does_not_matter(own_genes):
    counts, labels = own_genes
    given = np.random.default_rng(1).permutation(120)[:60]
    spots = simulate_composition(counts, labels, 6, n_spots=300, cells=given)
    used = cells_used(spots, counts).any(axis=0)
    assert set(np.flatnonzero(used)) == set(given)
    other = simulate_composition(counts, labels, 6, n_spots=300, cells=np.sort(given))
    assert (spots.counts != other.counts).nnz == 0


def test_cells_without_counts_are_not_used():
    counts = sp.csr_matrix([[0, 0], [1, 0], [1, 0], [0, 0], [0, 1], [0, 1]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    spots = simulate_composition(counts, labels, 2, n_spots=200, max_cells=2)
    assert np.array_equal(np.asarray(spots.counts.sum(axis=1)).ravel(), spots.n_cells)


def test_cells_repeat_only_where_a_type_has_too_few_and_then_evenly(own_genes):
    counts, labels = own_genes
    few = np.concatenate([np.flatnonzero(labels == 0)[:2], np.flatnonzero(labels > 0)])
    spots = simulate_composition(counts, labels, 6, n_spots=300, cells=few)
    used = cells_used(spots, counts)
    assert used[:, labels > 0].max() == 1
    pair = used[:, few[:2]]
    assert pair.max() > 1
    assert np.abs(pair[:, 0] - pair[:, 1]).max() == 1


def test_same_seed_same_spots_other_seed_other_spots(own_genes):
    counts, labels = own_genes
    arguments = {"n_spots": 50, "depths": np.arange(20, 90), "smoothness": 1.5}
    one, two, other = (
        simulate_composition(counts, labels, 6, **arguments, seed=seed) for seed in (0, 0, 1)
    )
    assert (one.counts != two.counts).nnz == 0
    assert np.array_equal(one.proportions, two.proportions)
    assert np.array_equal(one.n_cells, two.n_cells)
    assert (one.counts != other.counts).nnz > 0
    assert not np.array_equal(one.proportions, other.proportions)


def test_compositions_do_not_depend_on_depths(own_genes):
    counts, labels = own_genes
    free = simulate_composition(counts, labels, 6, n_spots=80)
    deep = simulate_composition(counts, labels, 6, n_spots=80, depths=np.array([700, 900]))
    assert np.array_equal(free.proportions, deep.proportions)


@pytest.mark.parametrize("smoothness", [0.0, 2.0])
@pytest.mark.parametrize("concentration", [0.02, 1.0, 3.0, 200.0])
def test_shares_are_those_of_a_dirichlet(concentration, smoothness):
    """A lone spot a seed, so that draws are independent however smooth the grid is."""
    shares = np.concatenate(
        [
            draw_shares(
                np.random.default_rng(seed),
                9,
                5,
                concentration=concentration,
                smoothness=smoothness,
            )[4:5]
            for seed in range(1500)
        ]
    )
    assert np.allclose(shares.sum(axis=1), 1)
    expected = stats.dirichlet.rvs([concentration / 5] * 5, size=1500, random_state=0)
    # At low concentrations most shares are 0 or 1, to within rounding.
    shares, expected = shares.round(9), expected.round(9)
    for code in range(5):
        assert stats.ks_2samp(shares[:, code], expected[:, code]).statistic < 0.07
    for summary in (np.max, np.min):
        found = stats.ks_2samp(summary(shares, axis=1), summary(expected, axis=1))
        assert found.statistic < 0.07


@pytest.mark.parametrize("concentration", [1.0, 3.0, 50.0])
def test_as_many_types_a_spot_as_documented(concentration):
    """The formula's own derivation: a type is absent if each further cell is of another."""
    n_types, n_spots = 12, 6000
    counts, labels = sp.csr_matrix(np.ones((120, 1))), np.arange(120) % n_types
    spots = simulate_composition(
        counts, labels, n_types, n_spots=n_spots, concentration=concentration, max_cells=10
    )
    present = np.count_nonzero(spots.proportions, axis=1)
    for n_cells in (1, 4, 10):
        before = np.arange(n_cells)
        absent = np.prod(1 - (concentration / n_types) / (concentration + before))
        chosen = present[spots.n_cells == n_cells]
        error = chosen.std() / np.sqrt(len(chosen))
        assert abs(chosen.mean() - n_types * (1 - absent)) <= 4.5 * error + 1e-9
    if concentration == 3.0:
        assert 2.5 < present.mean() < 3.5


def test_types_are_equally_frequent_however_many_cells_they_have():
    labels = np.repeat([0, 1, 2], [1000, 100, 10])
    spots = simulate_composition(sp.csr_matrix(np.ones((1110, 1))), labels, 3, n_spots=4000)
    assert np.abs(spots.proportions.mean(axis=0) - 1 / 3).max() < 0.03


def morans_i(values, coordinates):
    """Moran's I of each column with rook neighbours, by its definition."""
    distance = np.abs(coordinates[:, None, :] - coordinates[None, :, :]).sum(axis=2)
    weights = (distance == 1).astype(float)
    centred = values - values.mean(axis=0)
    products = np.einsum("ik,ij,jk->k", centred, weights, centred)
    return len(values) / weights.sum() * products / (centred**2).sum(axis=0)


def test_smoothness_makes_neighbours_alike():
    labels = np.arange(80) % 8
    counts = sp.csr_matrix(np.ones((80, 1)))
    found = {}
    for smoothness in (0.0, 0.5, 1.0, 3.0):
        spots = simulate_composition(
            counts, labels, 8, n_spots=900, smoothness=smoothness, max_cells=100, seed=3
        )
        found[smoothness] = morans_i(spots.proportions, spots.coordinates).mean()
    assert abs(found[0.0]) < 0.03
    assert found[0.0] + 0.1 < found[0.5]
    assert found[0.5] + 0.1 < found[1.0]
    assert found[1.0] + 0.1 < found[3.0]


def test_fields_correlate_as_documented():
    smoothness, side = 1.5, 40
    products = []
    for seed in range(60):
        shares = draw_shares(
            np.random.default_rng(seed), side**2, 2, concentration=1e5, smoothness=smoothness
        )
        # At this concentration the difference of shares is linear in the two fields.
        scaled = (shares[:, 0] - shares[:, 1]).reshape(side, side) * np.sqrt(1e5)
        products.append([np.mean(scaled[:, d:] * scaled[:, : side - d]) for d in range(5)])
    found = np.mean(products, axis=0)
    expected = np.exp(-(np.arange(5) ** 2) / (4 * smoothness**2))
    assert np.allclose(found, expected, atol=0.05)


def test_depths_are_the_real_ones(own_genes):
    counts, labels = own_genes
    rng = np.random.default_rng(5)
    depths = rng.lognormal(4.5, 0.8, 400).round().astype(int) + 1
    same = simulate_composition(counts, labels, 6, n_spots=400, depths=depths)
    totals = np.asarray(same.counts.sum(axis=1)).ravel()
    assert np.array_equal(np.sort(totals), np.sort(depths))

    for n_spots in (150, 1000):
        spots = simulate_composition(counts, labels, 6, n_spots=n_spots, depths=depths)
        totals = np.asarray(spots.counts.sum(axis=1)).ravel()
        assert stats.ks_2samp(totals, depths).statistic < 1.01 / min(n_spots, 400)
        levels = [0.1, 0.5, 0.9]
        assert np.allclose(np.quantile(totals, levels), np.quantile(depths, levels), rtol=0.05)


def test_spots_of_many_cells_are_the_deep_ones(own_genes):
    counts, labels = own_genes
    arguments = {"n_spots": 300, "seed": 2}
    sums = simulate_composition(counts, labels, 6, **arguments).counts.sum(axis=1)
    spots = simulate_composition(counts, labels, 6, **arguments, depths=np.arange(2, 302))
    totals = np.asarray(spots.counts.sum(axis=1)).ravel()
    assert stats.kendalltau(np.asarray(sums).ravel(), totals).statistic > 0.99


def test_thinning_keeps_each_count_with_the_same_chance():
    """Against the moments of the multivariate hypergeometric distribution."""
    profile = np.array([50, 30, 15, 5, 0])
    counts = sp.csr_matrix(np.tile(profile, (2, 1)))
    spots = simulate_composition(
        counts, np.zeros(2, int), 1, n_spots=4000, max_cells=1, depths=np.array([20])
    )
    kept = spots.counts.toarray()
    assert (kept <= profile).all()
    assert (kept.sum(axis=1) == 20).all()
    theory = stats.multivariate_hypergeom(profile, 20)
    assert np.allclose(kept.mean(axis=0), theory.mean(), atol=0.1)
    assert np.allclose(np.cov(kept.T), theory.cov(), atol=0.3)
    assert spots.counts.has_canonical_format
    assert spots.counts.data.min() > 0


def test_deeper_spots_take_more_cells_of_the_same_types(own_genes):
    counts, labels = own_genes
    arguments = {"n_spots": 100, "max_cells": 3}
    free = simulate_composition(counts, labels, 6, **arguments)
    deep = simulate_composition(counts, labels, 6, **arguments, depths=np.array([400]))
    assert (np.asarray(deep.counts.sum(axis=1)) == 400).all()
    times = deep.n_cells / free.n_cells
    assert np.array_equal(times, times.round())
    assert times.max() > 3
    assert np.array_equal(free.proportions, deep.proportions)
    # 400 counts are some 18 cells of 22 counts; a few more, since all must reach the depth.
    assert deep.n_cells.mean() < 23
    # Spots of one type need up to 40 of its 20 cells, so each is there twice at most.
    assert (deep.counts.toarray() <= 2 * counts.diagonal()).all()


def test_no_spot_is_empty_at_any_depth(own_genes):
    counts, labels = own_genes
    spots = simulate_composition(counts, labels, 6, n_spots=50, depths=np.array([1]))
    assert (np.asarray(spots.counts.sum(axis=1)) == 1).all()


def refusal(*arguments, **named):
    with pytest.raises(InputError) as error:
        simulate_composition(*arguments, **named)
    return error.value.faults


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_spots": 0}, "n_spots must be a whole number of at least 1, but got 0"),
        ({"n_spots": None}, "n_spots must be a whole number"),
        ({"n_spots": 2.5}, "n_spots must be a whole number"),
        ({"max_cells": 0}, "max_cells must be a whole number of at least 1"),
        ({"max_cells": 10**6}, "max_cells must be at most 10000"),
        ({"concentration": 0}, "concentration must be a number from 0.01"),
        ({"concentration": float("nan")}, "concentration must be a number"),
        ({"smoothness": -1}, "smoothness must be a number of at least 0, but got -1"),
        ({"smoothness": 5}, "smoothness must be at most 4"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"cells": []}, "cells is empty"),
        ({"cells": [0, 120]}, r"cells must be indices from 0 to 119, but 1 are not \(first: 120"),
        ({"cells": [0, 1, 1]}, "cells names 1 cells more than once"),
        ({"cells": np.ones(120, bool)}, r"cells must be a list .* np.flatnonzero\(mask\)"),
        ({"cells": [0.5]}, "cells must be a list of whole numbers"),
        ({"cells": np.arange(7)}, r"5 of 6 cell types .* fewer than 2 .*: '1' \(1\), '2' \(1\)"),
        ({"depths": []}, "depths to match must be an AnnData of spots or a list"),
        ({"depths": [[1, 2]]}, "depths to match must be"),
        ({"depths": ["deep"]}, "depths to match must be"),
        ({"depths": [5, 0, 7.5, np.nan]}, r"3 of the 4 depths .* \(first: 0 of spot 1\)"),
        ({"depths": [10**10]}, "has 10000000000 counts; fewer than"),
        ({"depths": [10**7]}, "would take some .* cells of type"),
    ],
)
def test_what_cannot_be_simulated_is_refused(own_genes, changes, message):
    faults = refusal(*own_genes, 6, **({"n_spots": 16} | changes))
    assert len(faults) == 1
    with pytest.raises(InputError, match=message):
        raise InputError(faults)


def test_counts_and_labels_that_do_not_fit(own_genes):
    counts, labels = own_genes
    wrong = counts.astype(float)
    wrong.data[:3] = [-1, 0.5, np.nan]
    faults = refusal(wrong, labels[:-1], 6, n_spots=5)
    assert [fault.split(" (first")[0] for fault in faults] == [
        "counts holds 1 NaN values",
        "counts holds 1 fractional values",
        "counts holds 1 negative values",
        "labels must be 120 whole numbers, one a cell, but got int64 of shape (119,).",
    ]
    assert "codes from 0 to 3, but are from 0 to 5" in refusal(counts, labels, 4, n_spots=5)[0]
    assert "from -1 to 4" in refusal(counts, labels - 1, 6, n_spots=5)[0]
    assert "n_labels must be" in refusal(counts, labels, 0, n_spots=5)[0]
    assert "strings" not in refusal(counts, labels.astype(str), 6, n_spots=5)[0]
    assert "cannot be thinned" in refusal(counts * 10**7, labels, 6, n_spots=5, depths=[9])[0]


def test_faults_come_together(own_genes):
    faults = refusal(*own_genes, 6, n_spots=0, max_cells=0, smoothness=-1, depths=[0], cells=[-1])
    assert len(faults) == 5
