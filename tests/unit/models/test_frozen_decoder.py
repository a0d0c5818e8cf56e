"""The decoder's hidden layers in one pass, against torch's own layers in double precision."""

from __future__ import annotations

import copy

import pytest
import torch
from scvi.nn import FCLayers

from scvitune._compiling import load_kernels
from scvitune.models._frozen_decoder import DECODER_KERNELS, FrozenDecoder
from scvitune.training import GeneratorNoise

N_LATENT, N_EMBEDDING, N_LABELS, N_HIDDEN = 3, 5, 4, 16

pytestmark = pytest.mark.skipif(load_kernels(DECODER_KERNELS) is None, reason="without numba")


@pytest.fixture
def build():
    def build(*, n_layers=2, rate=0.1, frozen=True, **options):
        torch.manual_seed(0)
        decoder = FCLayers(
            n_in=N_LATENT + N_EMBEDDING,
            n_out=N_HIDDEN,
            n_cat_list=[N_LABELS],
            n_layers=n_layers,
            n_hidden=N_HIDDEN,
            dropout_rate=rate,
            **{"use_layer_norm": True, "use_batch_norm": False} | options,
        )
        return decoder.requires_grad_(not frozen)

    return build


def inputs(*shape, dtype, of_each=True):
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(*shape, N_LATENT, generator=generator).to(dtype).requires_grad_()
    embedded = torch.randn(shape[0], N_EMBEDDING, generator=generator).to(dtype)
    embedded = embedded.unsqueeze(1) if len(shape) > 1 else embedded
    labels = torch.arange(shape[-1]) * 7 % N_LABELS
    return states, embedded.requires_grad_(), labels


def run(decoder, *shape, dtype, weights):
    states, embedded, labels = inputs(*shape, dtype=dtype)
    decoder = FrozenDecoder(decoder.to(dtype))
    assert decoder._can_fuse(states) is (dtype == torch.float32)
    hidden = decoder(states, embedded, labels, GeneratorNoise(2, torch.device("cpu")))
    value = hidden.detach().clone()
    (hidden * weights.to(dtype)).sum().backward()
    return value, states.grad, embedded.grad


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(9,), (6, 8)], ids=["rows", "spots"])
def test_values_and_gradients(build, n_layers, rate, shape):
    decoder = build(n_layers=n_layers, rate=rate).train()
    weights = torch.randn(*shape, N_HIDDEN, generator=torch.Generator().manual_seed(3))
    single = run(copy.deepcopy(decoder), *shape, dtype=torch.float32, weights=weights)
    double = run(copy.deepcopy(decoder), *shape, dtype=torch.float64, weights=weights)
    for ours, expected in zip(single, double, strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=2e-6)
    zeros = (single[0] == 0).double().mean()
    assert abs(zeros - (1 - 0.5 * (1 - rate))) < 0.15  # half by ReLU, and of the rest by dropout


def test_values_are_those_of_scvi_tools_layers(build):
    decoder = build().eval()
    states, embedded, labels = inputs(6, 8, dtype=torch.float32)
    ours = FrozenDecoder(decoder)(
        states, embedded, labels, GeneratorNoise(2, torch.device("cpu"))
    ).detach()
    rows = torch.cat([states, embedded.expand(6, 8, N_EMBEDDING)], dim=-1).reshape(48, -1)
    theirs = decoder(rows, labels.repeat(6).unsqueeze(1)).view(6, 8, -1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_rate_may_change_from_step_to_step(build):
    decoder = build(rate=0.5).train()
    fused = FrozenDecoder(decoder)
    states, embedded, labels = inputs(40, 8, dtype=torch.float32)
    shares = []
    for rate in (0.5, 0.0, 0.9):
        for layer in decoder.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = rate
        hidden = fused(states, embedded, labels, GeneratorNoise(2, torch.device("cpu")))
        shares.append(float((hidden != 0).float().mean()))
    assert shares[2] < 0.1 < shares[0] < 0.35 < shares[1]


def test_it_trains_after_an_evaluation_of_more_rows(build):
    """Evaluation makes tensors that could not be trained with, were they kept."""
    fused, noise = FrozenDecoder(build()), GeneratorNoise(2, torch.device("cpu"))
    with torch.inference_mode():
        fused(*inputs(30, 8, dtype=torch.float32), noise)
    states, embedded, labels = inputs(6, 8, dtype=torch.float32)
    fused(states, embedded, labels, noise).sum().backward()
    assert torch.isfinite(states.grad).all()


@pytest.mark.parametrize(
    "options",
    [
        {"frozen": False},
        {"use_batch_norm": True},
        {"use_layer_norm": False},
        {"activation_fn": torch.nn.ELU},
    ],
    ids=str,
)
def test_what_it_does_not_cover_is_left_to_torch(build, options):
    states, _, _ = inputs(6, 8, dtype=torch.float32)
    assert not FrozenDecoder(build(**options))._can_fuse(states)
