"""The paragraph for a paper's methods section, with what has to be cited; says what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scvitune.results._advice import others_all_stopped
from scvitune.results._budget import name_default
from scvitune.results._comparable import compare_trials
from scvitune.results._elsewhere import find_gain_of_kl_alone
from scvitune.results._importance import (
    LEAST_BEST,
    LEAST_FORETOLD,
    best_tenth,
    foretold_of,
)
from scvitune.results._intervals import cell_difference
from scvitune.results._run_directory import Run
from scvitune.results._summary import is_default_underway, is_unfinished
from scvitune.results._tables import (
    best_trial_id,
    comparison_table,
    confirmed_winner,
    test_metric,
)
from scvitune.results._wording import (
    cells_of,
    format_epochs,
    format_number,
    format_percent,
    in_sentence,
    join_words,
    metric_words,
    write_difference,
)
from scvitune.results.methods._citations import (
    MODELS,
)
from scvitune.results.methods._confirmation import tell_confirmation, tell_confirmed_gain
from scvitune.results.methods._data import describe_registration, tell_selection
from scvitune.results.methods._search import is_joint, say_search, say_state
from scvitune.results.methods._space import describe_settings, describe_space
from scvitune.results.methods._writer import Writer


@dataclass
class Methods:
    """A methods paragraph.

    Attributes
    ----------
    text
        The paragraph.
    references
        What it cites, in the order in which it does.
    """

    text: str
    references: list[str]


def describe_methods(run: Run) -> Methods:
    """Return the methods paragraph of a run: only what this run did, with the versions it used."""
    writer = Writer(run)
    say_state(writer)
    _say_what(writer)
    _say_split(writer)
    say_search(writer)
    for sentence in describe_space(run):
        writer.say(sentence)
    for sentence in tell_confirmation(run):
        writer.say(sentence)
    _say_result(writer)
    _say_importance(writer)
    return Methods(" ".join(writer.sentences), list(writer.cited.values()))


def _say_importance(writer: Writer) -> None:
    """Say what the report shows of it, and how much there was to share out."""
    trials = compare_trials(writer.run)
    if not trials.is_enough:
        return
    ways = [f"fANOVA{writer.cite('Hutter et al., 2014')}"]
    if best_tenth(trials) >= LEAST_BEST:
        ways.append(f"PED-ANOVA{writer.cite('Watanabe et al., 2023')}")
    share = foretold_of(writer.run)
    told = format_percent(share) if share >= LEAST_FORETOLD else "next to nothing"
    writer.say(
        f"Hyperparameter importance was computed by {join_words(ways)} as implemented in "
        f"{writer.version('optuna')}{writer.cite('Akiba et al., 2019')}; out of bag, a random "
        f"forest explained {told} of the variance of the {len(trials.values)} trials compared."
    )


def _say_what(writer: Writer) -> None:
    model = str(writer.run.settings.get("model", "model"))
    name, key = MODELS.get(model, (model, ""))
    own = writer.cite(*([key] if key else []))
    if model == "DestVI":
        name = "CondSCVI and DestVI"
    writer.say(
        f"Hyperparameters of {name}{own} as implemented in {writer.version('scvi-tools')}"
        f"{writer.cite('Gayoso et al., 2022')} were tuned with {writer.version('scvitune')} on "
        f"Ray Tune{_number(writer.version('ray'))}{writer.cite('Liaw et al., 2018')}."
    )


def _number(package: str) -> str:
    _, _, number = package.partition(" ")
    return f" {number}" if number else ""


def _say_split(writer: Writer) -> None:
    run = writer.run
    cells, genes = run.settings.get("n_cells"), run.settings.get("n_genes")
    split = run.settings.get("split")
    if not (cells and genes):
        return
    if run.is_of_spots:
        writer.say(
            f"Trials were trained on a simulated tissue in the likeness of the {cells:,} spots "
            f"({genes:,} genes), summed from reference cells, whose composition is known."
            if run.settings.get("target") == "simulated"
            else f"Trials were trained on {cells:,} spots ({genes:,} genes)."
        )
        _say_registration(writer)
        return
    for sentence in tell_selection(run, cite=writer.cite):
        writer.say(sentence)
    text = f"The data comprised {cells:,} cells and {genes:,} genes"
    if isinstance(split, Mapping) and split:
        parts = [f"{split.get('train', 0):,} cells were used for training"]
        parts.append(f"{split.get('validation', 0):,} for validation")
        if split.get("test"):
            parts.append(f"{split['test']:,} were held out from the search as test cells")
        text += f"; {join_words(parts)}"
    writer.say(f"{text}.")
    _say_registration(writer)


def _say_registration(writer: Writer) -> None:
    sentence = describe_registration(writer.run)
    if sentence:
        writer.say(sentence)


def _say_result(writer: Writer) -> None:
    run = writer.run
    best_id = best_trial_id(run)
    if best_id is None:
        return
    record = run.records[best_id]
    best = record.best_report(run.metric, run.mode)
    settings = describe_settings(run, best_id)
    is_default = run.default is not None and run.default.trial_id == best_id
    open_ = " so far" if is_unfinished(run) or run.at_work else ""
    confirmed = confirmed_winner(run) is not None
    if is_default:
        among = "of those confirmed " if confirmed else f"tried{open_}"
        others = len(run.candidates) > 1 if confirmed else len(run.records) > 1
        if others:
            default = name_default(run, "the default")
            better = "had a better mean" if confirmed else ", each trained once, did better"
            writer.say(
                f"All others were stopped early, so none was compared with {default} at its end."
                if others_all_stopped(run) and not confirmed
                else f"No configuration {among}{better} than {default}."
            )
        _say_final_fit(writer, best_id)
        return
    changing = ", its hyperparameters changing on the way," if len(record.phases) > 1 else ""
    by = f"the best {run.metric}" if is_joint(run) else ""
    which = "The best configuration" if confirmed else "The configuration of the best trial"
    writer.say(
        f"{f'The configuration with {by}' if by else which}{open_}{changing} was "
        f"{settings or f'that of trial {best_id}'}."
    )
    if best is not None:
        writer.say(_tell_training(record.lineage[-1].epoch, best.epoch, confirmed=confirmed))
    if confirmed:
        for sentence in tell_confirmed_gain(run, best_id, cite=writer.cite):
            writer.say(sentence)
    elif not is_default_underway(run):
        _say_gain(writer)
    _say_gain_of_kl_alone(writer)
    _say_final_fit(writer, best_id)


def _say_gain_of_kl_alone(writer: Writer) -> None:
    found = find_gain_of_kl_alone(writer.run)
    if found is not None:
        kl, reconstruction = found
        writer.say(
            f"The gain was in the KL divergence alone ({format_number(kl.best)} against "
            f"{format_number(kl.default)}); the reconstruction loss was higher "
            f"({reconstruction.describe()})."
        )


def _tell_training(trained: float, best: float, *, confirmed: bool) -> str:
    """Return how long the best trial was trained, and of which epoch its weights are."""
    where = "In the search it" if confirmed else "It"
    if trained == 1:
        return f"{where} was trained for 1 epoch."
    which = "the last" if best == trained else f"epoch {format_epochs(best)}"
    return (
        f"{where} was trained for {format_epochs(trained)} epochs and did best after {which}, "
        "whose weights were kept."
    )


def _say_gain(writer: Writer) -> None:
    """Say best against default in the search, on the test cells if that was measured."""
    run = writer.run
    table = comparison_table(run)
    for name in (test_metric(run), run.metric):
        if name in table.index and table.loc[name, ["best", "default"]].notna().all():
            row = table.loc[name]
            own = writer.cite("Li et al., 2022") if name.startswith("proportion_") else ""
            ours, theirs = float(row["best"]), float(row["default"])
            paired = cell_difference(run, str(best_trial_id(run)), name)
            difference = write_difference(theirs, ours, name=name, paired=paired)
            place = f"On the {cells_of(name)}, its" if cells_of(name) else "Its"
            label = in_sentence(metric_words(name).label)
            writer.say(
                f"{place} {label}{own} was {format_number(ours)} against "
                f"{format_number(theirs)} for {name_default(run, 'the default')}, {difference}."
            )
            writer.say(
                "Each configuration was trained once, so this says nothing of other random seeds."
                if paired is None
                else "The interval is that of the mean difference, paired over cells (Student's "
                "t); each configuration was trained once, so it says nothing of other random "
                "seeds."
            )
            return


def _say_final_fit(writer: Writer, best_id: str) -> None:
    final = writer.run.records[best_id].final_fit
    if final is not None and final.finished and not writer.run.is_of_spots:
        writer.say(
            f"The final model was trained on all {final.n_cells:,} cells for "
            f"{final.epoch:.4g} epochs."
        )
