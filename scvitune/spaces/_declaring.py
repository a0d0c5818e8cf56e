"""What Ray's domains cannot say: order, conditions, and what may change while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Declared:
    """A domain in any accepted form, with something said of it.

    Attributes
    ----------
    domain
        A domain in any form that `scvitune.spaces.parse_space` accepts, or another declaration.
    when
        Other hyperparameter -> the value or values for which this one exists.
    mutable
        Whether it may change in a live model; None: nothing is said.
    """

    domain: Any
    when: Mapping[str, Any] = field(default_factory=dict)
    mutable: bool | None = None


def ordered(values: Sequence[Any]) -> Declared:
    """Return a choice whose values are a scale, such as ``[64, 128, 256]``.

    A searcher then knows that 64 is nearer to 128 than to 256.

    Parameters
    ----------
    values
        Different values; numbers must rise or fall.
    """
    return Declared({"type": "choice", "values": values, "ordered": True})


def conditional(domain: Any, when: Mapping[str, Any]) -> Declared:
    """Return a domain that exists only for certain values of other hyperparameters.

    Parameters
    ----------
    domain
        A domain in any accepted form.
    when
        Other hyperparameter -> its value, or a list of its values. All must hold.

    Examples
    --------
    >>> from scvitune import spaces
    >>> space = spaces.parse_space(
    ...     {
    ...         "gene_likelihood": {"type": "choice", "values": ["nb", "zinb"]},
    ...         "dispersion": spaces.conditional(
    ...             spaces.ordered(["gene", "gene-batch"]), when={"gene_likelihood": "zinb"}
    ...         ),
    ...     }
    ... )
    >>> space.names
    ('gene_likelihood', 'dispersion')
    """
    return Declared(domain, when=when)


def mutable(domain: Any) -> Declared:
    """Return a domain that population-based training may change in a live model.

    Parameters
    ----------
    domain
        In any form that `scvitune.spaces.parse_space` accepts.
    """
    return Declared(domain, mutable=True)


def structural(domain: Any) -> Declared:
    """Return a domain that is drawn once a trial and never changed in a live model.

    Parameters
    ----------
    domain
        In any form that `scvitune.spaces.parse_space` accepts.
    """
    return Declared(domain, mutable=False)
