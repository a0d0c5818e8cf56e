"""Configurations of every form that YAML can hold, most of them right but in a few places."""

from __future__ import annotations

import datetime
import math
from typing import Any

import yaml
from hypothesis import strategies as st

from scvitune.models import MODELS, get_adapter
from scvitune.schedulers import SCHEDULERS
from scvitune.searchers import SEARCHERS

HUGE = 10**400

_words = st.sampled_from(
    [
        *(
            "",
            " ",
            "null",
            "~",
            "yes",
            "1e-4",
            "1e5",
            "1_000",
            "0x1F",
            "1:30",
            ".5",
            "-",
            "=",
            "auto",
        ),
        *(
            "~nobody-of-this-name/x",
            "/proc/self/../1/cwd/x",
            "../../etc",
            "/proc/1",
            "s3://bucket/x",
            "a\nb",
            "\t",
            "\x00",
            "\x7f",
            "é細🧬",
            "\u202e",
        ),
        *("x" * 5000, "%s{}{0}{x!r}", "json:dumps", "os.path:join", "a:b:c", "name", "__class__"),
        *("elbo_validation", "nmi_validation", "scib_total", "elbo_test", "proportion_jsd"),
        *("tpe", "asha", "grid", "pbt", "nsga2", "min", "max", "best", "uniform", "all_cells"),
    ]
)
_numbers = st.one_of(
    st.sampled_from(
        [0, 1, -1, 2, 3, 50, 2**31, 2**63, HUGE, -HUGE, 0.0, -0.0, 0.1, 0.5, 0.9, 1.0, 1.5, 1e-320]
    ),
    st.sampled_from([1e308, -1e308, math.nan, math.inf, -math.inf, 1e-4, 100, 400, 1e15]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    _numbers,
    _words,
    st.just(datetime.date(2024, 1, 1)),
    st.just(datetime.datetime(2024, 1, 1, 12, 30)),
    st.just(b"\x00\xff"),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(_words, st.integers(-1, 1), st.none()), inner, max_size=3),
        st.sets(_words, max_size=2),
    ),
    max_leaves=6,
)


def _field(*right: Any) -> st.SearchStrategy[Any]:
    """Draw a right value, more often than anything else."""
    return st.one_of(
        st.sampled_from(right), st.sampled_from(right), st.sampled_from(right), ANYTHING
    )


_NAMES = sorted({name for model in MODELS for name in get_adapter(model).hyperparameters})
_TYPES = (
    "uniform",
    "quniform",
    "loguniform",
    "randint",
    "qrandint",
    "lograndint",
    "choice",
    "bool",
)
_bound = st.one_of(st.sampled_from([1, 2, 5, 64, 128, 0.1, 0.001, 0.5, "1e-3"]), _numbers)
_values = st.lists(
    st.one_of(st.sampled_from([32, 64, 128, 0.1, "nb", "zinb", "gene", True]), SCALARS), max_size=4
)
_domain = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(_TYPES), "low": _bound, "high": _bound}, optional={"q": _bound}
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["choice", "choise"]), "values": _values},
        optional={
            "ordered": _field(True),
            "mutable": _field(True, False),
            "when": _field({"n_layers": 1}, {"gene_likelihood": ["nb", "zinb"]}),
        },
    ),
    st.fixed_dictionaries({"grid_search": _values}),
    ANYTHING,
)
_space = st.dictionaries(st.one_of(st.sampled_from(_NAMES), _words), _domain, max_size=4)
_own = st.fixed_dictionaries(
    {"name": _field("mine", "other", "n_params", "mine_test")},
    optional={
        "function": _field("json:dumps", "math:sqrt", "nowhere:x"),
        "mode": _field("min", "max"),
        "cost": _field("cheap", "dear"),
    },
)
_metric = _field("elbo_validation", "reconstruction_loss_validation", "marginal_ll_validation")


