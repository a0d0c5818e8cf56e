"""The training loop and its checkpoints: torch only."""

from scvitune.likelihoods import compile_kernels
from scvitune.training._checkpoint import load_checkpoint, save_checkpoint
from scvitune.training._device_data import DeviceData
from scvitune.training._early_stopping import EarlyStopping
from scvitune.training._fused_trials import FusedTrainer
from scvitune.training._loop import Divergence, TrainingLoop
from scvitune.training._noise import GeneratorNoise, seeded_initialisation
from scvitune.training._settings import TrainingSettings

__all__ = [
    "DeviceData",
    "Divergence",
    "EarlyStopping",
    "FusedTrainer",
    "GeneratorNoise",
    "TrainingLoop",
    "TrainingSettings",
    "compile_kernels",
    "load_checkpoint",
    "save_checkpoint",
    "seeded_initialisation",
]
