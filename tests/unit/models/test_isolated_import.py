"""A trial's process: scvi-tools' modules without scvi-tools, and the same numbers."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import scvi

from scvitune.data import prepare_anndata, save_prepared
from scvitune.models import MODELS, get_adapter

ROOT = Path(__file__).parents[3]
CONFIGS = {
    "SCVI": [
        {},
        {"gene_likelihood": "nb", "n_layers": 2, "dropout_rate": 0.3, "use_layer_norm": "both"},
        {"batch_representation": "embedding", "encode_covariates": True},
        {"use_observed_lib_size": False, "dispersion": "gene-batch", "latent_distribution": "ln"},
    ],
    "LinearSCVI": [{}, {"gene_likelihood": "poisson", "use_observed_lib_size": True}],
    "CondSCVI": [{}, {"prior": "mog", "weight_obs": True, "encode_covariates": True}],
}
DEAR = ["lightning", "pyro", "scanpy", "anndata", "torchmetrics", "sklearn", "jax", "flax"]

# What a trial does, and what it then prints: digests of all numbers, and what was imported.
TRIAL = """
import hashlib, json, sys
from pathlib import Path
import torch
from scvitune.data import load_prepared
from scvitune.models import get_adapter
from scvitune.training import DeviceData, GeneratorNoise, seeded_initialisation

torch.set_num_threads(1)
given = json.loads(Path(FOLDER, "given.json").read_text())

def build(model, config):
    prepared = load_prepared(Path(given[model]["directory"]))
    adapter = get_adapter(model, defaults=given[model]["defaults"])
    with seeded_initialisation(3):
        objective = adapter.build_objective(config, prepared)
    assert adapter.training_arguments({"lr": 0.5})["lr"] == 0.5
    return objective, DeviceData(prepared, torch.device("cpu"))

def digest(tensors):
    joined = hashlib.sha256()
    for name, tensor in tensors:
        joined.update(name.encode() + tensor.detach().numpy().tobytes())
    return joined.hexdigest()

def numbers(model, config):
    objective, data = build(model, config)
    module = objective.module.train()
    found = [digest(module.state_dict().items())]
    noise = GeneratorNoise(1, torch.device("cpu"))
    for step in range(3):
        module.zero_grad()
        losses = objective.compute_losses(data.gather(torch.arange(step, 40 + step)), noise)
        (losses.reconstruction + losses.kl + losses.kl_fixed).mean().backward()
        found.append(digest([("r", losses.reconstruction), ("kl", losses.kl)]))
        trained = [(n, p) for n, p in module.named_parameters() if p.grad is not None]
        found.append(digest((name, parameter.grad) for name, parameter in trained))
        with torch.no_grad():
            for _, parameter in trained:
                parameter.sub_(parameter.grad, alpha=1e-3)
    return [*found, digest(module.state_dict().items())]

result = {"numbers": [numbers(m, c) for m in CONFIGS for c in CONFIGS[m]]}
result["dear"] = [n for n in DEAR if n in sys.modules]
result["scvi"] = [n for n in sys.modules if n.split(".")[0] == "scvi"]
result["own"] = [n for n in sys.modules if "isolated_import." in n]
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """Return what runs a trial in a process of its own, and code before and after it."""
    folder = tmp_path_factory.mktemp("trial")
    given = {}
    for model in MODELS:
        adata = scvi.data.synthetic_iid(batch_size=60, n_genes=30)
        labels = {"labels_key": "labels"} if model == "CondSCVI" else {}
        getattr(scvi.model, model).setup_anndata(adata, batch_key="batch", **labels)
        prepared = save_prepared(prepare_anndata(adata, model=model), folder / model)
        given[model] = {
            "directory": str(prepared.directory),
            "defaults": get_adapter(model).defaults,
        }
    (folder / "given.json").write_text(json.dumps(given))

    def run(before="", after=""):
        head = f"CONFIGS, DEAR, FOLDER = {CONFIGS!r}, {DEAR!r}, {str(folder)!r}"
        last = "print('RESULT' + json.dumps(result))"
        code = "\n".join([head, textwrap.dedent(before), TRIAL, textwrap.dedent(after), last])
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout.partition("RESULT")[2])

    return run


