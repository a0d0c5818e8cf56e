"""The brackets of BOHB (Falkner et al., ICML 2018)."""

from __future__ import annotations

from importlib.util import find_spec

from scvitune.errors import InputError
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem
from scvitune.schedulers._hyperband import build_hyperband

_NEEDED = ("hpbandster", "ConfigSpace")


def build_bohb(problem: SchedulingProblem) -> BuiltScheduler:
    """Build the brackets for the searcher ``bohb``.

    BOHB is Hyperband whose trials are proposed by a model of each budget's values. The brackets
    are those of ``hyperband``; a report at a rung carries ``hyperband_info`` with its ``budget``
    in epochs, from which Ray's ``TuneBOHB`` learns, as it does under ``HyperBandForBOHB``.

    Raises
    ------
    InputError
        Without the packages of the searcher, which this scheduler is of no use without.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(
            f"scheduler 'bohb' needs {' and '.join(missing)} for its searcher. Install them by "
            "pip install 'scvitune[bohb]', or use scheduler 'hyperband', which has the same "
            "brackets."
        )
    return build_hyperband(problem)
