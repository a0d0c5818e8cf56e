"""StudyConfig + data -> names checked -> Ray Tune -> run directory; and going on with one."""

from scvitune.experiment._learning import train_learning_curve
from scvitune.experiment._preparing import (
    Preparation,
    check_beside,
    check_without_data,
    prepare_experiment,
)
from scvitune.experiment._running import (
    continue_experiment,
    find_functions,
    start_experiment,
)
from scvitune.experiment._session import wait_for_shutdown
from scvitune.experiment._space import faults_of_space

__all__ = [
    "Preparation",
    "check_beside",
    "check_without_data",
    "continue_experiment",
    "faults_of_space",
    "find_functions",
    "prepare_experiment",
    "start_experiment",
    "train_learning_curve",
    "wait_for_shutdown",
]
