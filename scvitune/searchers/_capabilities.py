"""What each search algorithm can take, as a table, and the check that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from scvitune.contracts import Choice, FloatRange, Hyperparameter, SearchSpace
from scvitune.errors import Faults, one_of
from scvitune.searchers._unit_interval import count_values


@dataclass(frozen=True)
class Capabilities:
    """What a searcher can take and do.

    Attributes
    ----------
    summary
        What it is, in a few words.
    continuous, log, integer, quantised, categorical, boolean, ordered, conditional
        Kinds of hyperparameters that it takes.
    longest_list
        Most values that a hyperparameter with a list of them may have; None: any number.
    learns
        Whether proposals depend on values.
    learns_from_reports
        Whether it learns from reports before a trial ends.
    parallel
        What several trials at a time do to it: nothing (``independent``), it takes account of
        those that run (``aware``), or it proposes as if they did not (``unaware``), which costs
        little while there are few.
    several_metrics
        Whether it searches the front of several metrics.
    packages
        What it imports beyond scvitune's own dependencies' surest part.
    extra
        The optional extra that installs them; None: they come with scvitune.
    """

    summary: str
    continuous: bool = True
    log: bool = True
    integer: bool = True
    quantised: bool = True
    categorical: bool = True
    boolean: bool = True
    ordered: bool = True
    conditional: bool = True
    longest_list: int | None = None
    learns: bool = True
    learns_from_reports: bool = False
    parallel: Literal["independent", "aware", "unaware"] = "unaware"
    several_metrics: bool = False
    packages: tuple[str, ...] = ()
    extra: str | None = None


CAPABILITIES: dict[str, Capabilities] = {
    "random": Capabilities("independent draws", learns=False, parallel="independent"),
    "grid": Capabilities(
        "every combination of the values",
        continuous=False,
        longest_list=1000,
        learns=False,
        parallel="independent",
    ),
    "qmc": Capabilities("scrambled Sobol sequence", learns=False, parallel="independent"),
    "tpe": Capabilities("Parzen estimators, one hyperparameter at a time (hyperopt)"),
    "optuna_tpe": Capabilities(
        "Parzen estimators, several hyperparameters together (Optuna)", parallel="aware"
    ),
    "gp": Capabilities("Gaussian process on mixed spaces (Optuna)", parallel="aware"),
    "cmaes": Capabilities(
        "covariance matrix adaptation; choices without an order independently",
        packages=("cmaes",),
    ),
    "nsga2": Capabilities("genetic algorithm (Optuna)", several_metrics=True),
    "bohb": Capabilities(
        "kernel densities for each budget (hpbandster)",
        quantised=False,
        learns_from_reports=True,
        packages=("hpbandster", "ConfigSpace"),
        extra="bohb",
    ),
    "local": Capabilities("changes the best found, with restarts"),
}
"""Name of a searcher -> what it can take. One that is not here takes everything."""

_ANYTHING = Capabilities("")


def check_capabilities(name: str, space: SearchSpace) -> None:
    """Raise unless a searcher can take every hyperparameter of a space.

    Parameters
    ----------
    name
        A registered searcher.
    space
        What is to be searched.

    Raises
    ------
    InputError
        With all faults, what to write instead, and which searchers take the space; and if a
        package is missing, with the extra that installs it.
    """
    faults = Faults()
    capabilities = CAPABILITIES.get(name, _ANYTHING)
    missing = [package for package in capabilities.packages if find_spec(package) is None]
    if missing:
        what = f"scvitune[{capabilities.extra}]" if capabilities.extra else " ".join(missing)
        noun = "packages" if len(missing) > 1 else "package"
        faults.add(
            f"The searcher {name!r} needs the {noun} {' and '.join(missing)}, which cannot be "
            f"imported. Install: pip install '{what}'."
        )
    wrong = [(h.name, fault) for h in space.hyperparameters for fault in _faults(capabilities, h)]
    if wrong:
        others = [other for other in _alternatives(capabilities) if _takes(other, space)]
        instead = f", or use the searcher {one_of(others)}" if others else ""
        for hyperparameter, (what, advice) in wrong:
            faults.add(f"The searcher {name!r} {what.format(hyperparameter)}. {advice}{instead}.")
    faults.raise_if_any()


def describe_searchers() -> list[dict[str, Any]]:
    """Return a row for each searcher: its name, its summary and every capability.

    Truths are ``yes`` and ``no``, so that a row can be printed as it is.
    """
    return [
        {
            "searcher": name,
            "what": c.summary,
            "continuous": _word(c.continuous),
            "log": _word(c.log),
            "integer": _word(c.integer),
            "quantised": _word(c.quantised),
            "categorical": _word(c.categorical),
            "boolean": _word(c.boolean),
            "ordered": _word(c.ordered),
            "conditional": _word(c.conditional),
            "learns": _word(c.learns),
            "learns from reports": _word(c.learns_from_reports),
            "several trials at a time": c.parallel,
            "several metrics": _word(c.several_metrics),
            "extra": c.extra or "",
        }
        for name, c in CAPABILITIES.items()
    ]


def _word(truth: bool) -> str:
    return "yes" if truth else "no"


def _alternatives(capabilities: Capabilities) -> list[str]:
    return [n for n, c in CAPABILITIES.items() if c.learns == capabilities.learns and not c.extra]


def _takes(name: str, space: SearchSpace) -> bool:
    return not any(
        fault for h in space.hyperparameters for fault in _faults(CAPABILITIES[name], h)
    )


def _faults(c: Capabilities, hyperparameter: Hyperparameter) -> Iterator[tuple[str, str]]:
    """Give what is wrong, with a place for the name, and what to write instead."""
    domain = hyperparameter.domain
    n_values = count_values(domain)
    if hyperparameter.when and not c.conditional:
        yield "knows no conditions, but {} has one (when)", "Leave the condition out"
    if isinstance(domain, Choice):
        is_boolean = all(isinstance(value, bool) for value in domain.values)
        if domain.ordered and not c.ordered:
            yield "takes no ordered choices, but {} is one", "Leave ordered out"
        elif is_boolean and not c.boolean:
            yield "takes no booleans, but {} is one", "Hold it constant"
        elif not is_boolean and not domain.ordered and not c.categorical:
            yield "takes no choices, but {} is one", "Give it a range"
        return
    if n_values is None and not c.continuous:
        yield "needs a list of values, but {} is a continuous range", "Give it choices or a q"
    elif n_values is not None and c.longest_list is not None and n_values > c.longest_list:
        yield (
            f"lists at most {c.longest_list} values, but {{}} is a range of {n_values}",
            "Give it choices or a q",
        )
    if domain.log and not c.log:
        yield "takes no logarithmic scales, but {} has one", "Use the type without log"
    if domain.quantum is not None and not c.quantised:
        yield (
            f"drops quantisation, but {{}} has q={domain.quantum:g}",
            "Leave q out, or list the values as an ordered choice",
        )
    if not isinstance(domain, FloatRange) and not c.integer:
        yield "takes no integers, but {} is one", "Use an ordered choice"