def sections(path: str) -> dict[str, st.SearchStrategy[Any]]:
    """Return a strategy for each top-level key; ``path`` is a file that can be read."""
    return {
        "schema": _field(1),
        "model": _field(*MODELS, "SCVY"),
        "data": st.one_of(
            st.fixed_dictionaries(
                {"path": _field(path, path, path, "nowhere.h5ad")},
                optional={
                    "layer": _field("counts", None),
                    "batch_key": _field("batch", "bach"),
                    "labels_key": _field("label", None),
                    "size_factor_key": _field("size"),
                    "categorical_covariate_keys": _field(["donor"], "donor", []),
                    "continuous_covariate_keys": _field(["age"], ["age", "age"], ["donor"]),
                    "n_top_genes": _field(20, 41),
                    "min_counts": _field(1, 0),
                    "min_genes": _field(1),
                    "min_cells": _field(1, 5),
                    "reference": _field(None, path),
                },
            ),
            ANYTHING,
        ),
        "space": st.one_of(_space, _space, _space, ANYTHING),
        "metric": st.one_of(
            _metric, _own, st.lists(st.one_of(_metric, _own), max_size=3), ANYTHING
        ),
        "mode": _field("min", "max", None),
        "metric_options": st.one_of(
            st.fixed_dictionaries(
                {},
                optional={
                    "n_mc_samples": _field(10),
                    "max_cells": _field(100),
                    "corruption": _field("uniform", "binomial"),
                    "corrupted_share": _field(0.1),
                },
            ),
            ANYTHING,
        ),
        "search": st.one_of(
            st.fixed_dictionaries(
                {},
                optional={
                    "searcher": _field(*SEARCHERS, None),
                    "scheduler": _field(*SCHEDULERS, None),
                    "strategy": _field("auto", "tpe_asha", None),
                    "rung_value": _field("best", "value", "smoothed"),
                    "first_rung_cells": _field(0.1, None),
                    "num_samples": _field(1, 10, 0, 10**6),
                    "max_epochs": _field(5, 5.0, 400),
                    "time_budget_s": _field(60, None),
                    "epoch_budget": _field(100, None),
                    "points_to_evaluate": _field([], [{"lr": 0.001}], [{"n_latent": 10}]),
                    "default_trial": _field(True, False),
                    "max_concurrent": _field(1, 4, None),
                    "max_failures": _field(0, 2),
                    "train_size": _field(0.8, 0.5, 0.01),
                    "test_size": _field(0.1, 0),
                    "seed": _field(0, 7),
                },
            ),
            ANYTHING,
        ),
        "resources": _field(None, {"cpu": 1}, {"cpu": 0.5, "gpu": 0}, {"gpu": 64}),
        "confirm": _field(None, {"top_k": 3, "seeds": 5}, {"top_k": 1, "seeds": 1}),
        "final_fit": _field(None, "all_cells"),
        "target": _field("simulated", "likelihood"),
        "simulation": _field(None, {"max_cells": 5, "concentration": 1.0}),
        "wandb": _field(None, "project"),
        "storage": _field("runs", "study.yaml", "no/such/place"),
        "name": _field(None, "mine"),
    }


@st.composite
def configurations(draw: Any, path: str = "cells.h5ad") -> dict[Any, Any]:
    """Draw a configuration: a model, its data, some other keys, and seldom one of no meaning."""
    known = sections(path)
    chosen = draw(st.lists(st.sampled_from(sorted(set(known) - {"data", "model"})), max_size=4))
    found: dict[Any, Any] = {"model": "SCVI", "data": {"path": path}}
    for key in [*dict.fromkeys(chosen), *draw(st.sampled_from([[], [], ["data"], ["model"]]))]:
        found[key] = draw(known[key])
    if draw(st.integers(0, 5)) == 0:
        found[
            draw(st.one_of(_words, st.sampled_from(["serch", "num_samples", "n_latent", 3])))
        ] = draw(ANYTHING)
    if draw(st.integers(0, 9)) == 0:
        del found[draw(st.sampled_from(sorted(found, key=str)))]
    return found


@st.composite
def texts(draw: Any, whole: str) -> str:
    """Draw a file's text: a whole one cut, doubled, misspelt or mixed with what YAML minds."""
    odd = st.sampled_from(
        [
            "\t",
            ":",
            ": ",
            "- ",
            "&a ",
            "*a",
            "!!python/object:os.system ",
            "!!binary ",
            "<<: ",
            "|",
        ]
        + ["[", "]", "{", "}", '"', "'", "#", "\n", "\n\n  ", "? ", "---\n", "...\n", "%YAML 9\n"]
        + [
            "\x00",
            "\x85",
            "\ufeff",
            "é",
            "🧬",
            "@",
            "`",
            "!!set ",
            "!!timestamp ",
            "!!int ",
            "!!bool ",
            "9" * 5000,
            ">",
        ]
    )
    lines = whole.split("\n")
    for _ in range(draw(st.integers(0, 3))):
        del lines[draw(st.integers(0, len(lines) - 1))]
    text = "\n".join(lines)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 5]))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.one_of(odd, odd, st.text(max_size=4))) + text[end:]
    return text


def as_yaml(configuration: Any) -> str:
    """Return a configuration as YAML text; sets, dates and bytes by their tags."""
    return yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True)
