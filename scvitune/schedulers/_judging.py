"""What a scheduler sees of a trial's curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from scvitune.contracts import Mode

RungValue: TypeAlias = Literal["best", "value", "smoothed"]

_WINDOW = 0.1


@dataclass
class _Curve:
    epoch: float
    shown: float


class Judge:
    """Turns a trial's reports into the values that a scheduler compares.

    Parameters
    ----------
    rung_value
        - ``"best"``, the best value so far. The default, since a trial is judged by its best
          report in the end too, and that report's weights are kept: a curve that has just jumped,
          or turned upwards after its best, must not lose at a rung what it would win at the end.
        - ``"value"``, the report at the rung.
        - ``"smoothed"``, an exponential moving average with a half-life of a tenth of the epochs
          so far: for metrics that jump from report to report, where the best so far is luck.

        None of them makes an early budget honest: a fast learner that is overtaken later leads on
        every one. That is what a late first rung is for, and the brackets of ``hyperband`` and
        ``async_hyperband``.
    mode
        Which values are better.
    """

    def __init__(self, rung_value: RungValue, *, mode: Mode) -> None:
        self._rung_value = rung_value
        self._sign = 1.0 if mode == "min" else -1.0
        self._curves: dict[str, _Curve] = {}

    def show(self, trial_id: str, epoch: float, value: float) -> float:
        """Return what the scheduler is shown of a report.

        A report that comes again, after a resume, changes nothing.
        """
        curve = self._curves.get(trial_id)
        if curve is None or self._rung_value == "value":
            self._curves[trial_id] = _Curve(epoch, value)
            return value
        if epoch <= curve.epoch:
            return curve.shown
        if self._rung_value == "best":
            shown = min(curve.shown, value, key=lambda v: self._sign * v)
        else:
            weight = 1.0 - 0.5 ** ((epoch - curve.epoch) / (_WINDOW * epoch))
            shown = curve.shown + weight * (value - curve.shown)
        self._curves[trial_id] = _Curve(epoch, shown)
        return shown
