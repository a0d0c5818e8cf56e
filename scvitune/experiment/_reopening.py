"""A run directory -> the plan, data and settings that its study was started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scvitune.config import StudyConfig, dump_yaml, read_whole_number, read_yaml_mapping
from scvitune.contracts import PreparedData, RunLayout
from scvitune.data import load_prepared, load_split
from scvitune.errors import Faults, InputError, StudyError, warn_user
from scvitune.experiment._data_files import find_changed_files, refuse_other_cells
from scvitune.experiment._deconvolution import SETTINGS, Tissues
from scvitune.experiment._driver import study_settings
from scvitune.experiment._follow_ups import check_seeds
from scvitune.experiment._planning import Plan, plan_study
from scvitune.experiment._recorders import kept_trials
from scvitune.experiment._run_directory import read_ready, read_study
from scvitune.experiment._sharing import settle_sharing
from scvitune.metrics import OwnFunction


@dataclass(frozen=True)
class Opened:
    """A study on disk, ready to go on."""

    plan: Plan
    layout: RunLayout
    prepared: PreparedData
    tissues: Tissues | None


def reopen(
    root: Path,
    *,
    num_samples: int | None = None,
    adata: Any = None,
    resources: Mapping[str, Any] | None = None,
    afterwards: Mapping[str, Any] | None = None,
) -> Opened:
    """Open a run directory to go on with it.

    The prepared data are read whole, once, to see that they are what they were; trials need them
    in memory anyway.

    Parameters
    ----------
    num_samples
        The new total of proposals, which the driver writes down (`freeze_changes`); None: as
        before.
    adata
        What the user takes for the cells of the study; None: nothing.
    resources
        What trials get from now on, as far as it differs; None: as before. It is not written
        down.
    afterwards
        What follows the search, ``confirm`` and ``final_fit``, as far as it differs; written down
        like ``num_samples``.

    Raises
    ------
    InputError
        If it is no run directory, ``num_samples`` or the confirmation is less than what was asked
        before, ``adata`` holds other cells, or there is not what trials are to have.
    StudyError
        If its data or its settings have changed.

    Warns
    -----
    ScvituneWarning
        If the data file has changed, which the study does not read again.
    """
    layout = RunLayout(root)
    config, settings = read_study(layout)
    faults = Faults()
    with faults.collecting():
        config = _with_num_samples(config, num_samples)
    with faults.collecting():
        config = _with_resources(config, resources)
    with faults.collecting():
        config = _with_follow_ups(config, afterwards or {})
    faults.raise_if_any()
    prepared = load_prepared((root / settings["data_dir"]).resolve(), verify=True)
    if prepared.fingerprint != settings["fingerprint"]:
        raise StudyError(
            f"The prepared data of {root} has fingerprint {prepared.fingerprint}, but the study "
            f"was started on {settings['fingerprint']}."
        )
    for change in find_changed_files(settings, prepared):
        warn_user(change)
    if adata is not None:
        refuse_other_cells(adata, config, prepared)
    load_split(layout.splits)  # else each trial would fail of it
    ready = read_ready(layout)
    config, note = settle_sharing(config, prepared)
    plan = plan_study(
        config,
        prepared,
        searcher=ready.get("searcher"),
        scheduler=ready.get("scheduler"),
        threads=settings.get("threads", 1),  # earlier versions gave one
    )
    plan = replace(plan, slots=replace(plan.slots, note=note))
    if list(plan.report_epochs) != settings["report_epochs"]:
        raise StudyError(
            f"{layout.study} was changed since the study started, or it is of another version (it "
            f"names {settings.get('versions', {}).get('scvitune', 'none')}): its report epochs do "
            "not follow from its settings. Put it back, use that version, or start a new study."
        )
    tissues = None
    if SETTINGS in settings:
        tissues = Tissues.from_settings(layout, settings[SETTINGS])
    return Opened(plan, layout, prepared, tissues)


def _with_num_samples(config: StudyConfig, given: Any) -> StudyConfig:
    if given is None:
        return config
    before, number = config.search.num_samples, read_whole_number(given)
    if number is None:
        raise InputError(
            f"num_samples must be a whole number of at least {before}, the new total, but is "
            f"{given!r:.80}."
        )
    if number < before:
        raise InputError(
            f"num_samples is {number}, but this study asked for {before} already. num_samples "
            "is the new total: give a larger number, or leave it out."
        )
    search = config.search.model_copy(update={"num_samples": number})
    return config.model_copy(update={"search": search})


def _with_resources(config: StudyConfig, given: Mapping[str, Any] | None) -> StudyConfig:
    if given is None:
        return config
    plain = config.to_yaml_dict()
    changed = {**(plain["resources"] or {}), **given}
    if given.get("gpu") == 0 and "device" not in given:
        changed["device"] = None  # else a study on CUDA would still want it
    return StudyConfig.from_yaml_dict(plain | {"resources": changed})


def _with_follow_ups(config: StudyConfig, given: Mapping[str, Any]) -> StudyConfig:
    """Ask for a confirmation or a last fit, or for more of it, after the search."""
    changed = {name: value for name, value in given.items() if value is not None}
    if not changed:
        return config
    plain = config.to_yaml_dict()
    before = plain["confirm"] or {}
    if isinstance(wanted := changed.get("confirm"), Mapping):
        changed["confirm"] = before | dict(wanted)
    asked = StudyConfig.from_yaml_dict(plain | changed)
    if asked.confirm is None:
        return asked
    faults = Faults()
    if not before:  # one that was asked for before may have been of another version's rules
        check_seeds(asked, faults)
    for name, least in before.items():
        if (new := getattr(asked.confirm, name)) < least:
            faults.add(
                f"confirm.{name} is {new}, but this study asked for {least} already: what was "
                "found is not left out again. Give a larger number, or leave it out."
            )
    kept = kept_trials(config)
    if asked.confirm.top_k > kept:
        faults.add(
            f"confirm.top_k is {asked.confirm.top_k}, but this study has kept the weights of its "
            f"best {kept} trials: any of those confirmed may win. Give at most {kept}."
        )
    faults.raise_if_any()
    return asked


def settings_of(
    plan: Plan,
    layout: RunLayout,
    prepared: PreparedData,
    tissues: Tissues | None,
    functions: Mapping[str, OwnFunction],
) -> dict[str, Any]:
    """Return what every trial of a study is told."""
    stages = None
    if tissues is not None:
        stages = tissues.stages(layout, seed=plan.config.search.seed, device=plan.slots.device)
    return study_settings(
        plan,
        layout,
        prepared if tissues is None else tissues.search,
        stages=stages,
        held_out_dir=None if tissues is None else tissues.held_out_dir,
        functions=functions,
    )


def freeze_changes(layout: RunLayout, plan: Plan) -> None:
    """Write into study.yaml what a resume asks for beyond it; only the driver of a run may."""
    settings, wanted = read_yaml_mapping(layout.study), plan.config.to_yaml_dict()
    changes = {n: wanted[n] for n in ("confirm", "final_fit") if wanted[n] != settings.get(n)}
    num_samples = plan.config.search.num_samples
    if settings["search"].get("num_samples") != num_samples:
        changes["search"] = dict(settings["search"]) | {"num_samples": num_samples}
        changes["num_trials"] = plan.num_trials
    if not changes:
        return
    changed = settings | changes
    partial = layout.study.with_suffix(".partial")
    partial.write_text(dump_yaml(changed))
    partial.replace(layout.study)