@pytest.fixture(scope="module")
def plain(trial):
    return trial(before="import scvi")


def test_a_trial_imports_nothing_dear_and_computes_the_same_numbers(trial, plain):
    assert plain["own"] == []
    assert {"lightning", "pyro"} <= set(plain["dear"])
    isolated = trial(
        after="""
        objective, _ = build("SCVI", {"n_hidden": 8})
        assert type(objective.module).__module__.endswith("isolated_import.scvi.module._vae")

        import scvi, scvi.distributions, scvi.nn
        from scvi.module import VAE
        assert VAE.__module__ == "scvi.module._vae" and VAE is not type(objective.module)
        assert scvi.module.base.PyroBaseModuleClass.__module__ == "scvi.module.base._base_module"
        assert type(scvi.settings).__name__ == "ScviConfig"
        import pyro.infer
        assert issubclass(scvi.module.base._pyro.AutoMoveDataPredictive, pyro.infer.Predictive)
        adata = scvi.data.synthetic_iid(batch_size=30, n_genes=20)
        scvi.model.SCVI.setup_anndata(adata)
        model = scvi.model.SCVI(adata, n_hidden=8)
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False)
        assert model.get_latent_representation().shape == (60, 10)
        # From here on the ordinary classes are the ones in use.
        assert type(build("SCVI", {})[0].module) is VAE
        """
    )
    assert isolated["dear"] == []
    assert isolated["scvi"] == []
    assert isolated["own"]
    assert isolated["numbers"] == plain["numbers"]


def test_what_cannot_be_isolated_leaves_the_others_alone(trial):
    """Where a later scvi-tools has moved one module, trials of the others stay cheap."""
    trial(
        before="""
        from scvitune.models import _isolated_import as isolated
        isolated._CLASSES["VAEC"] = ("scvi.module._moved", ({},))
        CONFIGS = {"SCVI": [{}]}
        """,
        after="""
        assert isolated.isolated_class("VAEC") is None
        assert isolated.isolated_class("NOSUCH") is None
        assert result["dear"] == result["scvi"] == []
        """,
    )


def test_methods_that_want_more_of_scvi_tools_get_it(trial):
    trial(
        after="""
        objective, data = build("SCVI", {"n_hidden": 8})
        assert "scvi" not in sys.modules
        batch = data.gather(torch.arange(20))
        tensors = {
            "X": batch.counts.densify(),
            "batch": batch.batch.unsqueeze(1),
            "labels": torch.zeros(20, 1, dtype=torch.long),
        }
        _, generative, losses = objective.module(tensors)
        assert torch.isfinite(losses.loss)
        from scvi.distributions import ZeroInflatedNegativeBinomial
        assert type(generative["px"]) is ZeroInflatedNegativeBinomial
        """
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm",
    [
        "isolated._FILES = frozenset()",
        "isolated._Isolation._probe = lambda self, *given: 1 / 0",
    ],
)
def test_where_isolation_fails_scvi_tools_is_imported_whole(trial, plain, harm):
    found = trial(before=f"from scvitune.models import _isolated_import as isolated\n{harm}")
    assert "scvi.model" in found["scvi"]
    assert found["own"] == []
    assert found["numbers"] == plain["numbers"]


@pytest.mark.parametrize("model", MODELS)
def test_defaults_travel_as_json(model):
    own = get_adapter(model)
    sent = json.loads(json.dumps(own.defaults))
    assert sent == own.defaults
    names = [name for target in sent.values() for name in target]
    assert sorted(names) == sorted(own.hyperparameters)
    there = get_adapter(model, defaults=sent)
    assert there is not own
    shape = {"eps_v": 1e-3} if model == "DestVI" else {"n_latent": 3}
    config = {"lr": 0.01, "batch_size": 64} | shape
    assert there.training_arguments(config) == own.training_arguments(config)
    warmup = {"DestVI": 200}.get(model, 400)
    assert there.training_arguments({})["n_epochs_kl_warmup"] == warmup
    assert there.constructor_arguments(config) == shape
    assert there.value_faults("gene_likelihood", "nbb") == own.value_faults(
        "gene_likelihood", "nbb"
    )
    assert there.module_class is getattr(scvi.module, own.module_name)
