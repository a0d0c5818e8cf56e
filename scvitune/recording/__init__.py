"""What is written while a study runs."""

from scvitune.recording._checkpoint_pruner import CheckpointPruner
from scvitune.recording._events import EventRecorder
from scvitune.recording._follow_ups import FollowUpCallback, FollowUpProgress
from scvitune.recording._progress import ProgressRecorder
from scvitune.recording._ray_callback import StudyCallback
from scvitune.recording._several import Recorders
from scvitune.recording._tensorboard import TensorBoardRecorder
from scvitune.recording._terminal import write_safely
from scvitune.recording._wandb import WandbRecorder, check_wandb

__all__ = [
    "CheckpointPruner",
    "EventRecorder",
    "FollowUpCallback",
    "FollowUpProgress",
    "ProgressRecorder",
    "Recorders",
    "StudyCallback",
    "TensorBoardRecorder",
    "WandbRecorder",
    "check_wandb",
    "write_safely",
]
