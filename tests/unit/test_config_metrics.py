"""One metric, several, and the user's own, in every form that they may be given."""

from __future__ import annotations

import json

import pytest

from scvitune.config import StudyConfig, load_config
from scvitune.contracts import RunLayout
from scvitune.errors import Faults, InputError, UnnamedFunctionError
from scvitune.experiment._metrics import (
    check_metrics,
    check_several,
    name_functions,
    own_functions,
)
from scvitune.experiment._names import with_model_defaults
from scvitune.metrics import ask_metrics, load_function, named_paths, take_functions

MINE = {"name": "mine", "function": "json:dumps", "mode": "max"}


def config(metric, **more):
    return StudyConfig.from_yaml_dict({"model": "SCVI", "metric": metric, **more})


def faults_of(metric, **more):
    faults = Faults()
    check_metrics(config(metric, **more), faults)
    with pytest.raises(InputError) as error:
        faults.raise_if_any()
    return str(error.value)


def test_one_name_is_what_it_was():
    one = config("elbo_validation")
    assert (one.metric, one.further_metrics, one.own_metrics) == ("elbo_validation", (), ())
    assert one.metrics == ("elbo_validation",)
    assert one.metric_options.n_mc_samples == 100


def test_the_first_of_several_decides():
    several = config(["elbo_validation", "nmi_validation"])
    assert several.metrics == ("elbo_validation", "nmi_validation")
    assert several.metric == "elbo_validation"


@pytest.mark.parametrize(
    "metric", [MINE, ["elbo_validation", MINE], ["json:dumps", "elbo_validation"], "json:dumps"]
)
def test_what_is_frozen_reads_back(metric):
    given = config(metric, mode="max" if metric in ("json:dumps", MINE) else None)
    again = StudyConfig.from_yaml_dict(given.to_yaml_dict())
    assert again == given
    assert given.own_metrics[0]["function"] == "json:dumps"


def test_arguments_on_the_command_line(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("model: SCVI\ndata: {path: pbmc68k}\n")
    read = load_config(
        path, ["metric=[elbo_validation, nmi_train]", "metric_options.n_mc_samples=5"]
    )
    assert read.metrics == ("elbo_validation", "nmi_train")
    assert read.metric_options.n_mc_samples == 5


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ([], "empty list"),
        (["elbo_validation", "elbo_validation"], "twice"),
        ([3], "name or a list of names"),
        ({"function": "a:b"}, "name is missing"),
        ({"name": "mine", "funktion": "a:b"}, "Did you mean 'function'"),
        ({"name": "a b", "function": "a:b"}, "letters, digits and _"),
        ({"name": "my_test", "function": "a:b"}, "not end with"),
        ({"name": "n_params", "function": "a:b"}, "tables and reports have already"),
        ({"name": "status", "function": "a:b"}, "tables and reports have already"),
        ({"name": "mine", "function": "a.b"}, "package.module:function"),
        ({"name": "mine", "function": "a:b", "mode": "up"}, "'min' or 'max'"),
        ({"name": "mine", "function": "a:b", "cost": "free"}, "'cheap' or 'dear'"),
    ],
)
def test_wrong_forms_are_refused(metric, words):
    with pytest.raises(InputError, match=words):
        config(metric)


@pytest.mark.parametrize(
    ("metric", "more", "words"),
    [
        (["elbo_validation", "nmi_valid"], {}, "Did you mean 'nmi_validation'"),
        (["elbo_validation", "nmi_test"], {}, "kept for the final judgement"),
        ("scib_total_train", {}, "its name says none. Use 'scib_total'"),
        ("proportion_jsd_validation", {"model": "DestVI"}, "Use 'proportion_jsd'"),
        (MINE | {"mode": None}, {}, "direction of your metric"),
        (MINE | {"name": "scib_total"}, {}, "give yours another name"),
        ("elbo_validation", {"mode": "max"}, "Leave mode out"),
        ("elbo_validation", {"model": "CondSCVI", "metric": "nmi_validation"}, "not measured by"),
        (
            ["proportion_jsd", "reconstruction_loss_validation"],
            {"model": "DestVI"},
            "Leave one kind out",
        ),
    ],
)
def test_wrong_metrics_are_refused(metric, more, words):
    assert words in faults_of(**{"metric": metric} | more)


