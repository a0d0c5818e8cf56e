"""TensorBoard's HParams page: which columns it gets, in which order, with which values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from scvitune.contracts import EPOCH, Choice, SearchSpace

BEST_PREFIX = "Best/"
"""Tag of the deciding metric at a trial's best report; the HParams table shows a tag's last value.

The page sorts metrics by their tags and ticks the first five: capitals come before all other
metrics' names, and a slash before an underscore.
"""
BEST_REPORT_PREFIX = "Best_report/"
"""Tags of what else every report has, at the best one."""
BEST_REPORT_SELDOM_PREFIX = "Best_report_seldom/"
"""Tags of what only some reports have, at the best one: parallel coordinates leave a trial out
that lacks a column that is ticked."""

INACTIVE = "inactive"
ORIGIN = "from"
CONSTANTS = "with"
"""Column of the constants that are not the default's.

The page ticks the first five hyperparameters that differ between trials, by name. A column each
would differ between the default and all others, and take the place of what is searched; the name
of this one comes after all of scvi-tools'.
"""
_STATUS = {
    "finished": Status.STATUS_SUCCESS,
    "stopped": Status.STATUS_SUCCESS,
    "diverged": Status.STATUS_FAILURE,
    "failed": Status.STATUS_FAILURE,
}


class HParamsPage:
    """Writes a study's trials in the form of the HParams page.

    No experiment summary is written: without one the page gathers names, types and ranges from
    the trials themselves, so a conditional hyperparameter or a metric that first appears in a
    late trial is there too, in a TensorBoard that was started before.

    None is written as the text ``None``. A hyperparameter that may be a number in one trial and
    None or text in another is written as text in all, for the page cannot sort a mixture. One of
    a few values that exists under a condition is ``inactive`` where it does not; one from a range
    is left out there, to stay a number elsewhere. Constants that differ from the default's values
    share one column of text, ``with``; those that do not have one each, which the page puts last.

    The page shows 128 as 128.00: it knows doubles alone, and prints each with five digits. As text
    an integer would lose its order in tables and its scale in plots, and would not go together
    with the numbers that earlier trials of a run have written.

    Parameters
    ----------
    metric
        What decides: its column is the first.
    space
        What is searched.
    is_seldom
        Tells of a metric whether it comes with some reports only.
    default
        The default configuration.
    """

    def __init__(
        self,
        *,
        metric: str,
        space: SearchSpace | None,
        is_seldom: Callable[[str], bool],
        default: Mapping[str, Any] | None = None,
    ) -> None:
        self._metric, self._is_seldom = metric, is_seldom
        self._tags = {EPOCH: BEST_REPORT_PREFIX + EPOCH}  # every report has it
        searched = () if space is None else space.hyperparameters
        choices = {h.name: h.domain for h in searched if isinstance(h.domain, Choice)}
        self._conditional = tuple(h.name for h in searched if h.when and h.name in choices)
        self._as_text = {n for n, c in choices.items() if len({_kind(v) for v in c.values}) > 1}
        self._as_text.update(self._conditional)
        held = {} if space is None else space.constants
        known = default or {}
        self._together = tuple(n for n, v in held.items() if n in known and known[n] != v)

    def start(self, trial_id: str, config: Mapping[str, Any], *, came_from: str) -> Summary:
        """Return a trial's entry; ``came_from`` says whose weights it took, if it may have."""
        info = SessionStartInfo(group_name=trial_id, start_time_secs=time.time())
        together = [f"{name}={config[name]}" for name in self._together if name in config]
        if together:
            info.hparams[CONSTANTS].string_value = ", ".join(together)
        for name, value in config.items():
            if name in self._together:
                continue
            _set_value(info.hparams[name], str(value) if name in self._as_text else value)
        for name in self._conditional:
            if name not in config:
                info.hparams[name].string_value = INACTIVE
        if came_from:
            info.hparams[ORIGIN].string_value = came_from
        data = HParamsPluginData(session_start_info=info)
        return _plugin_summary(metadata.SESSION_START_INFO_TAG, data)

    def end(self, status: str) -> Summary | None:
        """Return a trial's outcome; None while it has none."""
        if not self.is_outcome(status):
            return None
        info = SessionEndInfo(status=_STATUS[status], end_time_secs=time.time())
        data = HParamsPluginData(session_end_info=info)
        return _plugin_summary(metadata.SESSION_END_INFO_TAG, data)

    def is_outcome(self, status: str) -> bool:
        """Tell whether a status is one in which a trial has ended for good."""
        return status in _STATUS

    def best_values(self, best: Mapping[str, float]) -> dict[str, float]:
        """Return the values of a trial's best report by tag."""
        return {self._tag(name): value for name, value in best.items()}

    def _tag(self, name: str) -> str:
        tag = self._tags.get(name)
        if tag is None:
            if name == self._metric:
                prefix = BEST_PREFIX
            else:
                prefix = BEST_REPORT_SELDOM_PREFIX if self._is_seldom(name) else BEST_REPORT_PREFIX
            tag = self._tags[name] = prefix + name
        return tag


def replaced(old: Mapping[str, float] | None, new: Mapping[str, float]) -> dict[str, float]:
    """Return the new best values, and NaN for the old ones that would else stay on the page."""
    return {**dict.fromkeys(old or (), math.nan), **new}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else "text"


def _set_value(target: Any, value: Any) -> None:
    """Fill a protobuf ``Value``: booleans and finite numbers as such, all else as text."""
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float) and math.isfinite(value):
        target.number_value = value
    else:
        target.string_value = str(value)


def _plugin_summary(tag: str, data: HParamsPluginData) -> Summary:
    return Summary(
        value=[
            Summary.Value(
                tag=tag,
                metadata=metadata.create_summary_metadata(data),
                tensor=metadata.NULL_TENSOR,
            )
        ]
    )
