"""What every registered metric promises, over the live registry."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.special import comb, logsumexp

from scvitune.config import MetricOptions
from scvitune.contracts import Split
from scvitune.judging import Examiner
from scvitune.metrics import (
    METRICS,
    compute_clustering_scores,
    compute_imputation_errors,
    compute_marginal_ll,
    compute_scib_scores,
    metric_info,
    proportion_means,
)
from scvitune.models import get_adapter
from scvitune.training import (
    DeviceData,
    TrainingLoop,
    TrainingSettings,
    seeded_initialisation,
)

N_CELLS, N_LABELS = 240, 3
RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(N_LABELS), N_CELLS // N_LABELS)
BATCH = np.arange(N_CELLS) % 2


# ------------------------------------------------------------ metrics as functions of arrays


def latent_inputs():
    """Labels far apart and batches mixed; all cells alike; labels anywhere; NaN."""
    noise = RNG.normal(size=(N_CELLS, 4))
    nan = noise.copy()
    nan[0, 0] = np.nan
    return {
        "perfect": 100.0 * np.eye(4)[LABELS] + 0.01 * noise,
        "worst": 100.0 * np.eye(4)[RNG.permutation(LABELS)] + 0.01 * noise,
        "constant": np.zeros((N_CELLS, 4)),
        "nan": nan,
    }


def imputed_inputs():
    truth = RNG.poisson(5.0, 60).astype(float) + 1
    return {
        "perfect": truth,
        "worst": truth + 1e6,
        "constant": np.zeros(60),
        "nan": np.full(60, np.nan),
    }, truth


def proportion_inputs():
    truth = RNG.dirichlet(np.ones(4), size=30)
    return {
        "perfect": truth,
        "worst": 1 - truth,
        "constant": np.full_like(truth, 0.25),
        "nan": np.full_like(truth, np.nan),
    }, truth


UNINTEGRATED = np.random.default_rng(7).normal(size=(N_CELLS, 5)) + BATCH[:, None]
SCIB_SCORES: dict[bytes, dict[str, float]] = {}


def scib_of(latent):
    """Return the scores of a latent space, computed once: that takes seconds."""
    pytest.importorskip("scib_metrics", reason="the extra scib is not installed")
    key = latent.tobytes()
    if key not in SCIB_SCORES:
        SCIB_SCORES[key] = compute_scib_scores(latent, LABELS, BATCH, unintegrated=UNINTEGRATED)
    return SCIB_SCORES[key]


LATENT = latent_inputs()
IMPUTED, TRUTH = imputed_inputs()
PROPORTIONS, MIXTURES = proportion_inputs()
WEIGHTS = {
    "perfect": np.zeros((5, 7)),
    "worst": np.full((5, 7), -np.inf),
    "constant": np.full((5, 7), -3.0),
    "nan": np.full((5, 7), np.nan),
}


@dataclass(frozen=True)
class Case:
    """A metric as a function of arrays: its inputs by kind, and its best value."""

    inputs: dict
    compute: object
    best: float | None


def _clustering(latent):
    return compute_clustering_scores(latent, LABELS)


def _imputation(imputed):
    return compute_imputation_errors(TRUTH, imputed, np.arange(60) // 6)


def _proportions(found):
    return proportion_means(MIXTURES, found)


def _marginal(weights):
    return {"marginal_ll": compute_marginal_ll(weights).mean()}


CASES = {
    "marginal_ll": Case(WEIGHTS, _marginal, 0.0),
    **dict.fromkeys(
        ("imputation_mae_median", "imputation_mae_mean"), Case(IMPUTED, _imputation, 0.0)
    ),
    **dict.fromkeys(("nmi", "ari", "silhouette"), Case(LATENT, _clustering, 1.0)),
    **dict.fromkeys(("scib_batch", "scib_bio", "scib_total"), Case(LATENT, scib_of, None)),
    **dict.fromkeys(("proportion_pcc", "proportion_ssim"), Case(PROPORTIONS, _proportions, 1.0)),
    **dict.fromkeys(("proportion_rmse", "proportion_jsd"), Case(PROPORTIONS, _proportions, 0.0)),
}
MODEL_ONLY = {"elbo", "reconstruction_loss", "kl_local"}
"""Measured by the training loop itself, whose parity with scvi-tools has tests of its own."""

LOOSE = {"scib_batch"}
"""Mixed batches are no better mixed where labels mean nothing."""


def by_name(names):
    """Return names as parameters; jax compiles for a minute before the first of scIB's scores."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] if name.startswith("scib_") else [])
        for name in names
    ]


