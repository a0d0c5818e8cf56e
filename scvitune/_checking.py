"""What can be said of a study before it starts."""

from __future__ import annotations

from scvitune.config import StudyConfig


def check(config: StudyConfig) -> list[str]:
    """Check a configuration and its data; runs nothing and writes nothing.

    Returns
    -------
    For people, one fact a line.

    Raises
    ------
    InputError
        With everything that is wrong.
    """
    from scvitune.experiment import prepare_experiment
    from scvitune.experiment._forecast import describe_preparation

    return describe_preparation(prepare_experiment(config))


def check_without_data(config: StudyConfig) -> None:
    """Check a configuration before its data are at hand, as on a cluster's login node.

    Raises
    ------
    InputError
        With all faults that can be seen without reading the data.
    """
    from scvitune import experiment

    experiment.check_without_data(config)
