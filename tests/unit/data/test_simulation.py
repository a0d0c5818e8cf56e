"""Simulated counts against the theory of the negative binomial, with the truth that is given."""

from __future__ import annotations

import numpy as np
import pytest

from scvitune.data import simulated
from scvitune.errors import InputError


def true_means(adata):
    """The mean of every count, from the parameters that the AnnData carries."""
    shift = adata.varm["batch_shift"].T[adata.obs["batch"].cat.codes.to_numpy()]
    logits = (
        adata.var["intercept"].to_numpy()
        + adata.obsm["latent"].astype(np.float64) @ adata.varm["loadings"].T
        + shift
    )
    shares = np.exp(logits)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares * adata.obs["library_size"].to_numpy()[:, None]


def z_scores(values, expected, variances):
    """Deviation of each column's sum from its expectation, in standard deviations."""
    return (values - expected).sum(axis=0) / np.sqrt(variances.sum(axis=0))


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_moments_are_those_of_theory(likelihood):
    adata = simulated(6000, 60, likelihood=likelihood, seed=3)
    counts = adata.X.toarray().astype(np.float64)
    means = true_means(adata)
    theta = adata.var["dispersion"].to_numpy()
    kept = 1 - adata.var["dropout"].to_numpy() if likelihood == "zinb" else np.ones(60)
    expected = kept * means
    variances = kept * (means + means**2 / theta + means**2) - expected**2

    z = z_scores(counts, expected, variances)
    assert np.abs(z).max() < 4.5
    assert 0.7 < np.std(z) < 1.35

    squares = (counts - expected) ** 2
    ratio = squares.sum(axis=0) / variances.sum(axis=0)
    assert abs(np.median(ratio) - 1) < 0.03
    assert np.all(np.abs(ratio - 1) < 0.5)

    zeros = 1 - kept + kept * (theta / (theta + means)) ** theta
    z = z_scores((counts == 0).astype(float), zeros, zeros * (1 - zeros))
    assert np.abs(z).max() < 4.5


def test_same_seed_same_data():
    one, two, other = (simulated(300, 40, seed=seed) for seed in (0, 0, 1))
    assert (one.X != two.X).nnz == 0
    assert one.obs.equals(two.obs)
    assert one.var.equals(two.var)
    assert np.array_equal(one.obsm["latent"], two.obsm["latent"])
    assert (one.X != other.X).nnz > 0


def test_cells_do_not_depend_on_how_many_follow():
    """Blocks have random streams of their own, so other blocks, or part of one, change nothing."""
    whole = simulated(1500, 40, likelihood="zinb", seed=2)
    for n_cells in (1, 512, 513, 1100):
        part = simulated(n_cells, 40, likelihood="zinb", seed=2)
        assert (part.X != whole.X[:n_cells]).nnz == 0
        assert part.obs.equals(whole.obs.iloc[:n_cells])
        assert np.array_equal(part.obsm["latent"], whole.obsm["latent"][:n_cells])


def test_form():
    adata = simulated(700, 30, n_batches=3, n_labels=4, n_latent=2)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    assert adata.X.has_canonical_format
    assert list(adata.layers) == []
    assert list(adata.obs["batch"].cat.categories) == ["batch_0", "batch_1", "batch_2"]
    assert set(adata.obs["cell_type"]) == {"type_0", "type_1", "type_2", "type_3"}
    assert adata.obsm["latent"].shape == (700, 2)
    assert adata.varm["loadings"].shape == (30, 2)
    assert "dropout" not in adata.var
    assert abs(adata.obs["library_size"].mean() - 1000) < 60


def test_without_a_batch_effect_batches_are_alike():
    assert not simulated(10, 30, batch_effect=0).varm["batch_shift"].any()


def test_faults_come_together():
    with pytest.raises(InputError) as error:
        simulated(0, 1, n_batches=2.5, likelihood="normal", mean_library=float("inf"))
    assert len(error.value.faults) == 5