def value_of(name, kind):
    return float(CASES[name].compute(CASES[name].inputs[kind])[name])


def is_better(name, one, other):
    return one < other if METRICS[name].mode == "min" else one > other


def test_every_registered_metric_is_tested_here():
    assert set(CASES) | MODEL_ONLY == set(METRICS)


@pytest.mark.parametrize("name", by_name(sorted(CASES)))
def test_perfect_is_best_and_better_than_worst(name):
    perfect = value_of(name, "perfect")
    if CASES[name].best is not None:
        assert perfect == pytest.approx(CASES[name].best, abs=0.01)
    if name not in LOOSE:
        assert is_better(name, perfect, value_of(name, "worst"))


@pytest.mark.parametrize("name", by_name(sorted(CASES)))
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_a_constant_is_no_better_than_perfect(name):
    constant = value_of(name, "constant")
    assert not is_better(name, constant, value_of(name, "perfect")) or name in (
        LOOSE | {"marginal_ll"}
    )


@pytest.mark.parametrize("name", by_name(sorted(CASES)))
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_never_looks_good(name):
    try:
        value = value_of(name, "nan")
    except ValueError:
        return
    # The published scores of proportions count what is undefined as no relation at all.
    assert math.isnan(value) or not is_better(name, value, value_of(name, "constant"))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_it_is_found_by_the_names_of_tables(name):
    info = METRICS[name]
    full = f"{name}_validation" if info.splits else name
    assert metric_info(full)[0] is info
    assert info.mode in ("min", "max")
    assert info.cost in ("cheap", "dear")
    assert info.description


# ------------------------------------------------------------ independent implementations


def test_the_marginal_likelihood_is_scipys_logsumexp_far_from_zero():
    weights = np.random.default_rng(1).normal(-3000.0, 40.0, size=(20, 50))
    expected = logsumexp(weights, axis=1) - np.log(50)
    np.testing.assert_allclose(compute_marginal_ll(weights), expected, rtol=1e-12)
    single = compute_marginal_ll(weights.astype(np.float32))
    np.testing.assert_allclose(single, expected, rtol=1e-6)


def test_imputation_is_the_loop_over_cells():
    rng = np.random.default_rng(2)
    rows = np.sort(rng.integers(0, 12, 70))
    truth, imputed = rng.poisson(4.0, 70), rng.gamma(2.0, 2.0, 70)
    medians = [np.median(np.abs(truth - imputed)[rows == cell]) for cell in np.unique(rows)]
    found = compute_imputation_errors(truth, imputed, rows)
    assert found["imputation_mae_median"] == pytest.approx(np.median(medians))
    assert found["imputation_mae_mean"] == pytest.approx(np.mean(medians))


