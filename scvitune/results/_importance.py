"""How much each hyperparameter, and each pair of them, mattered."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from scvitune.results._comparable import Comparable, compare_trials
from scvitune.results._run_directory import Run, once_a_run

if TYPE_CHECKING:
    from optuna import Study

_TREES = 64
_AFFORDABLE = 6400
"""Trees times trials, some 2 s."""
_MOST_A_TREE = 400
_SEED = 0
_POINTS = 40
"""Trials at which interactions are evaluated; the cost goes with the square."""
LEAST_FORETOLD = 0.1
"""Where nothing matters, `foretold_share` is above it in about one study in twenty."""
LEAST_BEST = 10
"""Trials in the best tenth. Optuna asks for 5; of 6, single ones still turned the order round."""


def best_tenth(trials: Comparable) -> int:
    """Return how many trials PED-ANOVA compares with all; fewer than `LEAST_BEST` say nothing."""
    return math.ceil(len(trials.values) / 10)


def foretold_share(trials: Comparable, *, n_trees: int = _TREES) -> float:
    """Return how much of the metric's variance a forest foretells of trials it has not seen.

    fANOVA shares out the variance of what its trees have fitted, the luck of seeds included, so
    its shares are as large where nothing matters. What luck fitted foretells no other trial: out
    of bag, the coefficient of determination is then mostly below zero, and hardly ever above
    `LEAST_FORETOLD`.

    Returns
    -------
    At most 1; 0 where values do not differ.
    """
    from sklearn.ensemble import RandomForestRegressor

    if len(trials.values) < 2 or np.ptp(trials.values) == 0:
        return 0.0
    features, _ = _one_hot(trials)
    forest = RandomForestRegressor(
        n_estimators=n_trees,
        oob_score=True,
        max_samples=min(len(trials.values), _MOST_A_TREE),
        random_state=_SEED,
    )
    return float(forest.fit(features, trials.values).oob_score_)


@once_a_run
def foretold_of(run: Run) -> float:
    """Return `foretold_share` of a run's trials."""
    return foretold_share(compare_trials(run))


