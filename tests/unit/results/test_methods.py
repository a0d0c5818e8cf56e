from __future__ import annotations

import re

import pytest

from scvitune.results._citations import REFERENCES, SCHEDULERS, SEARCHERS
from scvitune.results._methods import describe_methods
from scvitune.schedulers import SCHEDULERS as KNOWN_SCHEDULERS
from scvitune.searchers import SEARCHERS as KNOWN_SEARCHERS


def check_citations(methods) -> None:
    """Every citation has its reference and the other way round."""
    for key, reference in REFERENCES.items():
        assert (key in methods.text) == (reference in methods.references), key


def test_says_what_the_study_did(small_run) -> None:
    small_run.settings(
        rungs=[1.0, 2.0],
        versions={
            "scvi-tools": "1.4.2",
            "ray": "2.60.0",
            "scvitune": "0.1.0",
            "hyperopt": "0.3.0",
        },
        search={"searcher": "tpe", "scheduler": "asha", "max_epochs": 4, "seed": 7},
    )
    methods = describe_methods(small_run.read())
    text = methods.text
    for part in (
        "scVI (Lopez et al., 2018) as implemented in scvi-tools 1.4.2 (Gayoso et al., 2022)",
        "tuned with scvitune 0.1.0 on Ray Tune 2.60.0 (Liaw et al., 2018)",
        "100 cells and 20 genes; 80 cells were used for training, 10 for validation and 10 were",
        "To minimise the negative ELBO on the validation cells (elbo_validation), 3 "
        "configurations proposed by a tree-structured Parzen estimator (hyperopt 0.3.0; Bergstra "
        "et al., 2011; Bergstra et al., 2013) and the default configuration of scvi-tools were "
        "trained for at most 4 epochs (seed 7).",
        "(ASHA) (Li et al., 2020) stopped 1 of 4 trials early, at rungs of 1 and 2 epochs.",
        "1 trial diverged or failed and did not count.",
        "The search trained 10 epochs in all",
        "with 2 trials at a time",
        "was reached after 2 epochs: lr = 0.005, n_latent = 12",
        "On the held-out test cells, its negative ELBO was 8.8000 against 11.000 for the default: "
        "2.20 nats per cell lower (better, 20 %).",
    ):
        assert part in text, part
    check_citations(methods)
    assert "Hyperband" not in text
    assert "so far" not in text


def test_an_unfinished_study_says_so_far(new_run) -> None:
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", values={1.0: 9.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={1.0: 8.0}, status=None)
    text = describe_methods(builder.read()).text
    assert "The search trained 2 epochs in all so far" in text
    assert "The best configuration so far" in text


def test_a_default_that_won_is_said(new_run) -> None:
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", values={1.0: 5.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={1.0: 6.0})
    builder.driver("end")
    assert "No configuration tried was better than the default." in (
        describe_methods(builder.read()).text
    )


@pytest.mark.parametrize("searcher", sorted(KNOWN_SEARCHERS))
def test_every_searcher_can_be_described(small_run, searcher) -> None:
    small_run.settings(search={"searcher": searcher, "scheduler": "fifo"})
    methods = describe_methods(small_run.read())
    assert SEARCHERS[searcher][0] in methods.text
    assert "stopped" not in methods.text
    check_citations(methods)


@pytest.mark.parametrize("scheduler", sorted(set(KNOWN_SCHEDULERS) - {"fifo"}))
def test_every_scheduler_can_be_described(small_run, scheduler) -> None:
    small_run.settings(search={"searcher": "random", "scheduler": scheduler})
    methods = describe_methods(small_run.read())
    words, keys = SCHEDULERS[scheduler]
    assert words[1:] in methods.text
    assert all(key in methods.text for key in keys)
    check_citations(methods)


def test_references_are_whole() -> None:
    for key, reference in REFERENCES.items():
        assert re.search(r"\(\d{4}\)", reference), reference
        assert re.search(r"\d{4}", key).group() in reference, reference
        assert reference.startswith(key.split()[0]), reference