def test_clustering_follows_the_textbook():
    # Clusters that k-means cannot miss, and labels that agree with them only in part.
    rng = np.random.default_rng(3)
    clusters = np.repeat([0, 1, 2], [30, 20, 10])
    latent = 50.0 * np.eye(3)[clusters] + rng.normal(size=(60, 3))
    labels = np.where(rng.random(60) < 0.3, rng.integers(0, 3, 60), clusters)
    found = compute_clustering_scores(latent, labels)

    table = np.zeros((3, 3))
    np.add.at(table, (labels, clusters), 1)
    rows, columns, n = table.sum(1), table.sum(0), table.sum()
    pairs, in_rows, in_columns = (comb(x, 2).sum() for x in (table, rows, columns))
    chance = in_rows * in_columns / comb(n, 2)
    assert found["ari"] == pytest.approx((pairs - chance) / ((in_rows + in_columns) / 2 - chance))
    p = table / n
    outer = np.outer(rows, columns) / n**2
    mutual = np.sum(p[p > 0] * np.log(p[p > 0] / outer[p > 0]))
    entropies = [-np.sum(x / n * np.log(x / n)) for x in (rows, columns)]
    assert found["nmi"] == pytest.approx(mutual / np.mean(entropies))
    distances = np.linalg.norm(latent[:, None] - latent[None], axis=-1)
    widths = []
    for i, own in enumerate(labels):
        same = (labels == own) & (np.arange(60) != i)
        a = distances[i, same].mean()
        b = min(distances[i, labels == other].mean() for other in set(labels) - {own})
        widths.append((b - a) / max(a, b))
    assert found["silhouette"] == pytest.approx(np.mean(widths))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scib_is_the_benchmarkers(tmp_path, monkeypatch):
    pytest.importorskip("scib_metrics", reason="the extra scib is not installed")
    import anndata
    import pandas as pd
    from scib_metrics.benchmark import Benchmarker

    rng = np.random.default_rng(4)
    latent = (rng.normal(size=(N_CELLS, 5)) + 2 * np.eye(5)[LABELS]).astype(np.float32)
    unintegrated = (rng.normal(size=(N_CELLS, 5)) + BATCH[:, None]).astype(np.float32)
    adata = anndata.AnnData(
        rng.poisson(1.0, (N_CELLS, 20)).astype(np.float32),
        obs=pd.DataFrame(
            {"batch": pd.Categorical(BATCH), "label": pd.Categorical(LABELS)},
            index=[str(i) for i in range(N_CELLS)],
        ),
        obsm={"latent": latent, "unintegrated": unintegrated},
    )
    benchmarker = Benchmarker(
        adata,
        "batch",
        "label",
        ["latent"],
        pre_integrated_embedding_obsm_key="unintegrated",
        progress_bar=False,
    )
    benchmarker.benchmark()
    theirs = benchmarker.get_results().loc["latent"]
    ours = compute_scib_scores(latent, LABELS, BATCH, unintegrated=unintegrated)
    assert ours["scib_batch"] == pytest.approx(float(theirs["Batch correction"]), abs=1e-4)
    assert ours["scib_bio"] == pytest.approx(float(theirs["Bio conservation"]), abs=1e-4)
    assert ours["scib_total"] == pytest.approx(float(theirs["Total"]), abs=1e-4)


# ------------------------------------------------------------ metrics of a model

OF_A_MODEL = sorted(
    name
    for name, info in METRICS.items()
    if not name.startswith("proportion_")
    and (info.package is None or find_spec(info.package) is not None)
)
WITHOUT_SCIB = [name for name in OF_A_MODEL if not name.startswith("scib_")]
CONFIG = {"n_hidden": 24, "n_latent": 4, "lr": 5e-3, "batch_size": 64}
OPTIONS = MetricOptions(n_mc_samples=20)
TRAINED = 40


