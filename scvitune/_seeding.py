"""Study seed -> trial, split and evaluation seeds.

A seed is derived by hashing the study seed with what it is for, so that the same
configuration gets the same seed on any worker, in any order, and no two uses share a stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_MODULUS = 2**63


def derive_seed(study_seed: int, *purpose: object) -> int:
    """Return a seed in ``[0, 2**63)`` for one purpose of a study.

    Parameters
    ----------
    study_seed
        The study's seed; 0 is a seed like any other.
    *purpose
        What the seed is for, for example ``"split"`` or ``"trial", config``. Anything JSON can
        hold; mappings are compared by content, not by order.
    """
    text = json.dumps([int(study_seed), *purpose], sort_keys=True, default=_plain)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _MODULUS


def _plain(value: Any) -> Any:
    """Make numpy's numbers Python's, so that 5 and np.int64(5) give the same seed."""
    return value.item() if isinstance(value, np.generic) else str(value)


def trial_seed(study_seed: int, config: Mapping[str, Any]) -> int:
    """Return the seed of a trial: a function of the study seed and its configuration alone."""
    return derive_seed(study_seed, "trial", dict(config))
