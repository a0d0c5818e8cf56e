"""What luck or dropout alone brings about is not passed off as an effect."""

from __future__ import annotations

import pytest

from scvitune.results import render_report
from scvitune.results._confirmation_words import describe_confirmation
from scvitune.results.methods import describe_methods
from scvitune.results.plots import plot_confirmation


def test_two_seeds_that_agree_to_the_digit_prove_nothing(small_run):
    small_run.settings(confirm={"top_k": 1, "seeds": 2})
    for seed in (1, 2):
        small_run.confirm("00000", seed, elbo_validation=9.0 + seed, elbo_test=9.0 + seed)
        small_run.confirm("00001", seed, elbo_validation=8.0 + seed, elbo_test=8.0 + seed)
    run = small_run.read()
    assert "no difference can be shown" in describe_confirmation(run)
    assert "the same with all 2 seeds; sign test p = 0.5" in describe_confirmation(run)
    assert "sign test, paired: p = 0.5" in describe_methods(run).text
    figure, _ = plot_confirmation(run)
    assert figure.layout.xaxis2.range[0] < -1


@pytest.mark.parametrize(("dropout", "is_told"), [(0.05, True), (0.1, True), (0.3, False)])
def test_more_dropout_alone_makes_the_training_loss_worse(new_run, dropout, is_told) -> None:
    """It is taken while dropout is on: that is no sign of less overfitting."""
    builder = new_run()
    trials = (("00000", 0.1, 9.0, 10.0, 9.0), ("00001", dropout, 9.5, 9.0, 8.0))
    for trial_id, rate, train, validation, test in trials:
        origin = "tpe" if trial_id > "00000" else "default"
        builder.trial(trial_id, {"dropout_rate": rate}, origin=origin)
        metrics = {"elbo_train": train, "elbo_validation": validation}
        builder.log.append("report", trial_id=trial_id, epoch=4.0, time_s=1.0, metrics=metrics)
        builder.judge(trial_id, elbo_test=test)
    assert ("best trial overfit less" in render_report(builder.read())) is is_told
