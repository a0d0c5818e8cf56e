"""Scores of cell-type proportions against the published table and other people's functions."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import pearsonr
from sklearn.metrics import mean_squared_error

from scvitune.errors import InputError
from scvitune.metrics import compute_proportion_metrics, proportion_means

COLUMNS = ["pcc", "ssim", "rmse", "jsd"]
UNDEFINED = [0.0, 0.0, 1.0, 1.0]
TYPES = ["Astro", "Endo", "Micro", "Olig"]


def published_ssim(x, y):
    if not x.max() or not y.max():
        return np.nan
    x, y = x / x.max(), y / y.max()
    c1, c2 = 0.01**2, 0.03**2
    c3 = c2 / 2
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    contrast = (2 * x.std() * y.std() + c2) / (x.var() + y.var() + c2)
    return luminance * contrast * (covariance + c3) / (x.std() * y.std() + c3)


def published_scores(x, y):
    """Four scores of two vectors, by the libraries that the published evaluation calls."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        values = [
            pearsonr(x, y)[0] if len(x) > 1 else np.nan,
            published_ssim(x, y),
            np.sqrt(mean_squared_error(x, y)),
            # where rounding leaves the divergence below zero, SciPy's root of it is NaN
            np.nan_to_num(jensenshannon(x, y)) if x.any() and y.any() else np.nan,
        ]
    return [instead if np.isnan(v) else v for v, instead in zip(values, UNDEFINED, strict=True)]


def published_table(truth, predicted, *, per="type"):
    if per == "type":
        truth, predicted = truth.T, predicted.T
    return np.array([published_scores(x, y) for x, y in zip(truth, predicted, strict=True)])


def shares(counts):
    sums = counts.sum(axis=1, keepdims=True)
    return counts / np.where(sums == 0, 1, sums)


def draw(n_spots=30, n_types=4, *, seed=0, alpha=0.5):
    rng = np.random.default_rng(seed)
    return tuple(rng.dirichlet(np.full(n_types, alpha), n_spots) for _ in range(2))


def frames(n_spots=6, *, seed=0):
    spots = [f"spot{i}" for i in range(n_spots)]
    return tuple(
        pd.DataFrame(values, index=spots, columns=TYPES) for values in draw(n_spots, seed=seed)
    )


@pytest.fixture(scope="module")
def published(real_data_dir):
    import anndata

    path = real_data_dir / "starmap_pseudospots.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    adata = anndata.read_h5ad(path)
    return adata.obsm["proportions"], adata.obsm["destvi_published"]


def test_the_published_row_of_destvi(published):
    truth, predicted = published
    row = compute_proportion_metrics(truth, predicted).mean()
    assert row.round(4).to_dict() == {"pcc": 0.0305, "ssim": 0.0235, "rmse": 0.1561, "jsd": 0.6660}
    means = proportion_means(truth.to_numpy(), predicted.to_numpy())
    assert list(means) == [f"proportion_{name}" for name in COLUMNS]
    assert list(means.values()) == pytest.approx(row.to_list(), rel=1e-12)
    assert all(type(value) is float for value in means.values())


@pytest.mark.parametrize("per", ["type", "spot"])
def test_real_proportions_one_by_one(published, per):
    truth, predicted = published
    ours = compute_proportion_metrics(truth, predicted, per=per)
    assert list(ours.columns) == COLUMNS
    assert ours.index.equals(truth.columns if per == "type" else truth.index)
    assert set(ours.dtypes) == {np.dtype("float64")}
    theirs = published_table(truth.to_numpy(), predicted.to_numpy(), per=per)
    np.testing.assert_allclose(ours.to_numpy(), theirs, rtol=1e-9, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    n_spots=st.integers(1, 40),
    n_types=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
    alpha=st.sampled_from([0.02, 0.5, 20.0]),
    per=st.sampled_from(["type", "spot"]),
    zeros=st.booleans(),
)
def test_agreement_with_the_libraries(n_spots, n_types, seed, alpha, per, zeros):
    # Rounded, as the correlation of vectors that are constant but for their last bit is noise.
    truth, predicted = (np.round(x, 6) for x in draw(n_spots, n_types, seed=seed, alpha=alpha))
    if zeros:
        truth[:, 0] = 0
        predicted[truth < 0.1] = 0
    truth = shares(truth)
    ours = compute_proportion_metrics(truth, predicted, per=per).to_numpy()
    theirs = published_table(truth, predicted, per=per)
    np.testing.assert_allclose(ours[:, :3], theirs[:, :3], rtol=1e-9, atol=1e-12)
    # the root of a divergence that is rounded to 1e-16 or so
    np.testing.assert_allclose(ours[:, 3], theirs[:, 3], rtol=1e-9, atol=1e-7)


