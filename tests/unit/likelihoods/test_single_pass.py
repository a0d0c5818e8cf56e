"""The compiled pass and the torch code, both against scvi-tools in double precision."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

from scvitune.likelihoods import _single_pass, compile_kernels, negative_binomial
from scvitune.sparse import SparseCounts

PACKAGE_ROOT = Path(__file__).parents[3]
pytest.importorskip("numba")


@pytest.fixture(params=["compiled", "torch"])
def path(request, monkeypatch):
    """Run the test once with the compiled pass and once as if numba were not there."""
    calls = []
    run = _single_pass._run
    monkeypatch.setattr(_single_pass, "_run", lambda *a, **k: calls.append(1) or run(*a, **k))
    if request.param == "torch":
        monkeypatch.setattr(_single_pass, "load_kernels", lambda module: None)
    yield request.param
    assert bool(calls) == (request.param == "compiled")


def make_case(n_cells=9, n_genes=37, *, spread=1.0, largest=4.0, seed=0):
    """Counts with an empty cell and an empty gene, and parameters, in single precision."""
    g = torch.Generator().manual_seed(seed)
    rates = torch.rand(n_cells, n_genes, generator=g) * largest
    x = torch.poisson(rates, generator=g) * (torch.rand(n_cells, n_genes, generator=g) < 0.4)
    x[0, :] = 0
    x[:, 3 % n_genes] = 0
    parameters = {
        "logits": 3 * spread * torch.randn(n_cells, n_genes, generator=g),
        "log_library": 5 + torch.randn(n_cells, 1, generator=g),
        "px_r": 2 * spread * torch.randn(n_genes, generator=g),
        "pi": 4 * spread * torch.randn(n_cells, n_genes, generator=g),
    }
    return x, parameters, torch.rand(n_cells, generator=g)


def scvi_log_prob(x, parameters, name):
    mu = torch.exp(parameters["log_library"]) * torch.softmax(parameters["logits"], -1)
    theta = torch.exp(parameters["px_r"])
    if name == "zinb":
        px = ZeroInflatedNegativeBinomial(
            mu=mu, theta=theta, zi_logits=parameters["pi"], validate_args=False
        )
    else:
        px = NegativeBinomial(mu=mu, theta=theta, validate_args=False)
    return px.log_prob(x).sum(-1)


def our_log_prob(x, parameters, name):
    return negative_binomial(
        SparseCounts.from_dense(x),
        logits=parameters["logits"],
        log_library=parameters["log_library"],
        theta=torch.exp(parameters["px_r"]),
        pi=parameters["pi"] if name == "zinb" else None,
    )


def value_and_gradients(log_prob, x, parameters, name, weights):
    names = [n for n in parameters if n != "pi" or name == "zinb"]
    leaves = {n: parameters[n].clone().requires_grad_() for n in names}
    value = log_prob(x, parameters | leaves, name)
    gradients = torch.autograd.grad((value * weights).sum(), list(leaves.values()))
    return {"value": value.detach()} | dict(zip(names, gradients, strict=True))


CASES = {
    "usual": {},
    "extreme parameters": {"spread": 3.0},
    "large counts": {"largest": 1e5},
    "one gene": {"n_genes": 1},
    "genes not in vectors": {"n_genes": 131},
    "one cell": {"n_cells": 1},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["nb", "zinb"])
def test_no_worse_than_scvi_in_single_precision(path, name, case):
    x, parameters, weights = make_case(**CASES[case])
    double = {n: value.double() for n, value in parameters.items()}
    exact = value_and_gradients(scvi_log_prob, x.double(), double, name, weights.double())
    theirs = value_and_gradients(scvi_log_prob, x, parameters, name, weights)
    ours = value_and_gradients(our_log_prob, x, parameters, name, weights)
    # The torch code subtracts lgamma and digamma as scvi-tools does, in another order.
    factor = 2 if path == "compiled" else 4
    for key, wanted in exact.items():
        # Where scvi-tools' own gradient is NaN, ours has to be right on its own.
        allowed = 1e-6 + factor * (theirs[key] - wanted).abs().nan_to_num(0)
        # Gradients by a softmax and sums over cells are differences of larger numbers.
        allowed = allowed + 1e-5 * (wanted.abs() if key == "value" else wanted.abs().max())
        error = (ours[key] - wanted).abs()
        assert (error <= allowed).all(), (key, float((error - allowed).max()))


@pytest.mark.parametrize(
    ("bad", "count"), [(float("nan"), 0), (float("nan"), 3), (float("inf"), 3)]
)
@pytest.mark.parametrize("parameter", ["logits", "log_library", "px_r", "pi"])
@pytest.mark.parametrize("name", ["nb", "zinb"])
def test_what_is_not_finite_stays_so(path, name, parameter, bad, count):
    if parameter == "pi" and name == "nb":
        parameter = "logits"
    x, parameters, weights = make_case()
    x[2, 5] = count
    position = {"log_library": (2, 0), "px_r": (5,)}.get(parameter, (2, 5))
    parameters[parameter][position] = bad
    result = value_and_gradients(our_log_prob, x, parameters, name, weights)
    assert not torch.isfinite(result["value"][2])


@pytest.mark.parametrize("name", ["nb", "zinb"])
def test_without_gradients(path, name):
    x, parameters, _ = make_case()
    wanted = our_log_prob(x, parameters, name)
    needing = {n: value.clone().requires_grad_() for n, value in parameters.items()}
    with torch.inference_mode():
        torch.testing.assert_close(our_log_prob(x, needing, name), wanted)
    with torch.no_grad():
        assert not our_log_prob(x, needing, name).requires_grad


def test_only_some_inputs_need_gradients(path):
    x, parameters, _ = make_case()
    parameters["px_r"].requires_grad_()
    (gradient,) = torch.autograd.grad(
        our_log_prob(x, parameters, "zinb").sum(), parameters["px_r"]
    )
    assert gradient.shape == parameters["px_r"].shape


def test_backward_twice(path):
    x, parameters, _ = make_case()
    parameters["logits"].requires_grad_()
    value = our_log_prob(x, parameters, "zinb").sum()
    first, second = (
        torch.autograd.grad(value, parameters["logits"], retain_graph=True)[0] for _ in range(2)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_inputs_need_not_be_contiguous(path):
    x, parameters, weights = make_case()
    strided = {n: v.t().contiguous().t() if v.dim() == 2 else v for n, v in parameters.items()}
    wanted = value_and_gradients(our_log_prob, x, parameters, "zinb", weights)
    result = value_and_gradients(our_log_prob, x, strided, "zinb", weights)
    for key, value in wanted.items():
        torch.testing.assert_close(result[key], value, msg=key)


def test_no_counts_at_all(path):
    x, parameters, weights = make_case()
    result = value_and_gradients(our_log_prob, torch.zeros_like(x), parameters, "zinb", weights)
    assert all(torch.isfinite(v).all() for v in result.values())


def test_counts_need_not_be_whole():
    x, parameters, weights = make_case()
    x = x * 0.37
    double = {n: value.double() for n, value in parameters.items()}
    exact = value_and_gradients(our_log_prob, x.double(), double, "zinb", weights.double())
    ours = value_and_gradients(our_log_prob, x, parameters, "zinb", weights)
    for key, wanted in exact.items():
        scale = float(wanted.abs().max())
        torch.testing.assert_close(
            ours[key].double(), wanted, rtol=1e-5, atol=1e-5 * scale, msg=key
        )


def test_unsorted_positions_are_refused():
    x, parameters, _ = make_case()
    counts = SparseCounts.from_dense(x)
    wrong = SparseCounts(
        counts.n_cells, counts.n_genes, counts.indptr, counts.columns.flip(0),
        counts.values, counts.log_factorial,
    )  # fmt: skip
    with pytest.raises(ValueError, match="ascending"):
        negative_binomial(
            wrong,
            logits=parameters["logits"],
            log_library=parameters["log_library"],
            theta=torch.exp(parameters["px_r"]),
        )


def test_threads_do_not_disturb_each_other():
    x, parameters, weights = make_case(64, 300)
    wanted = value_and_gradients(our_log_prob, x, parameters, "zinb", weights)
    results = []

    def work():
        for _ in range(20):
            results.append(value_and_gradients(our_log_prob, x, parameters, "zinb", weights))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 60
    assert all(torch.equal(result[key], wanted[key]) for result in results for key in wanted)


SCRIPT = """
from scvitune.likelihoods import _single_pass, compile_kernels
from scvitune._compiling import load_kernels
kernels = load_kernels(_single_pass.LIKELIHOOD_KERNELS)
print(compile_kernels(),
      sum(kernels.negative_binomial_kernel.stats.cache_hits.values()) if kernels else None)
"""


def run_python(script, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=inherited | {"PYTHONPATH": str(PACKAGE_ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split()


def test_a_second_process_loads_from_the_cache(tmp_path):
    assert compile_kernels()
    assert run_python(SCRIPT, NUMBA_CACHE_DIR=str(tmp_path)) == ["True", "0"]
    assert run_python(SCRIPT, NUMBA_CACHE_DIR=str(tmp_path)) == ["True", "1"]


@pytest.mark.slow
def test_without_a_writable_cache_each_process_compiles():
    # An empty list of locators is what numba is left with where no folder can be written to.
    script = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
"""
    assert run_python(script + SCRIPT) == ["True", "0"]


def test_numba_missing_or_switched_off():
    assert run_python(SCRIPT, NUMBA_DISABLE_JIT="1") == ["False", "None"]
    assert run_python("import sys; sys.modules['numba'] = None\n" + SCRIPT) == ["False", "None"]


def test_numba_is_not_imported_before_it_is_wanted():
    script = "import sys, scvitune.likelihoods; print('numba' in sys.modules)"
    assert run_python(script) == ["False"]
