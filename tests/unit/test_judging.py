"""Metrics of trained models against scvi-tools' own, and functions of the user's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scvitune.config import MetricOptions
from scvitune.data import prepare_anndata, simulated, split_cells
from scvitune.judging import Examiner, MetricError
from scvitune.metrics import corrupt_counts
from scvitune.models import get_adapter
from scvitune.training import (
    DeviceData,
    GeneratorNoise,
    TrainingLoop,
    TrainingSettings,
    seeded_initialisation,
)

SMALL = {"n_hidden": 24, "n_latent": 3, "n_layers": 1, "lr": 5e-3, "batch_size": 64}
MODELS = {
    "nb": ("SCVI", {"gene_likelihood": "nb"}),
    "zinb": ("SCVI", {"gene_likelihood": "zinb"}),
    "poisson": ("SCVI", {"gene_likelihood": "poisson"}),
    "batch dispersion": ("SCVI", {"gene_likelihood": "nb", "dispersion": "gene-batch"}),
    "learned library": ("SCVI", {"gene_likelihood": "nb", "use_observed_lib_size": False}),
    "linear": ("LinearSCVI", {"gene_likelihood": "nb"}),
}


class Trained:
    """A small model trained by our loop, and the same one as scvi-tools has it."""

    def __init__(self, name, config, *, epochs=30):
        import scvi

        self.adata = simulated(260, 30, mean_library=200.0, seed=1, n_labels=3, n_batches=2)
        model_class = getattr(scvi.model, name)
        model_class.setup_anndata(self.adata, batch_key="batch", labels_key="cell_type")
        self.prepared = prepare_anndata(self.adata, model=name)
        self.split = split_cells(self.prepared.n_cells, train_size=0.6, test_size=0.2, seed=0)
        self.config = SMALL | config
        adapter = get_adapter(name)
        with seeded_initialisation(0):
            objective = adapter.build_objective(self.config, self.prepared)
        settings = TrainingSettings(**adapter.training_arguments(self.config))
        data = DeviceData(self.prepared, torch.device("cpu"))
        self.loop = TrainingLoop(objective, data, self.split, settings, seed=0, evaluation_seed=0)
        self.loop.advance(epochs)
        self.model = adapter.build_model(
            self.adata,
            self.config,
            weights=self.loop.copy_weights(),
            train_indices=self.split.train,
            validation_indices=self.split.validation,
            test_indices=self.split.test,
            history={},
        )

    def examiner(self, *, seed=0, functions=None, **options):
        return Examiner(
            self.prepared,
            self.split,
            seed=seed,
            options=MetricOptions(**options),
            functions=functions,
        )

    def measure(self, names, split="validation", **arguments):
        return self.examiner(**arguments).measure(self.loop, names, split, config=self.config)


@pytest.fixture(scope="module")
def trained():
    made = {}

    def get(key="nb"):
        if key not in made:
            made[key] = Trained(*MODELS[key])
        return made[key]

    return get


@pytest.mark.parametrize("key", MODELS)
def test_the_marginal_likelihood_is_scvi_tools(trained, key):
    """Within the Monte-Carlo error of either, known from repeats."""
    import scvi

    one = trained(key)
    ours = [
        one.measure(["marginal_ll"], seed=seed, n_mc_samples=100)["marginal_ll"]
        for seed in range(8)
    ]
    theirs = []
    for seed in range(8):
        scvi.settings.seed = seed
        cells = one.model.get_marginal_ll(
            indices=one.split.validation, n_mc_samples=100, return_mean=False
        )
        theirs.append(float(cells.mean()))
    error = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 8)
    assert abs(np.mean(ours) - np.mean(theirs)) < 4 * error + 1e-3
    elbo = one.loop.evaluate("validation")["elbo"]
    assert np.mean(ours) > -elbo


def test_importance_weights_are_densities_by_torch(trained):
    """Exactly, with the noise fixed: the module's own decoder and torch's distributions."""
    from torch.distributions import Normal

    from scvitune.models import log_importance_weights

    one = trained("zinb")
    one.loop.module.eval()
    module = one.loop.module
    cells = torch.from_numpy(one.split.validation[:7])
    batch = DeviceData(one.prepared, torch.device("cpu")).gather(cells)
    found = log_importance_weights(
        one.loop.objective, batch, GeneratorNoise(3, torch.device("cpu")), n_samples=2
    )
    noise = GeneratorNoise(3, torch.device("cpu"))
    with torch.inference_mode():
        x, index = batch.counts.densify(), batch.batch.unsqueeze(1)
        posterior = module.inference(x, index)["qz"]
        noise.normal(posterior.loc)  # the encoder's own draw
        for s in range(2):
            z = posterior.loc + posterior.scale * noise.normal(posterior.loc)
            given = module.generative(z, batch.log_library, index)["px"].log_prob(x).sum(-1)
            prior = Normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z).sum(-1)
            expected = given + prior - posterior.log_prob(z).sum(-1)
            torch.testing.assert_close(found[:, s].float(), expected, rtol=1e-5, atol=1e-3)


def test_imputation_is_the_modules_rates_at_the_corrupted_counts(trained, monkeypatch):
    one = trained("nb")
    examiner = one.examiner()
    found = examiner.measure(
        one.loop, ["imputation_mae_median", "imputation_mae_mean"], "validation", config=one.config
    )
    corrupted, data = examiner.corrupted("validation", torch.device("cpu"))
    batch = data.gather(torch.arange(data.n_cells))
    with torch.inference_mode():
        module = one.loop.module.eval()
        index = batch.batch.unsqueeze(1)
        rates = torch.zeros(data.n_cells, data.n_genes)
        torch.manual_seed(0)
        for _ in range(200):
            inferred = module.inference(batch.counts.densify(), index)
            rates += module.generative(inferred["z"], inferred["library"], index)["px"].mean / 200
    errors = np.abs(rates.numpy()[corrupted.rows, corrupted.columns] - corrupted.truth)
    medians = [np.median(errors[corrupted.rows == c]) for c in np.unique(corrupted.rows)]
    # Ten draws against two hundred.
    assert found["imputation_mae_mean"] == pytest.approx(np.mean(medians), rel=0.05)
    assert found["imputation_mae_median"] == pytest.approx(np.median(medians), rel=0.1)


@pytest.mark.parametrize("corruption", ["uniform", "binomial"])
def test_a_tenth_of_the_counts_is_corrupted_and_no_other(trained, corruption):
    prepared = trained().prepared
    cells = np.array([5, 3, 40, 41, 42])
    given = corrupt_counts(prepared, cells, corruption=corruption, share=0.1, seed=1)
    before = np.stack([_row(prepared, cell) for cell in cells])
    after = np.stack([_row(given.prepared, row) for row in range(len(cells))])
    n_counts = int((before > 0).sum())
    assert len(given.truth) == int(0.1 * n_counts)
    np.testing.assert_array_equal(before[given.rows, given.columns], given.truth)
    assert (given.truth > 0).all()
    touched = np.zeros_like(before, dtype=bool)
    touched[given.rows, given.columns] = True
    np.testing.assert_array_equal(after[~touched], before[~touched])
    if corruption == "uniform":
        assert (after[touched] == 0).all()
    else:
        assert (after[touched] <= before[touched]).all()
        everywhere = corrupt_counts(
            prepared, np.arange(260), corruption="binomial", share=0.5, seed=1
        )
        rows = np.stack([_row(everywhere.prepared, row) for row in range(260)])
        kept = rows[everywhere.rows, everywhere.columns].sum() / everywhere.truth.sum()
        assert kept == pytest.approx(0.2, abs=0.01)
    np.testing.assert_array_equal(given.prepared.batch, prepared.batch[cells])
    again = corrupt_counts(prepared, cells, corruption=corruption, share=0.1, seed=1)
    np.testing.assert_array_equal(again.prepared.values, given.prepared.values)


def test_no_cell_is_left_without_counts(trained):
    given = corrupt_counts(trained().prepared, np.arange(50), share=0.999, seed=0)
    assert (np.diff(given.prepared.indptr) > 0).all()


def _row(prepared, row):
    dense = np.zeros(prepared.n_genes)
    part = slice(prepared.indptr[row], prepared.indptr[row + 1])
    dense[prepared.indices[part]] = prepared.values[part]
    return dense


def test_the_latent_space_is_scvi_tools(trained):
    one = trained("zinb")
    seen = {}

    def keep(model, data, cells):
        seen["latent"] = model.get_latent_representation(cells)
        seen["all"] = model.get_latent_representation()
        seen["config"], seen["module"] = model.config, model.module
        seen["cells"], seen["data"] = cells, data
        return 1

    assert one.measure(["mine"], functions={"mine": keep}) == {"mine": 1.0}
    np.testing.assert_allclose(
        seen["latent"],
        one.model.get_latent_representation(indices=one.split.validation),
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_array_equal(seen["all"][one.split.validation], seen["latent"])
    np.testing.assert_array_equal(seen["cells"], one.split.validation)
    assert seen["data"] is one.prepared
    assert seen["config"] == one.config
    assert seen["module"] is one.loop.module
    assert not seen["module"].training


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda *_: 1 / 0, "raised ZeroDivisionError"),
        (lambda *_: float("nan"), "returned nan"),
        (lambda *_: "much", "raised ValueError"),
        (lambda *_: exit(3), "raised SystemExit"),
        (lambda model: 1.0, "raised TypeError"),
    ],
)
def test_a_function_of_the_users_that_fails_says_so(trained, function, words):
    with pytest.raises(MetricError, match=words):
        trained().measure(["mine"], functions={"mine": function})


def test_at_most_so_many_cells_are_measured_the_same_for_all(trained):
    one = trained()
    some = one.examiner(max_cells=10)
    chosen = some.cells("validation")
    assert len(chosen) == 10
    assert set(chosen) <= set(one.split.validation)
    np.testing.assert_array_equal(chosen, one.examiner(max_cells=10).cells("validation"))
    assert set(chosen) != set(one.examiner(max_cells=10, seed=1).cells("validation"))
    assert not set(one.examiner().integration_cells("validation")) & set(one.split.test)
    np.testing.assert_array_equal(one.examiner().integration_cells("test"), one.split.test)


def test_siblings_on_the_test_cells_are_computed_once(trained, monkeypatch, tmp_path):
    """NMI, ARI and silhouette come of one clustering, both imputation errors of one corruption."""
    from scvitune import judging
    from scvitune.contracts import RunLayout
    from scvitune.results import Run
    from scvitune.results._judging import measure_on_test_cells, tested_metrics

    calls = []
    for name in ("compute_clustering_scores", "compute_imputation_medians"):
        real = getattr(judging, name)
        monkeypatch.setattr(
            judging,
            name,
            lambda *a, _real=real, _name=name, **k: calls.append(_name) or _real(*a, **k),
        )
    one = trained()
    settings = {
        "model": "SCVI",
        "metric": "nmi_validation",
        "mode": "max",
        "further_metrics": ["ari_validation", "silhouette_validation"],
    }
    run = Run(RunLayout(tmp_path), settings, {}, driver_alive=False)
    wanted = tested_metrics(run, {})
    found = measure_on_test_cells(one.loop, one.examiner(), wanted, one.config)
    assert {"nmi_test", "ari_test", "silhouette_test", "imputation_mae_mean_test"} <= set(found)
    assert sorted(calls) == ["compute_clustering_scores", "compute_imputation_medians"]
    of_cells = one.examiner().measure_cells(one.loop, wanted, "test")
    calls.clear()
    again = measure_on_test_cells(one.loop, one.examiner(), wanted, one.config, of_cells)
    assert calls == ["compute_clustering_scores"]  # both imputation errors are of the cells
    assert again == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("base", ["elbo", "reconstruction_loss", "kl_local", "marginal_ll"])
@pytest.mark.parametrize("key", ["zinb", "learned library"])
def test_single_cells_have_the_metric_as_their_mean(trained, base, key):
    one = trained(key)
    examiner = one.examiner(n_mc_samples=20)
    of_cells = examiner.measure_cells(one.loop, [base], "test")
    values = of_cells[base]
    assert values.shape == (len(one.split.test),)
    assert values.std() > 0
    mean = examiner.measure(one.loop, [base], "test", config=one.config)[base]
    assert values.mean() == pytest.approx(mean, rel=1e-6)
    np.testing.assert_array_equal(examiner.measure_cells(one.loop, [base], "test")[base], values)
    taken = examiner.measure(one.loop, [base], "test", config=one.config, of_cells=of_cells)
    assert taken == {base: values.mean()}


def test_imputation_errors_of_cells_have_the_metrics_as_mean_and_median(trained):
    one = trained("nb")
    names = ["imputation_mae_mean", "imputation_mae_median"]
    of_cells = one.examiner().measure_cells(one.loop, names, "test")
    values = of_cells["imputation_mae_mean"]
    assert set(of_cells) == {"imputation_mae_mean"}
    found = one.measure(names, "test")
    assert 2 < len(values) <= len(one.split.test)
    assert found == {names[0]: values.mean(), names[1]: np.median(values)}


def test_cells_come_in_the_order_of_the_split(trained):
    """Reconstruction by scvi-tools of each cell, to its Monte-Carlo error."""
    one = trained("nb")
    ours = one.examiner().measure_cells(one.loop, ["elbo"], "test")["reconstruction_loss"]
    torch.manual_seed(0)
    draws = [
        one.model.get_reconstruction_error(indices=one.split.test, return_mean=False)[
            "reconstruction_loss"
        ]
        for _ in range(50)
    ]
    theirs, spread = np.mean(draws, axis=0), np.std(draws, axis=0, ddof=1)
    assert (np.abs(ours - theirs) < 6 * spread + 1e-3 * np.abs(theirs)).all()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95


def test_what_is_no_mean_over_cells_says_so(trained):
    one = trained("nb")

    def elbo(model, data, cells):
        return 1.0

    examiner = one.examiner(functions={"elbo": elbo})
    others = ("nmi", "scib_total", "imputation_mae_median", "elbo")
    assert examiner.measure_cells(one.loop, others, "test") == {}
