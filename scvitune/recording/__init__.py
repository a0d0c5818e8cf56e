"""What is written and shown while a study runs."""

from scvitune.recording._progress import ProgressRecorder
from scvitune.recording._tensorboard import TensorBoardRecorder

__all__ = ["ProgressRecorder", "TensorBoardRecorder"]
