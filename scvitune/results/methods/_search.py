"""What the methods paragraph says of the search: who was trained, how long, who was stopped."""

from __future__ import annotations

from itertools import pairwise

from scvitune._durations import format_duration
from scvitune._early_rungs import HALVING, REDUCTION
from scvitune.results._budget import as_number, cut_default, max_epochs
from scvitune.results._repeating import describe_repeat
from scvitune.results._run_directory import Run
from scvitune.results._searched import declared_space
from scvitune.results._summary import count_trials, is_unfinished, of_asked
from scvitune.results._tables import OPEN, trial_status
from scvitune.results._wording import (
    cells_of,
    format_amount,
    format_epochs,
    format_percent,
    in_sentence,
    join_words,
    metric_words,
)
from scvitune.results.methods._citations import (
    METRICS,
    POPULATION,
    SCHEDULERS,
    TOGETHER,
)
from scvitune.results.methods._proposals import tell_proposed
from scvitune.results.methods._writer import Writer, count_things

_ASYNCHRONOUS = ("asha", "async_hyperband")
"""Halving that waits for nobody."""

_FEW_EPOCHS = 6
_SAME = 1e-6


def say_state(writer: Writer) -> None:
    """Say of a study that is not finished that it is not, and how far it has come."""
    run = writer.run
    if not (run.at_work or is_unfinished(run)):
        return
    state = "still running" if run.at_work else "not finished"
    writer.say(
        f"This study is {state}; its trials so far: {count_trials(run)}{of_asked(run)}. What "
        "follows counts those that were trained."
    )


def say_search(writer: Writer) -> None:
    """Say what was searched by what, for how long, and what became of the trials."""
    run, search = writer.run, writer.run.search
    proposed = [r for r in run.trained if r.origin not in ("default", "point")]
    points = sum(r.origin == "point" for r in run.trained)
    has_default = any(r.origin == "default" for r in run.trained)
    goal = _goal(writer)
    counts = [tell_proposed(writer, proposed)] if proposed else []
    counts += [f"{count_things(points, 'configuration')} given beforehand"] if points else []
    counts += ["the default configuration of scvi-tools"] if has_default else []
    budget = max_epochs(run)
    length = f" for at most {budget:,.6g} epochs" if budget else ""
    are = "was" if len(run.trained) < 2 else "were"
    seed = f" (seed {search['seed']})" if search.get("seed") is not None else ""
    writer.say(f"To {goal}, {join_words(counts) or 'no trial'} {are} trained{length}{seed}.")
    cut = cut_default(run)
    if cut is not None:
        writer.say(f"The default configuration {cut.describe()}.")
    _say_batch_size(writer)
    _say_stopping(writer)
    _say_cell_shares(writer)
    _say_open(writer)
    lost = sum(r.status in ("diverged", "failed") for r in run.records.values())
    if lost:
        trials = "1 trial" if lost == 1 else f"{lost} trials"
        writer.say(f"{trials} diverged or failed and did not count.")
    spent = sum(r.reports[-1].epoch for r in run.records.values() if r.reports)
    slots = run.search_slots
    at_a_time = f" with {count_things(slots, 'trial')} at a time" if slots else ""
    repeat = describe_repeat(run)
    state = " so far" if is_unfinished(run) or run.at_work else ""
    writer.say(
        f"The search trained {format_amount(spent)} epochs in all{state}, in "
        f"{format_duration(run.search_s)}{at_a_time}"
        f"{f' ({repeat})' if repeat else ''}."
    )
    writer.say(
        f"Trials were evaluated{_when_evaluated(run)}; each was judged by its best evaluation, "
        "and the weights of that one were kept."
    )


def _say_batch_size(writer: Writer) -> None:
    """Say with which batch size trials were trained, where the space does not."""
    run, space = writer.run, declared_space(writer.run)
    if space is not None and "batch_size" in {*space.names, *space.constants}:
        return
    usual = run.settings.get("default_batch_size")  # older runs do not say it
    sizes = {record.config.get("batch_size", usual) for record in run.trained}
    if len(sizes) == 1 and None not in sizes:
        writer.say(f"The batch size was {sizes.pop()}.")


def _say_open(writer: Writer) -> None:
    """Say how many trials a budget cut off; those of an unfinished study are told before."""
    run = writer.run
    cut_off = sum(trial_status(run, record) in OPEN for record in run.trained)
    if run.spent_budget and cut_off:
        budget = run.spent_budget.removesuffix(" is spent").capitalize()
        trials = "1 trial was" if cut_off == 1 else f"{cut_off} trials were"
        writer.say(f"{budget} ended the search, before {trials} trained to an end.")


