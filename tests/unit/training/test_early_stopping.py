"""Early stopping against scvi-tools' own callback."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scvi.train._callbacks import LoudEarlyStopping

from scvitune.training import EarlyStopping, TrainingSettings

# Eighths are exact in single precision, in which scvi-tools keeps its best value.
values = st.lists(st.integers(-400, 400).map(lambda eighths: eighths / 8), max_size=30)


def stop_of(decide, sequence):
    return next((i for i, value in enumerate(sequence) if decide(value)), None)


@settings(max_examples=300, deadline=None)
@given(
    sequence=values,
    patience=st.integers(1, 6),
    min_delta=st.sampled_from([0.0, 0.25, 1.0, 100.0]),
    warmup=st.integers(0, 8),
    mode=st.sampled_from(["min", "max"]),
)
def test_it_stops_when_scvi_tools_stops(sequence, patience, min_delta, warmup, mode):
    theirs = LoudEarlyStopping(
        monitor="elbo_validation",
        min_delta=min_delta,
        patience=patience,
        mode=mode,
        warmup_epochs=warmup,
    )
    ours = EarlyStopping(
        TrainingSettings(
            early_stopping=True,
            early_stopping_patience=patience,
            early_stopping_min_delta=min_delta,
            early_stopping_warmup_epochs=warmup,
            early_stopping_mode=mode,
        )
    )
    expected = stop_of(
        lambda value: theirs._evaluate_stopping_criteria(torch.tensor(value).double())[0], sequence
    )
    assert stop_of(ours.should_stop, sequence) == expected


@pytest.mark.parametrize("cut", [0, 2, 4])
def test_its_state_is_whole(cut):
    sequence = [5.0, 4.0, 4.5, 3.0, 3.5, 3.2, 3.1, 3.3]
    configuration = TrainingSettings(early_stopping_patience=4, early_stopping_warmup_epochs=1)
    straight, first, second = (EarlyStopping(configuration) for _ in range(3))
    expected = stop_of(straight.should_stop, sequence)
    assert expected == 7
    assert stop_of(first.should_stop, sequence[:cut]) is None
    second.load_state_dict(first.state_dict())
    assert stop_of(second.should_stop, sequence[cut:]) == expected - cut