def test_mode_may_stand_beside_the_own_metric_that_decides():
    given = config(MINE | {"mode": None}, mode="min")
    faults = Faults()
    check_metrics(given, faults)
    faults.raise_if_any()
    (asked,) = ask_metrics(given.metrics, given.own_metrics, mode=given.mode)
    assert (asked.mode, asked.own, asked.cost, asked.tested) == ("min", True, "cheap", "mine_test")


def test_several_together_want_a_scheduler_that_stops_nothing():
    metrics = ask_metrics(["elbo_validation", "nmi_validation"])
    faults = Faults()
    check_several("nsga2", "fifo", metrics, faults)
    check_several("tpe", "asha", metrics, faults)  # the first decides
    check_several("nsga2", object(), metrics[:1], faults)
    assert not len(faults)
    check_several("nsga2", object(), metrics, faults)
    with pytest.raises(InputError, match="would stop trials by elbo_validation alone.*'fifo'"):
        faults.raise_if_any()


def score(model, data, cells):
    return 1.0


def test_functions_are_taken_out_and_found_again():
    plain, functions = take_functions(["elbo_validation", score, {"name": "b", "function": len}])
    assert plain[0] == "elbo_validation"
    assert plain[1]["name"] == "score"
    assert plain[2] == {"name": "b", "function": "builtins:len"}
    assert functions == {"score": score, "b": len}
    assert load_function("builtins:len") is len
    inner, _ = take_functions({"name": "inner", "function": lambda *_: 0.0})
    assert inner["function"] is None


@pytest.mark.parametrize(
    "path", ["nowhere_at_all:score", "json:nothing", "json:__name__", "antigravity_:x"]
)
def test_what_cannot_be_imported_says_so(path):
    with pytest.raises(InputError, match="cannot be imported|no function"):
        load_function(path)


def test_paths_in_a_run_directory_are_followed_only_if_the_user_has_named_them(tmp_path):
    layout, given = RunLayout(tmp_path / "my run"), config(MINE)
    with pytest.raises(UnnamedFunctionError) as refused:
        own_functions(layout, given, {})
    assert refused.value.functions == ("json:dumps",)
    told = str(refused.value)
    assert str(layout.study) in told
    assert f"scvitune resume '{layout.root}' --metric json:dumps" in told
    assert "metric='json:dumps'" in told
    assert own_functions(layout, given, {"mine": score}) == {"mine": score}
    name_functions(layout, given, ["json:dumps"])
    assert own_functions(layout, given, {}) == {"mine": json.dumps}
    changed = config(MINE | {"function": "json:loads"})
    with pytest.raises(UnnamedFunctionError, match="json:loads"):
        own_functions(layout, changed, {})
    elsewhere = RunLayout(tmp_path / "copied")
    with pytest.raises(UnnamedFunctionError, match="copied"):
        own_functions(elsewhere, given, {})
    with pytest.raises(InputError, match="Give it again"):
        own_functions(layout, config(MINE | {"function": None}), {})


@pytest.mark.parametrize(
    ("metric", "has"),
    [
        (MINE, "its own metrics are 'json:dumps'"),
        ("elbo_validation", "it has no metric with a path"),
    ],
)
def test_a_path_that_a_study_does_not_name_cannot_be_named_for_it(tmp_path, metric, has):
    with pytest.raises(InputError, match=f"does not name 'json:dump': {has}"):
        name_functions(RunLayout(tmp_path), config(metric), ["json:dump"])


