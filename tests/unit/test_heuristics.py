"""Rules of thumb, against the numbers that their source gives."""

from __future__ import annotations

import pytest

import scvitune
from scvitune.errors import InputError
from scvitune.heuristics import destvi_batch_size, scaled_lr
from scvitune.models import MODELS, get_adapter


@pytest.mark.parametrize(
    ("n_spots", "batch_size"),
    [
        (1, 4),
        (40, 4),
        (60, 4),  # 6 is as far from 4 as from 8: the smaller
        (61, 8),
        (189, 16),  # the STARmap spots
        (240, 16),
        (241, 32),
        (3000, 128),
        (10**9, 128),
    ],
)
def test_a_tenth_of_the_spots_up_to_the_default(n_spots, batch_size):
    assert destvi_batch_size(n_spots) == batch_size


def test_no_other_size_is_nearer():
    sizes = [4, 8, 16, 32, 64, 128]
    found = [destvi_batch_size(n_spots) for n_spots in range(1, 3000)]
    assert set(found) == set(sizes)
    assert found == sorted(found)
    for n_spots, size in enumerate(found, 1):
        assert abs(size - n_spots / 10) == min(abs(other - n_spots / 10) for other in sizes)


def test_the_learning_rate_grows_with_the_batch():
    assert scaled_lr(128) == 0.001
    assert scaled_lr(1) == pytest.approx(0.001 / 128)
    assert scaled_lr(1024) == pytest.approx(0.008)


@pytest.mark.parametrize("model", MODELS)
def test_only_the_models_that_the_rule_is_of_scale_by_it(model):
    """DestVI starts from 0.003: at batch size 16 the rule would be 24 times below it."""
    faults = get_adapter(model).value_faults("lr", "scaled")
    if model in ("SCVI", "LinearSCVI"):
        assert faults == []
        return
    (fault,) = faults
    assert f"one of SCVI and LinearSCVI, not of {model}" in fault


@pytest.mark.parametrize("value", [0, -5, 2.5, "10", True, None])
def test_other_than_whole_numbers_from_1_are_refused(value):
    for name, rule in {"n_spots": destvi_batch_size, "batch_size": scaled_lr}.items():
        with pytest.raises(InputError, match=f"{name} must be a whole .* 1, but got") as error:
            rule(value)
        assert repr(value) in str(error.value)


def test_the_package_has_them():
    assert scvitune.heuristics.scaled_lr is scaled_lr
    assert "heuristics" in scvitune.__all__