def test_the_means_are_those_of_the_table():
    for seed in range(5):
        truth, predicted = draw(seed=seed)
        truth[:, 2] = predicted[3] = 0
        means = proportion_means(truth, predicted)
        table = compute_proportion_metrics(truth, predicted).mean()
        assert means == {f"proportion_{name}": value for name, value in table.items()}


@pytest.mark.parametrize("per", ["type", "spot"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_perfect_prediction(per, dtype):
    truth = draw(200, 15)[0].astype(dtype)
    scores = compute_proportion_metrics(truth, truth, per=per)
    np.testing.assert_allclose(scores[["pcc", "ssim"]], 1, rtol=1e-12)
    assert (scores[["rmse", "jsd"]] == 0).all(axis=None)
    assert proportion_means(truth, truth)["proportion_jsd"] == 0


def test_the_worst_prediction():
    truth = np.array([[1.0, 0.0], [0.0, 1.0]] * 4)
    scores = compute_proportion_metrics(truth, 1 - truth)
    assert scores["pcc"].to_list() == pytest.approx([-1, -1])
    assert (scores["ssim"] < -0.99).all()
    assert scores["rmse"].to_list() == [1, 1]
    assert scores["jsd"].to_list() == pytest.approx([np.sqrt(np.log(2))] * 2)


def test_constant_and_zero_columns():
    truth = np.array([[0.6, 0.1, 0.0, 0.3], [0.3, 0.1, 0.0, 0.6], [0.2, 0.1, 0.0, 0.7]])
    predicted = np.array([[0.1, 0.2, 0.0, 0.0], [0.1, 0.5, 0.0, 0.0], [0.1, 0.3, 0.0, 0.0]])
    scores = compute_proportion_metrics(truth, predicted)
    assert scores["pcc"].to_list() == [0, 0, 0, 0]
    # constant vectors have a structure, those of zeros have no maximum and no sum
    assert (scores["ssim"][[0, 1]] > 0).all()
    assert scores["ssim"][[2, 3]].to_list() == [0, 0]
    assert scores["rmse"].to_list() == pytest.approx(
        [np.sqrt(np.mean((t - p) ** 2)) for t, p in zip(truth.T, predicted.T, strict=True)]
    )
    assert (scores["jsd"][[0, 1]] < 0.5).all()
    assert scores["jsd"][[2, 3]].to_list() == [1, 1]


def test_a_constant_whose_mean_is_rounded_is_constant():
    truth = np.column_stack([np.full(7, 0.1), np.full(7, 0.9)])
    assert truth[:, 0].mean() != 0.1
    predicted = draw(7, 2)[0]
    assert compute_proportion_metrics(truth, predicted)["pcc"].to_list() == [0, 0]


def test_a_single_spot():
    scores = compute_proportion_metrics([[0.25, 0.75, 0.0]], [[0.5, 0.5, 0.0]])
    np.testing.assert_allclose(scores, [[0, 1, 0.25, 0], [0, 1, 0.25, 0], [0, 0, 0, 1]])


def test_a_single_type_a_spot():
    scores = compute_proportion_metrics([[1.0], [1.0]], [[0.5], [0.0]], per="spot")
    np.testing.assert_allclose(scores, [[0, 1, 0.5, 0], [0, 0, 1, 1]])


def test_nearly_equal_vectors_are_not_undefined():
    """The divergence of some is rounded below zero, which has no root."""
    truth = draw(500, 6)[0]
    predicted = truth * (1 - 1e-9)
    scores = compute_proportion_metrics(truth, predicted)
    np.testing.assert_allclose(scores["jsd"], 0, atol=1e-7)


def test_tiny_proportions_keep_their_correlation():
    truth, predicted = draw(20, 2)
    truth[:, 0] *= 1e-200
    predicted[:, 0] *= 1e-200
    ours = compute_proportion_metrics(truth, predicted)["pcc"]
    theirs = published_table(shares(truth), predicted)[:, 0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_numbers_of_cells_are_divided_by_their_sum():
    truth, predicted = draw()
    counts = np.rint(truth * 20).astype(int)
    counts[5] = 0
    expected = published_table(shares(counts), predicted)
    np.testing.assert_allclose(compute_proportion_metrics(counts, predicted), expected)
    np.testing.assert_allclose(
        list(proportion_means(counts, predicted).values()), expected.mean(axis=0)
    )


def test_names_match_in_any_order():
    truth, predicted = frames()
    expected = compute_proportion_metrics(truth, predicted)
    assert list(expected.index) == TYPES
    shuffled = predicted.iloc[::-1][TYPES[2:] + TYPES[:2]]
    pd.testing.assert_frame_equal(compute_proportion_metrics(truth, shuffled), expected)
    by_spot = compute_proportion_metrics(truth, predicted, per="spot")
    assert list(by_spot.index) == list(truth.index)
    pd.testing.assert_frame_equal(compute_proportion_metrics(truth, shuffled, per="spot"), by_spot)


def test_names_may_be_categories():
    truth, predicted = frames()
    expected = compute_proportion_metrics(truth, predicted)
    truth.columns = pd.CategoricalIndex(truth.columns, name="cell_type")
    ours = compute_proportion_metrics(truth, predicted[TYPES[::-1]])
    np.testing.assert_array_equal(ours, expected)
    assert ours.index.name == "cell_type"


def test_a_plain_array_takes_the_names_of_the_other_table():
    truth, predicted = frames()
    expected = compute_proportion_metrics(truth, predicted)
    for pair in ((truth, predicted.to_numpy()), (truth.to_numpy(), predicted)):
        pd.testing.assert_frame_equal(compute_proportion_metrics(*pair), expected)
    arrays = compute_proportion_metrics(truth.to_numpy(), predicted.to_numpy().tolist())
    assert list(arrays.index) == [0, 1, 2, 3]
    np.testing.assert_array_equal(arrays, expected)
    assert list(truth.columns) == TYPES


def test_dropped_types_count_in_the_sums_of_the_truth():
    truth, predicted = frames()
    everything = compute_proportion_metrics(truth, predicted)
    kept = compute_proportion_metrics(truth, predicted, drop=["Endo", "Olig"])
    pd.testing.assert_frame_equal(kept, everything.loc[["Astro", "Micro"]])
    by_spot = compute_proportion_metrics(truth, predicted, per="spot", drop=["Endo"])
    theirs = [
        published_scores(t, p)
        for t, p in zip(
            truth.drop(columns="Endo").to_numpy(),
            predicted.drop(columns="Endo").to_numpy(),
            strict=True,
        )
    ]
    np.testing.assert_allclose(by_spot, theirs)
    arrays = compute_proportion_metrics(truth.to_numpy(), predicted.to_numpy(), drop=[1, 3])
    np.testing.assert_array_equal(arrays, kept)
    assert list(arrays.index) == [0, 2]


def test_drop_takes_types_of_one_table_only():
    truth, predicted = frames()
    expected = compute_proportion_metrics(truth, predicted, drop=["Endo"])
    renamed = predicted.rename(columns={"Endo": "Smc"}).assign(Smc=np.nan)
    ours = compute_proportion_metrics(truth, renamed, drop=["Endo", "Smc"])
    pd.testing.assert_frame_equal(ours, expected)


def test_inputs_stay_as_they_were():
    truth, predicted = frames()
    before = truth.copy(), predicted.copy()
    compute_proportion_metrics(truth, predicted, drop=["Endo"])
    pd.testing.assert_frame_equal(truth, before[0])
    pd.testing.assert_frame_equal(predicted, before[1])
    arrays = draw()
    kept = tuple(array.copy() for array in arrays)
    compute_proportion_metrics(*arrays)
    proportion_means(*arrays)
    for array, copy in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_prediction_may_pass_one_by_rounding():
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    predicted = np.array([[1.0 + 2e-7, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert (compute_proportion_metrics(truth, predicted)["rmse"] == 0).all()


def test_missing_values_of_pandas_are_missing_values():
    truth, predicted = frames()
    nullable = predicted.astype("Float64")
    pd.testing.assert_frame_equal(
        compute_proportion_metrics(truth, nullable), compute_proportion_metrics(truth, predicted)
    )
    nullable.iloc[1, 2] = pd.NA
    with pytest.raises(InputError, match="predicted has a bad value, nan at spot 'spot1'"):
        compute_proportion_metrics(truth, nullable)


def faults_of(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        compute_proportion_metrics(*args, **kwargs)
    return caught.value.faults


def with_value(table, value, *cells):
    table = table.copy()
    for row, column in cells:
        table.iloc[row, column] = value
    return table


TRUTH, PREDICTED = frames()
EMPTY = "Give at least one spot and one type."
TABLE = (
    "must be a DataFrame or an array of numbers with the two dimensions spots and types, but got "
    "a {}. Give one row a spot and one column a type."
)
ADVICE = {
    "types": "Rename them, or leave types out with drop.",
    "spots": "Select the same spots of both, or give plain arrays in the same order.",
}


def other_names(kind, found):
    return (
        f"The {kind} of predicted are not those of truth: predicted {found}. Both must have the "
        f"same {kind}, in any order. {ADVICE[kind]}"
    )


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        pytest.param(
            (TRUTH, PREDICTED),
            {"per": "types"},
            "per must be 'type' or 'spot', but got 'types'. Did you mean 'type'?",
            id="per",
        ),
        pytest.param(
            (TRUTH, PREDICTED.drop(columns="Micro")),
            {},
            other_names("types", "lacks 'Micro'"),
            id="missing type",
        ),
        pytest.param(
            (TRUTH.drop(columns="Micro"), PREDICTED),
            {},
            other_names("types", "has 'Micro', which truth lacks"),
            id="extra type",
        ),
        pytest.param(
            (TRUTH, PREDICTED.rename(columns={"Endo": "endo"})),
            {},
            other_names("types", "lacks 'Endo' and has 'endo', which truth lacks"),
            id="renamed type",
        ),
        pytest.param(
            (TRUTH, PREDICTED.iloc[1:]),
            {},
            other_names("spots", "lacks 'spot0'"),
            id="missing spot",
        ),
        pytest.param(
            (TRUTH, PREDICTED.reset_index(drop=True)),
            {},
            other_names(
                "spots",
                "lacks 'spot0', 'spot1', 'spot2', 'spot3', 'spot4' and 1 more and has 0, 1, 2, 3, "
                "4 and 1 more, which truth lacks",
            ),
            id="other spots",
        ),
        pytest.param(
            (TRUTH, with_value(PREDICTED, np.nan, (1, 2))),
            {},
            "predicted has a bad value, nan at spot 'spot1', type 'Micro': NaN or infinite. Every "
            "proportion must be a finite number. Leave such spots out, or put 0 where none is "
            "meant.",
            id="NaN",
        ),
        pytest.param(
            (with_value(TRUTH, np.inf, (0, 1), (4, 0)), PREDICTED),
            {},
            "truth has 2 bad values, the first inf at spot 'spot0', type 'Endo': NaN or infinite. "
            "Every proportion must be a finite number. Leave such spots out, or put 0 where none "
            "is meant.",
            id="infinite",
        ),
        pytest.param(
            (TRUTH, with_value(PREDICTED, -0.1, (0, 1), (4, 0))),
            {},
            "predicted has 2 bad values, the first -0.1 at spot 'spot0', type 'Endo': below 0. "
            "Proportions are 0 or more. Give proportions, not logarithms or z-scores.",
            id="negative",
        ),
        pytest.param(
            (TRUTH, with_value(PREDICTED, 3.5, (2, 3))),
            {},
            "predicted has a bad value, 3.5 at spot 'spot2', type 'Olig': above 1. Proportions "
            "lie between 0 and 1. Divide each row by its sum.",
            id="above one",
        ),
        pytest.param(
            (TRUTH.iloc[:0], PREDICTED),
            {},
            f"truth is empty: it has 0 spots x 4 types. {EMPTY}",
            id="no spots",
        ),
        pytest.param(
            (TRUTH, np.empty((6, 0))),
            {},
            f"predicted is empty: it has 6 spots x 0 types. {EMPTY}",
            id="no types",
        ),
        pytest.param(
            (TRUTH.to_numpy(), PREDICTED.to_numpy()[:5]),
            {},
            "truth has 6 spots x 4 types, but predicted has 5 spots x 4 types. A plain array must "
            "have the shape of the other table. Give two DataFrames to match them by name.",
            id="shapes",
        ),
        pytest.param(
            (TRUTH, PREDICTED.to_numpy()[0]),
            {},
            f"predicted {TABLE.format('ndarray of shape (4,)')}",
            id="one dimension",
        ),
        pytest.param(
            (TRUTH, [[0.1, 0.9], [1.0]]), {}, f"predicted {TABLE.format('list')}", id="ragged"
        ),
        pytest.param((None, PREDICTED), {}, f"truth {TABLE.format('NoneType')}", id="None"),
        pytest.param(
            (TRUTH.assign(barcode="ACGT"), PREDICTED),
            {},
            "truth has columns that are not numbers: 'barcode'. Every column must be a cell type "
            "with its proportions. Leave the others out, make names of spots the index, or "
            "convert with .astype(float).",
            id="text",
        ),
        pytest.param(
            (TRUTH, PREDICTED.set_axis(["Astro", "Endo", "Endo", "Olig"], axis=1)),
            {"drop": ["Micro"]},
            "predicted has types of the same name: 'Endo'. Every name must occur once. Rename "
            "them, or give plain arrays in the same order.",
            id="type twice",
        ),
        pytest.param(
            (TRUTH.set_axis(["a", "b", "c", "d", "e", "e"]), PREDICTED.to_numpy()),
            {},
            "truth has spots of the same name: 'e'. Every name must occur once. Rename them, or "
            "give plain arrays in the same order.",
            id="spot twice",
        ),
        pytest.param(
            (TRUTH, PREDICTED),
            {"drop": "Endo"},
            "drop must be a sequence of names of types, but got 'Endo'. Write drop=['Endo'].",
            id="drop is text",
        ),
        pytest.param(
            (TRUTH, PREDICTED),
            {"drop": ["endo"]},
            "drop names 'endo', which neither truth nor predicted has. Did you mean 'Endo'? "
            "Allowed: 'Astro', 'Endo', 'Micro', 'Olig'.",
            id="drop unknown",
        ),
        pytest.param(
            (TRUTH, PREDICTED),
            {"drop": TYPES},
            "drop leaves none of truth's types, 'Astro', 'Endo', 'Micro', 'Olig'. Name fewer of "
            "them.",
            id="drop all",
        ),
    ],
)
def test_messages(arguments, options, expected):
    assert faults_of(*arguments, **options) == (expected,)


def test_all_faults_come_at_once():
    truth = with_value(TRUTH, -1.0, (0, 0))
    predicted = with_value(PREDICTED, np.nan, (0, 0), (0, 1)).drop(columns="Olig").iloc[1:]
    predicted.iloc[0, 0], predicted.iloc[1, 0], predicted.iloc[2, 0] = np.nan, -1.0, 2.0
    faults = faults_of(truth, predicted, per="cell", drop=["Nobody"])
    beginnings = [
        "per must be",
        "drop names 'Nobody'",
        "truth has a bad value, -1",
        "predicted has a bad value, nan",
        "predicted has a bad value, -1",
        "predicted has a bad value, 2",
        "The types of predicted",
        "The spots of predicted",
    ]
    assert len(faults) == len(beginnings)
    for fault, beginning in zip(faults, beginnings, strict=True):
        assert fault.startswith(beginning)


def test_a_table_is_checked_though_the_other_cannot_be_read():
    faults = faults_of(with_value(TRUTH, -1.0, (0, 0)), "proportions.csv", drop="Endo")
    assert [fault.split(",")[0] for fault in faults] == [
        "drop must be a sequence of names of types",
        "predicted must be a DataFrame or an array of numbers with the two dimensions spots and "
        "types",
        "truth has a bad value",
    ]


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [(np.ones((3, 2)), np.ones((2, 2))), (np.ones(3), np.ones(3)), (np.ones((0, 2)),) * 2],
)
def test_means_need_equal_shapes(truth, predicted):
    with pytest.raises(InputError) as caught:
        proportion_means(truth, predicted)
    assert str(caught.value) == (
        f"truth has shape {truth.shape} and predicted {predicted.shape}, but both must have one "
        "shape (n_spots, n_types) with at least one spot and one type. Give one row a spot."
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_means_are_finite_whatever_is_predicted(bad, recwarn):
    truth, predicted = draw()
    whole = compute_proportion_metrics(truth, predicted)
    predicted[3, 1] = np.nan
    whole.loc[1] = UNDEFINED
    assert list(proportion_means(truth, predicted).values()) == pytest.approx(whole.mean())
    assert np.isfinite(list(proportion_means(truth, np.full_like(truth, bad)).values())).all()
    assert np.isfinite(list(proportion_means(np.full_like(truth, bad), truth).values())).all()
    assert not recwarn.list


def test_means_clip_predictions_as_published():
    truth, predicted = draw()
    predicted[0, :2] = [-0.3, 1.4]
    expected = proportion_means(truth, np.clip(predicted, 0, 1))
    assert proportion_means(truth, predicted) == expected


def test_the_import_costs_neither_pandas_nor_scipy():
    code = (
        "import sys, scvitune.metrics; "
        "print([n for n in ('pandas', 'scipy', 'sklearn') if n in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=True,
    )
    assert process.stdout.strip() == "[]"