def test_all_functions_are_asked_for_at_once(tmp_path):
    both = config([MINE, {"name": "other", "function": "json:loads", "mode": "min"}])
    with pytest.raises(UnnamedFunctionError) as refused:
        own_functions(RunLayout(tmp_path), both, {})
    assert refused.value.functions == ("json:dumps", "json:loads")
    assert "--metric json:dumps --metric json:loads" in str(refused.value)
    assert "metric=['json:dumps', 'json:loads']" in str(refused.value)


@pytest.mark.parametrize(
    ("metric", "paths"),
    [
        ("elbo_validation", []),
        ("json:dumps", ["json:dumps"]),
        (["elbo_validation", MINE, "json:loads"], ["json:dumps", "json:loads"]),
        ([{"name": "mine", "function": score}, {"name": "none"}, score, None], []),
    ],
)
def test_named_paths(metric, paths):
    assert named_paths(metric) == paths


# ------------------------------------------------------------ what DestVI is judged by


def from_python(**given):
    """Return the configuration of a call of `tune` with these arguments."""
    import inspect

    import scvitune
    from scvitune._arguments import config_from_arguments

    signature = inspect.signature(scvitune.tune)
    bound = signature.bind("DestVI", None, **given)
    bound.apply_defaults()
    return with_model_defaults(config_from_arguments(dict(bound.arguments)))


def test_a_metric_that_nobody_chose_is_the_models_own():
    assert from_python().metrics == ("proportion_jsd",)
    assert from_python(metric="elbo_validation").metrics == ("proportion_jsd",)  # tune's default
    assert from_python(target="likelihood").metrics == ("reconstruction_loss_validation",)
    assert from_python(metric="proportion_pcc").metrics == ("proportion_pcc",)
    written = StudyConfig.from_yaml_dict({"model": "DestVI"})
    assert with_model_defaults(written).metrics == ("proportion_jsd",)
    scvi = StudyConfig.from_yaml_dict({"model": "SCVI"})
    assert with_model_defaults(scvi).metrics == ("elbo_validation",)


@pytest.mark.parametrize(
    "chosen", ["elbo_validation", ["elbo_validation", "proportion_jsd"], ["elbo_validation"]]
)
def test_a_metric_that_somebody_chose_is_never_another(chosen):
    configs = [config(chosen, model="DestVI")]
    if not isinstance(chosen, str):
        configs.append(from_python(metric=chosen))
    for given in map(with_model_defaults, configs):
        assert given.metrics[0] == "elbo_validation"
        faults = Faults()
        check_metrics(given, faults)
        with pytest.raises(InputError) as error:
            faults.raise_if_any()
        assert "'elbo_validation', which DestVI is not measured by" in str(error.value)
        for name in ("jsd", "rmse", "pcc", "ssim"):
            assert f"'proportion_{name}'" in str(error.value)
        assert "'reconstruction_loss_validation'" in str(error.value)


def test_what_was_written_on_the_command_line_is_chosen(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("model: DestVI\ndata: {path: spots.h5ad}\n")
    assert with_model_defaults(load_config(path)).metric == "proportion_jsd"
    chosen = load_config(path, ["metric=elbo_validation"])
    assert with_model_defaults(chosen).metric == "elbo_validation"


def test_every_wrong_metric_of_a_list_is_named():
    with pytest.raises(InputError) as error:
        config([3, None, MINE | {"name": "a b", "mode": "up"}, MINE | {"cost": "free"}])
    text = str(error.value)
    for part in ("holds 3", "holds nothing", "name 'a b'", "mode 'up'", "cost 'free'"):
        assert part in text
    assert len(error.value.faults) == 5


def test_every_unknown_metric_is_named_and_every_missing_direction():
    two = [MINE | {"name": name, "mode": None} for name in ("one", "two")]
    text = faults_of(["elbo_validaton", "nmi_valid", "scib_total_train", *two])
    for part in ("'elbo_validaton'", "'nmi_valid'", "'scib_total_train'", "'one'", "'two'"):
        assert part in text
    assert text.startswith("5 things are wrong")
