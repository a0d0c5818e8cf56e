"""The paragraph for a paper's methods section, with what has to be cited; says what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scvitune._durations import format_duration
from scvitune.results._budget import cut_default, max_epochs, name_default
from scvitune.results._cautions import others_all_stopped
from scvitune.results._citations import (
    METRICS,
    MODELS,
    POPULATION,
    REFERENCES,
    SCHEDULERS,
    SEARCHERS,
    TOGETHER,
)
from scvitune.results._comparable import compare_trials
from scvitune.results._intervals import cell_difference
from scvitune.results._methods_confirmation import tell_confirmation, tell_confirmed_gain
from scvitune.results._methods_data import describe_registration, tell_selection
from scvitune.results._methods_space import describe_settings, describe_space
from scvitune.results._run_directory import Run
from scvitune.results._summary import is_default_underway, is_unfinished
from scvitune.results._tables import (
    best_trial_id,
    comparison_table,
    confirmed_winner,
    metric_mode,
    test_metric,
)
from scvitune.results._wording import (
    cells_of,
    describe_difference,
    format_amount,
    format_epochs,
    format_number,
    format_percent,
    in_sentence,
    join_words,
    metric_words,
)


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


@dataclass
class _Writer:
    """Collects sentences, and citations in the order in which they are made."""

    run: Run
    sentences: list[str] = field(default_factory=list)
    cited: dict[str, str] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def cite(self, *keys: str, before: str = "") -> str:
        """Return citations in brackets, after something else that belongs there."""
        for key in keys:
            self.cited[key] = REFERENCES[key]
        inside = "; ".join(part for part in (before, *keys) if part)
        return f" ({inside})" if inside else ""

    def version(self, package: str) -> str:
        versions = self.run.settings.get("versions")
        known = versions.get(package) if isinstance(versions, Mapping) else None
        return f"{package} {known}" if known else package


def describe_methods(run: Run) -> Methods:
    """Return the methods paragraph of a run: only what this run did, with the versions it used."""
    writer = _Writer(run)
    _say_what(writer)
    _say_split(writer)
    _say_search(writer)
    for sentence in describe_space(run):
        writer.say(sentence)
    for sentence in tell_confirmation(run):
        writer.say(sentence)
    _say_result(writer)
    if compare_trials(run).is_enough:
        fanova, ped = writer.cite("Hutter et al., 2014"), writer.cite("Watanabe et al., 2023")
        writer.say(
            f"Hyperparameter importance was computed by fANOVA{fanova} and PED-ANOVA{ped} as "
            f"implemented in {writer.version('optuna')}{writer.cite('Akiba et al., 2019')}."
        )
    return Methods(" ".join(writer.sentences), list(writer.cited.values()))


def _say_what(writer: _Writer) -> None:
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


def _say_split(writer: _Writer) -> None:
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


def _say_registration(writer: _Writer) -> None:
    sentence = describe_registration(writer.run)
    if sentence:
        writer.say(sentence)


def _say_search(writer: _Writer) -> None:
    run, search = writer.run, writer.run.search
    proposed = sum(r.origin not in ("default", "point") for r in run.records.values())
    points = sum(r.origin == "point" for r in run.records.values())
    goal = _goal(writer)
    words, package, keys = SEARCHERS.get(
        str(search.get("searcher")), (f"proposed by {search.get('searcher')}", "", ())
    )
    counts = []
    if proposed:
        own = writer.cite(*keys, before=writer.version(package) if package else "")
        counts.append(f"{_count(proposed, 'configuration')} {words}{own}")
    counts += [f"{_count(points, 'configuration')} given beforehand"] if points else []
    counts += ["the default configuration of scvi-tools"] if run.default else []
    budget = max_epochs(run)
    length = f" for at most {budget:,.6g} epochs" if budget else ""
    are = "was" if len(run.records) == 1 else "were"
    seed = f" (seed {search['seed']})" if search.get("seed") is not None else ""
    writer.say(f"To {goal}, {join_words(counts) or 'no trial'} {are} trained{length}{seed}.")
    cut = cut_default(run)
    if cut is not None:
        writer.say(f"The default configuration {cut.describe()}.")
    _say_stopping(writer)
    _say_cell_shares(writer)
    lost = sum(r.status in ("diverged", "failed") for r in run.records.values())
    if lost:
        trials = "1 trial" if lost == 1 else f"{lost} trials"
        writer.say(f"{trials} diverged or failed and did not count.")
    spent = sum(r.reports[-1].epoch for r in run.records.values() if r.reports)
    slots = [line["slots"] for line in run.driver_lines if line.get("slots")]
    at_a_time = f" with {_count(int(slots[-1]), 'trial')} at a time" if slots else ""
    state = " so far" if is_unfinished(run) or run.at_work else ""
    writer.say(
        f"The search trained {format_amount(spent)} epochs in all{state}, in "
        f"{format_duration(run.search_s)}{at_a_time}."
    )
    writer.say(
        "Each trial was judged by its best report, and the weights of that report were kept."
    )


def _goal(writer: _Writer) -> str:
    """Return what was optimised: the metric that decides, or several together."""
    run = writer.run
    together = _is_joint(run)
    goals = []
    for metric in run.metrics if together else run.metrics[:1]:
        label, cells = in_sentence(metric_words(metric.name).label), cells_of(metric.name)
        keys = [key for start, key in METRICS.items() if metric.base.startswith(start)]
        named = writer.cite(*([] if metric.own else keys), before=metric.name)
        way = "minimise" if metric.mode == "min" else "maximise"
        goals.append(f"{way} the {label}{f' on the {cells}' if cells else ''}{named}")
    return join_words(goals) + (" together" if together else "")


def _is_joint(run: Run) -> bool:
    """Whether several metrics were optimised together."""
    return str(run.search.get("searcher")) in TOGETHER and len(run.metrics) > 1


def _say_stopping(writer: _Writer) -> None:
    run = writer.run
    name = str(run.search.get("scheduler"))
    if name not in SCHEDULERS:
        return
    words, keys = SCHEDULERS[name]
    own = writer.cite(*keys)
    if name in POPULATION:
        changes = sum(len(r.perturbations) for r in run.records.values())
        writer.say(
            f"Trials formed a population under {words}{own}: {_count(changes, 'time')} a trial "
            "went on with the weights of a better one and changed hyperparameters."
        )
        return
    stopped = sum(record.status == "stopped" for record in run.records.values())
    rungs = run.settings.get("rungs") or []
    where = f", at rungs of {join_words(map(format_epochs, rungs))} epochs" if rungs else ""
    writer.say(
        f"{words[:1].upper() + words[1:]}{own} stopped {stopped} of {len(run.records)} trials "
        f"early{where}."
    )


def _say_cell_shares(writer: _Writer) -> None:
    """Say of how many cells trials were trained before the rungs, if not of all."""
    shares = writer.run.settings.get("cell_shares") or []
    if not shares:
        return
    parts = [f"{format_percent(share)} until epoch {format_epochs(end)}" for end, share in shares]
    nested = ", each part within the next" if len(parts) > 1 else ""
    default = (
        "; the default configuration was trained on all from the beginning"
        if writer.run.default is not None
        else ""
    )
    writer.say(
        "Trials were trained on a random part of the training cells at first "
        f"({join_words(parts)}{nested}) and then on all of them{default}."
    )


def _say_result(writer: _Writer) -> None:
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
        among = "of those confirmed" if confirmed else f"tried{open_}"
        others = len(run.candidates) > 1 if confirmed else len(run.records) > 1
        if others:
            default = name_default(run, "the default")
            writer.say(
                f"All others were stopped early, so none was compared with {default} at its end."
                if others_all_stopped(run) and not confirmed
                else f"No configuration {among} was better than {default}."
            )
        _say_final_fit(writer, best_id)
        return
    at = f" after {format_epochs(best.epoch)} epochs" if best else ""
    at = at.removesuffix("s") if best is not None and best.epoch == 1 else at
    changing = ", its hyperparameters changing on the way" if len(record.phases) > 1 else ""
    best_by = f"The configuration with the best {run.metric}" if _is_joint(run) else ""
    writer.say(
        f"{best_by or 'The best configuration'}{open_} was reached{at}{changing}"
        f"{f': {settings}' if settings else ''}."
    )
    if confirmed:
        for sentence in tell_confirmed_gain(run, best_id, cite=writer.cite):
            writer.say(sentence)
    elif not is_default_underway(run):
        _say_gain(writer)
    _say_final_fit(writer, best_id)


def _say_gain(writer: _Writer) -> None:
    """Say best against default in the search, on the test cells if that was measured."""
    run = writer.run
    table = comparison_table(run)
    for name in (test_metric(run), run.metric):
        if name in table.index and table.loc[name, ["best", "default"]].notna().all():
            row = table.loc[name]
            own = writer.cite("Li et al., 2022") if name.startswith("proportion_") else ""
            ours, theirs = float(row["best"]), float(row["default"])
            mode = metric_mode(run, name)
            paired = cell_difference(run, str(best_trial_id(run)), name)
            difference = describe_difference(theirs, ours, name=name, mode=mode, paired=paired)
            place = f"On the {cells_of(name)}, its" if cells_of(name) else "Its"
            label = in_sentence(metric_words(name).label)
            writer.say(
                f"{place} {label}{own} was {format_number(ours)} against "
                f"{format_number(theirs)} for {name_default(run, 'the default')}: {difference}."
            )
            if paired is not None:
                writer.say(
                    "The interval is that of the mean difference, paired over cells (Student's "
                    "t); each configuration was trained once, so it says nothing of other random "
                    "seeds."
                )
            return


def _say_final_fit(writer: _Writer, best_id: str) -> None:
    final = writer.run.records[best_id].final_fit
    if final is not None and final.finished and not writer.run.is_of_spots:
        writer.say(
            f"The final model was trained on all {final.n_cells:,} cells for "
            f"{final.epoch:.4g} epochs."
        )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