class Study:
    """Cells, a split, and models of them."""

    def __init__(self):
        import scvi

        from scvitune.data import prepare_anndata, simulated

        adata = simulated(500, 60, mean_library=400.0, seed=5, n_labels=N_LABELS, n_batches=2)
        scvi.model.SCVI.setup_anndata(adata, labels_key="cell_type", batch_key="batch")
        self.prepared = prepare_anndata(adata, model="SCVI")
        order = np.random.default_rng(0).permutation(self.prepared.n_cells)
        self.split = Split(*(np.sort(part) for part in np.split(order, [240, 380])))
        self.loops, self.values = {}, {}

    def loop(self, epochs, prepared=None):
        prepared = prepared or self.prepared
        with seeded_initialisation(0):
            objective = get_adapter("SCVI").build_objective(CONFIG, prepared)
        settings = TrainingSettings(**get_adapter("SCVI").training_arguments(CONFIG))
        data = DeviceData(prepared, torch.device("cpu"))
        loop = TrainingLoop(objective, data, self.split, settings, seed=0, evaluation_seed=1)
        loop.advance(epochs)
        return loop

    def trained(self):
        if "trained" not in self.loops:
            self.loops["trained"] = self.loop(TRAINED)
        return self.loops["trained"]

    def measure(self, loop, names, split, *, prepared=None, seed=0):
        examiner = Examiner(prepared or self.prepared, self.split, seed=seed, options=OPTIONS)
        return examiner.measure(loop, names, split, config=CONFIG)

    def value_among_all(self, name, epochs, split):
        """Return a metric of a model trained so far, measured once and with all others.

        Those that are not scIB's go without them, which are dear.
        """
        names = WITHOUT_SCIB if name in WITHOUT_SCIB else OF_A_MODEL
        key = epochs, split, len(names)
        if key not in self.values:
            loop = self.trained() if epochs == TRAINED else self.loop(epochs)
            self.values[key] = self.measure(loop, list(reversed(names)), split)
        return self.values[key][name]


@pytest.fixture(scope="module")
def study():
    return Study()


@pytest.mark.parametrize("name", by_name(OF_A_MODEL))
def test_training_moves_it_the_better_way(study, name):
    if name in ("kl_local", "scib_batch"):
        pytest.skip("a model that has learned nothing has the best one")
    before, after = (
        study.value_among_all(name, epochs, "validation") for epochs in (0.2, TRAINED)
    )
    assert is_better(name, after, before)


@pytest.mark.parametrize("name", by_name(OF_A_MODEL))
@pytest.mark.parametrize("split", ["validation", "test"])
def test_it_is_the_same_again_alone_or_with_others(study, name, split):
    loop = study.trained()
    alone = study.measure(loop, [name], split)
    assert study.measure(loop, [name], split) == alone
    assert study.value_among_all(name, TRAINED, split) == alone[name]


@pytest.mark.parametrize("name", by_name(OF_A_MODEL))
@pytest.mark.parametrize("split", ["validation", "test"])
def test_only_its_own_cells_count(study, name, split):
    """Counts of the other cells are shuffled among genes, and the metric does not notice."""
    rng = np.random.default_rng(6)
    own = getattr(study.split, split)
    if not METRICS[name].splits and split == "validation":  # all but the test cells
        own = np.concatenate([study.split.train, study.split.validation])
    values = study.prepared.values.copy()
    for cell in np.setdiff1d(np.arange(study.prepared.n_cells), own):
        rng.shuffle(values[study.prepared.indptr[cell] : study.prepared.indptr[cell + 1]])
    changed = replace(study.prepared, values=values)
    assert (values != study.prepared.values).any()
    loop = study.trained()
    other = study.loop(0, changed)
    other.module.load_state_dict(loop.module.state_dict())
    found = study.measure(other, [name], split, prepared=changed)
    assert found[name] == study.value_among_all(name, TRAINED, split)


@pytest.mark.parametrize(
    "names",
    [WITHOUT_SCIB, pytest.param(OF_A_MODEL, marks=pytest.mark.slow)],
    ids=["without scib", "with scib"],
)
def test_measuring_leaves_training_as_it_was(study, names):
    plain, measured = study.loop(2), study.loop(2)
    study.measure(measured, names, "validation")
    for loop in (plain, measured):
        loop.advance(4)
    for name, value in plain.copy_weights().items():
        assert torch.equal(value, measured.copy_weights()[name])
