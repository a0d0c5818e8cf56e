"""Seeds: a function of the study's seed and the purpose, the same everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scvitune._seeding import derive_seed, trial_seed

CONFIG = {"lr": 1e-3, "n_latent": 10, "gene_likelihood": "nb", "norm": None, "flag": True}


def test_the_values_never_change():
    """Studies of earlier versions must repeat: these numbers are for ever."""
    expected = [4933647517844995975, 1531634910619480509]
    assert [derive_seed(0, "split"), trial_seed(0, CONFIG)] == expected
    code = (
        "from scvitune._seeding import *; import json; "
        f"print(json.dumps([derive_seed(0, 'split'), trial_seed(0, {CONFIG!r})]))"
    )
    for hash_seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        ).stdout
        assert json.loads(output) == expected


@given(st.integers(0, 2**40), st.text(), st.integers())
def test_seeds_fit_every_generator(seed, purpose, number):
    derived = derive_seed(seed, purpose, number)
    assert 0 <= derived < 2**63


def test_purposes_and_seeds_have_streams_of_their_own():
    seeds = [
        derive_seed(seed, *purpose)
        for seed in range(20)
        for purpose in [(), ("split",), ("trial",), ("order", 0), ("order", 1), ("order", "1")]
    ]
    assert len(set(seeds)) == len(seeds)
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")


def test_zero_is_a_seed_like_any_other():
    assert derive_seed(0, "split") != derive_seed(1, "split")
    assert trial_seed(0, {}) != trial_seed(1, {})


def test_the_order_of_names_does_not_matter_but_values_do():
    assert trial_seed(0, CONFIG) == trial_seed(0, dict(reversed(CONFIG.items())))
    for name, value in {"lr": 1.1e-3, "n_latent": 11, "norm": "none", "flag": False}.items():
        assert trial_seed(0, CONFIG | {name: value}) != trial_seed(0, CONFIG)
    assert trial_seed(0, CONFIG | {"more": 1}) != trial_seed(0, CONFIG)


@pytest.mark.parametrize("config", [CONFIG, {"lr": 0.1 + 0.2}, {"lr": 1e-300, "big": 2**70}])
def test_a_configuration_read_back_from_the_log_has_its_seed(config):
    assert trial_seed(3, json.loads(json.dumps(config))) == trial_seed(3, config)
