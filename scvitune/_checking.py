"""What can be said of a study before it starts."""

from __future__ import annotations

from scvitune.config import StudyConfig


def check(config: StudyConfig) -> tuple[list[str], str]:
    """Check a configuration and its data; runs nothing and writes nothing.

    Returns
    -------
    lines
        For people, one fact a line.
    taken
        Why the study would not begin all the same, where its name is that of a run that is there;
        else ``""``.

    Raises
    ------
    InputError
        With everything that is wrong.
    """
    from scvitune.experiment import prepare_experiment
    from scvitune.experiment._forecast import describe_preparation

    preparation = prepare_experiment(config, refuse_taken=False)
    return describe_preparation(preparation), preparation.taken


def check_without_data(config: StudyConfig, doubtful: frozenset[str] = frozenset()) -> None:
    """Check a configuration before its data are at hand, as on a cluster's login node.

    Parameters
    ----------
    doubtful
        Places that are not checked, for they are wrong already.

    Raises
    ------
    InputError
        With all faults that can be seen without reading the data.
    """
    from scvitune import experiment

    experiment.check_without_data(config, doubtful)


def check_beside(config: StudyConfig, doubtful: frozenset[str]) -> None:
    """Check what can be of a configuration whose form is wrong in some places, the doubtful ones.

    Raises
    ------
    InputError
        With all faults that do not hang on those.
    """
    from scvitune import experiment

    experiment.check_beside(config, doubtful)