def compute_importance(trials: Comparable, *, n_trees: int | None = None) -> pd.DataFrame:
    """Compute hyperparameter importance by fANOVA and PED-ANOVA, as Optuna implements them.

    fANOVA (Hutter et al., ICML 2014) fits a random forest and takes the share of its variance
    that is due to one hyperparameter alone. Each tree is fitted to a bootstrap sample of the
    trials (of more than 400, to 400 drawn by lot, for the cost of a tree goes with the square),
    so the spread over trees says how far the numbers hang on single trials. PED-ANOVA
    (Watanabe et al., IJCAI 2023) asks instead what tells the best tenth of the trials from all.

    Parameters
    ----------
    trials
        What `compare_trials` returns.
    n_trees
        Of the forest; None: 64, fewer where there are many trials, since the cost goes with both.

    Returns
    -------
    Index ``hyperparameter``, most important first; columns ``fanova`` (mean over trees, 0 to 1),
    ``fanova_sd`` (standard deviation over trees), ``fanova_low`` and ``fanova_high`` (the middle
    80 % of the trees), ``ped_anova`` (0 to 1, shares of their sum).
    """
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    names = [one.name for one in trials.searched]
    study = _study(trials)
    shares = []
    n_each = min(len(trials.values), _MOST_A_TREE)
    n_trees = n_trees or min(_TREES, max(_TREES // 3, _AFFORDABLE // max(n_each, 1)))
    for seed in range(n_trees):
        seen = study if n_each == len(trials.values) else _study(_draw(trials, n_each, seed))
        try:
            found = FanovaImportanceEvaluator(n_trees=1, seed=seed).evaluate(seen)
        except RuntimeError:  # a bootstrap sample of equal values has no variance to share out
            continue
        shares.append([found[name] for name in names])
    spread = np.array(shares, dtype=float).reshape(len(shares), len(names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PED-ANOVA is marked as experimental
        ped = PedAnovaImportanceEvaluator().evaluate(study)
    total = sum(ped.values()) or 1.0
    nothing = np.full(len(names), np.nan)
    table = pd.DataFrame(
        {
            "fanova": spread.mean(axis=0) if len(spread) else nothing,
            "fanova_sd": spread.std(axis=0) if len(spread) else nothing,
            "fanova_low": np.quantile(spread, 0.1, axis=0) if len(spread) else nothing,
            "fanova_high": np.quantile(spread, 0.9, axis=0) if len(spread) else nothing,
            "ped_anova": [ped.get(name, np.nan) / total for name in names],
        },
        index=pd.Index(names, name="hyperparameter", dtype=object),
    )
    return table.sort_values("fanova", ascending=False, kind="stable")


def _draw(trials: Comparable, n: int, seed: int) -> Comparable:
    """Return so many of the trials, drawn without replacement."""
    chosen = np.random.default_rng(seed).permutation(len(trials.values))[:n]
    return replace(trials, features=trials.features[chosen], values=trials.values[chosen])


def _study(trials: Comparable) -> Study:
    """Return an Optuna study of comparable trials in which every hyperparameter is active."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if trials.mode == "min" else "maximize")
    optuna.logging.set_verbosity(verbosity)
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for number, one in enumerate(trials.searched):
        column = trials.features[:, number]
        if trials.is_choice[number]:
            distributions[one.name] = CategoricalDistribution(range(int(column.max()) + 1))
        else:
            distributions[one.name] = FloatDistribution(
                min(0.0, column.min()), max(1.0, column.max())
            )
    study.add_trials(
        optuna.trial.create_trial(
            params={
                one.name: int(x) if trials.is_choice[number] else float(x)
                for number, (one, x) in enumerate(zip(trials.searched, row, strict=True))
            },
            distributions=distributions,
            value=float(value),
        )
        for row, value in zip(trials.features, trials.values, strict=True)
    )
    return study


def compute_interactions(trials: Comparable, *, n_trees: int = _TREES) -> pd.DataFrame:
    """Compute how far each pair of hyperparameters acts otherwise than the two by themselves.

    A random forest is fitted to the trials; its partial dependence on a pair is compared with
    the sum of those on the two alone (Friedman and Popescu, Ann. Appl. Stat. 2008). The strength
    is the root mean square of the rest over the trials, in the metric's unit: unlike their H
    statistic, the rest's share of the pair's effect, it is small where both do little.

    Returns
    -------
    ``first``, ``second``, ``strength`` (metric's unit) and ``h`` (0 to 1: the H statistic), a row
    a pair, strongest first; and a row a hyperparameter with itself, whose ``strength`` is the
    standard deviation of its own partial dependence (``h`` is NaN).
    """
    from sklearn.ensemble import RandomForestRegressor

    features, groups = _one_hot(trials)
    forest = RandomForestRegressor(n_estimators=n_trees, random_state=_SEED)
    forest.fit(features, trials.values)
    chosen = np.random.default_rng(_SEED).permutation(len(trials.values))[:_POINTS]
    points = features[chosen]

    def depend(columns: list[int]) -> npt.NDArray[np.float64]:
        """Return the centred partial dependence on some columns, at each point."""
        n = len(points)
        grid = np.tile(points, (n, 1))
        grid[:, columns] = np.repeat(points[:, columns], n, axis=0)
        means = forest.predict(grid).reshape(n, n).mean(axis=1)
        return np.asarray(means - means.mean(), dtype=float)

    alone = [depend(group) for group in groups]
    names = [one.name for one in trials.searched]
    rows = []
    for one, two in combinations(range(len(names)), 2):
        together = depend([*groups[one], *groups[two]])
        rest = together - alone[one] - alone[two]
        whole = float((together**2).sum())
        h = min(1.0, float((rest**2).sum()) / whole) ** 0.5 if whole > 0 else 0.0
        rows.append((names[one], names[two], float((rest**2).mean()) ** 0.5, h))
    rows.sort(key=lambda row: -row[2])
    rows += [
        (n, n, float((a**2).mean()) ** 0.5, np.nan) for n, a in zip(names, alone, strict=True)
    ]
    return pd.DataFrame(rows, columns=["first", "second", "strength", "h"])


def _one_hot(trials: Comparable) -> tuple[npt.NDArray[np.float64], list[list[int]]]:
    """Return features with choices as one column a value, and which columns are whose."""
    columns: list[npt.NDArray[np.float64]] = []
    groups: list[list[int]] = []
    for number, is_choice in enumerate(trials.is_choice):
        column = trials.features[:, number]
        parts = [column]
        if is_choice:
            parts = [(column == code).astype(float) for code in np.unique(column)]
        groups.append(list(range(len(columns), len(columns) + len(parts))))
        columns += parts
    return np.column_stack(columns), groups
