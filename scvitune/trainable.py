"""A trial on Ray, in a process of its own."""

from __future__ import annotations

from scvitune._collecting import collection_paused

with collection_paused():
    from ray import tune

    from scvitune.training import compile_kernels
    from scvitune.trial import StudyTrial

__all__ = ["StudyTrainable", "compile_kernels"]


class StudyTrainable(StudyTrial, tune.Trainable):
    """A trial that trains in the process that Ray gave it."""
