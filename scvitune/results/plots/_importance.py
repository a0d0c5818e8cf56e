"""How much each hyperparameter mattered."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from scvitune.results._advice import advised_samples, wants_more_epochs
from scvitune.results._comparable import compare_trials, trials_for, trials_wanted
from scvitune.results._importance import (
    LEAST_BEST,
    LEAST_FORETOLD,
    best_tenth,
    compute_importance,
    foretold_of,
)
from scvitune.results._run_directory import Run
from scvitune.results._searched import list_searched
from scvitune.results._typesetting import resume_with
from scvitune.results._wording import format_percent
from scvitune.results.plots._base import Plot, has_reports
from scvitune.results.plots._style import (
    CATEGORIES,
    GREY,
    GRID,
    INK,
    new_figure,
    plain,
    say_empty,
    style,
)


def importance_data(run: Run) -> pd.DataFrame:
    """Return `compute_importance` of the trials that can be compared; empty if they are too few.

    At least 20 trials, and 4 a hyperparameter, are wanted.
    """
    trials = compare_trials(run)
    if not trials.is_enough:
        columns = ["fanova", "fanova_sd", "fanova_low", "fanova_high", "ped_anova"]
        return pd.DataFrame(columns=columns, dtype=float).rename_axis("hyperparameter")
    return compute_importance(trials)


def plot_importance(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    """Plot hyperparameter importance by fANOVA, with its spread over trees, and by PED-ANOVA.

    PED-ANOVA is not drawn where the best tenth is fewer than 10 trials. Bars are grey where
    nothing can be told from chance, see `foretold_of`.

    Returns
    -------
    The figure, and its numbers; see `importance_data`.
    """
    data = importance_data(run)
    figure = new_figure()
    if data.empty:
        return say_empty(figure, say_too_few(run)), data
    shown = data.iloc[::-1]
    names = [plain(name) for name in shown.index]
    is_told = is_told_from_chance(run)
    style(figure, height=150 + 46 * len(names))
    if best_tenth(compare_trials(run)) >= LEAST_BEST:
        figure.add_bar(
            y=names,
            x=shown["ped_anova"],
            orientation="h",
            name="PED-ANOVA: tells the best tenth from the rest",
            marker={"color": CATEGORIES[4] if is_told else GRID},
            hovertemplate="%{y}: %{x:.3f}<extra>PED-ANOVA</extra>",
        )
    figure.add_bar(
        y=names,
        x=shown["fanova"],
        orientation="h",
        name="fANOVA: explains the whole range",
        marker={"color": CATEGORIES[0] if is_told else GREY},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (shown["fanova_high"] - shown["fanova"]).clip(lower=0),
            "arrayminus": (shown["fanova"] - shown["fanova_low"]).clip(lower=0),
            "color": INK,
            "thickness": 1.4,
            "width": 4,
        },
        hovertemplate="%{y}: %{x:.3f}<extra>fANOVA</extra>",
    )
    figure.update_layout(barmode="group", bargap=0.35, legend_traceorder="reversed")
    figure.update_xaxes(title_text="Importance (share)", rangemode="tozero")
    figure.update_yaxes(showgrid=False, ticks="", type="category")
    return figure, data


def say_too_few(run: Run) -> str:
    """Return why there is no importance."""
    trials = compare_trials(run)
    wanted = trials_wanted(len(trials.searched))
    return (
        f"{len(trials.values)} trials can be compared; this wants {wanted}, "
        "in which several hyperparameters differ"
    )


def _say_absent(run: Run) -> str:
    """Return why the report has neither importance nor interactions, and what would bring them."""
    trials, searched = compare_trials(run), len(list_searched(run))
    if searched < 2 or not has_reports(run):
        return ""
    wanted = trials_wanted(searched)
    if len(trials.values) >= wanted:
        return "Importance needs trials of equal length that differ in several hyperparameters."
    text = (
        f"Importance and interactions need {wanted} comparable trials (4 a hyperparameter, at "
        "least 20), which are those that did not fail and trained as far as three quarters of all "
        f"did; this study has {len(trials.values)}"
    )
    if trials.n_left_out:
        text += f", trained to epoch {trials.epoch:g} or further"
    if not _takes_more_trials(run):
        return f"{text}."
    lost = sum(record.status in ("diverged", "failed") for record in run.records.values())
    samples = trials_for(wanted) + lost - (run.default is not None)
    if samples <= int(run.search.get("num_samples") or 0):  # no new total: they are still to come
        return f"{text}." if run.finished else f"{text}: `{resume_with(run)}` goes on to more."
    advised = advised_samples(run)
    total = max(samples, advised)
    as_above = ", as advised above" if advised >= samples else ""
    if wants_more_epochs(run):
        return (
            f"{text}. `num_samples` of {total} in the new study, with more epochs{as_above}, "
            "brings enough for that."
        )
    return (
        f"{text}. `{resume_with(run, total)}` ({total} in all, beside the default{as_above}) "
        "brings enough for that."
    )


def _takes_more_trials(run: Run) -> bool:
    """Return whether a resume with more samples brings more trials of the same kind."""
    if not run.search or run.at_work or run.spent_budget:
        return False
    is_population = any(record.perturbations for record in run.records.values())
    return not is_population and run.search.get("searcher") != "grid"


def describe_comparison(run: Run) -> str:
    """Return in words which trials were compared, and where."""
    trials = compare_trials(run)
    out = f" ({trials.n_left_out} with fewer epochs are left out)" if trials.n_left_out else ""
    return (
        f"{len(trials.values)} trials are compared by their best value until epoch "
        f"{trials.epoch:g}{out}."
    )


def is_told_from_chance(run: Run) -> bool:
    """Whether what the trials' settings do can be told from the luck of seeds."""
    return foretold_of(run) >= LEAST_FORETOLD


def describe_foretold(run: Run) -> str:
    """Return in a sentence whether there is anything to share out among the hyperparameters."""
    if not is_told_from_chance(run):
        return (
            "Nothing here can be told from chance: grown on some of these trials, a forest "
            "foretells the others hardly better than their mean does, as it would if only the "
            "seed mattered. Numbers come out all the same; do not read them as effects."
        )
    return (
        "Grown on some of these trials, a forest foretells "
        f"{format_percent(foretold_of(run))} of the variance of the others. The rest it cannot, "
        "the luck of seeds among it."
    )


def _words(run: Run, data: pd.DataFrame) -> str:
    n_best = best_tenth(compare_trials(run))
    ped_anova = (
        f"PED-ANOVA tells what sets the best tenth ({n_best} trials) apart: read it to see what "
        "to tune on among good configurations. The two answer different questions, so they may "
        "well differ."
        if n_best >= LEAST_BEST
        else "PED-ANOVA, which asks what sets the best tenth apart, is not drawn: that is "
        f"{n_best} trials here, too few to tell ({LEAST_BEST} are wanted)."
    )
    return (
        f"{describe_comparison(run)} {describe_foretold(run)} fANOVA tells what moves the metric "
        "over the whole range, bad trials included: read it to see what must not be set wrongly. "
        f"{ped_anova} Lines: the middle 80 % of the trees of fANOVA's forest, each grown on "
        "another draw of the trials; where they are long, more trials are needed to tell."
    )


PLOT = Plot(
    "What mattered most",
    _words,
    plot_importance,
    section="mattered",
    is_shown=lambda run: compare_trials(run).is_enough,
    say_absent=_say_absent,
)
