"""StudyConfig + data -> names checked -> Ray Tune -> run directory; and going on with one."""

from scvitune.experiment._running import (
    Preparation,
    continue_experiment,
    prepare_experiment,
    start_experiment,
)

__all__ = ["Preparation", "continue_experiment", "prepare_experiment", "start_experiment"]