def _when_evaluated(run: Run) -> str:
    """Return at which epochs trials reported: `` every 10 epochs and at the rungs``."""
    epochs = [as_number(epoch) for epoch in run.settings.get("report_epochs") or []]
    known = [epoch for epoch in epochs if epoch is not None]
    if not known:
        return ""
    rungs = [float(rung) for rung in run.settings.get("rungs") or []]
    step = _step(known, rungs)
    if step is None:
        if len(known) > _FEW_EPOCHS:
            first, last = format_epochs(known[0]), format_epochs(known[-1])
            return f" {len(known)} times from epoch {first} to epoch {last}"
        epoch = "epoch" if known == [1] else "epochs"
        return f" after {join_words(map(format_epochs, known))} {epoch}"
    whole = round(1 / step)
    if step < 1 and abs(whole * step - 1) < _SAME:
        often = f" {count_things(whole, 'time')} an epoch"
    else:
        often = " after every epoch" if step == 1 else f" every {format_epochs(step)} epochs"
    between = any(_is_off(rung, step) for rung in rungs if rung < known[-1])
    end = ["the rungs"] if between else []
    end += ["the end"] if _is_off(known[-1], step) else []
    return f"{often}{f' and at {join_words(end)}' if end else ''}"


def _step(epochs: list[float], rungs: list[float]) -> float | None:
    """Return the distance of regular reports, None where there is none."""
    last = epochs[-1]
    regular = [e for e in epochs if e < last and not any(abs(e - rung) < _SAME for rung in rungs)]
    points = [0.0, *regular] if regular else [0.0, *epochs]
    step = min((b - a for a, b in pairwise(points)), default=0.0)
    if step <= 0 or any(_is_off(epoch, step) for epoch in regular):
        return None
    wanted = [step * i for i in range(1, 1 + int(last / step + _SAME))]
    full = all(any(abs(want - e) < _SAME * max(1, last) for e in epochs) for want in wanted)
    return step if full and len(epochs) > 1 else None


def _is_off(epoch: float, step: float) -> bool:
    return abs(epoch / step - round(epoch / step)) > _SAME * max(1.0, epoch / step)


def _goal(writer: Writer) -> str:
    """Return what was optimised: the metric that decides, or several together."""
    run = writer.run
    together = is_joint(run)
    goals = []
    for metric in run.metrics if together else run.metrics[:1]:
        label, cells = in_sentence(metric_words(metric.name).label), cells_of(metric.name)
        keys = [key for start, key in METRICS.items() if metric.base.startswith(start)]
        named = writer.cite(*([] if metric.own else keys), before=metric.name)
        way = "minimise" if metric.mode == "min" else "maximise"
        goals.append(f"{way} the {label}{f' on the {cells}' if cells else ''}{named}")
    return join_words(goals) + (" together" if together else "")


def is_joint(run: Run) -> bool:
    """Return whether several metrics were optimised together."""
    return str(run.search.get("searcher")) in TOGETHER and len(run.metrics) > 1


def _say_stopping(writer: Writer) -> None:
    run = writer.run
    name = str(run.search.get("scheduler"))
    if name not in SCHEDULERS:
        return
    words, keys = SCHEDULERS[name]
    own = writer.cite(*keys)
    if name in POPULATION:
        changes = sum(len(r.perturbations) for r in run.records.values())
        writer.say(
            f"Trials formed a population under {words}{own}: {count_things(changes, 'time')} a "
            "trial went on with the weights of a better one and changed hyperparameters."
        )
        return
    stopped = sum(record.status == "stopped" for record in run.trained)
    rungs = run.settings.get("rungs") or []
    where = f", at rungs of {join_words(map(format_epochs, rungs))} epochs" if rungs else ""
    if rungs and name in HALVING:
        where += f" (reduction factor {REDUCTION})"
        if name in _ASYNCHRONOUS:
            where += ", each compared with those that had come to the rung before it"
    writer.say(
        f"{words[:1].upper() + words[1:]}{own} stopped {stopped} of {len(run.trained)} trials "
        f"early{where}."
    )


def describe_halving(run: Run) -> str:
    """Return why more than the best quarter may go on at a rung, ``""`` where no more do."""
    if str(run.search.get("scheduler")) not in _ASYNCHRONOUS:
        return ""
    return (
        "At each rung the best quarter goes on, of the trials that have come there by then: "
        "nobody waits for the others, so in all more than a quarter may pass."
    )


def _say_cell_shares(writer: Writer) -> None:
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
