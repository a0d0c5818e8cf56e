"""Ray on several machines: Slurm jobs, their nodes, and what they say of themselves."""

from scvitune.cluster._request import SlurmRequest
from scvitune.cluster._status import JobStatus, read_status
from scvitune.cluster._submission import Submission, describe_submission, prepare_submission
from scvitune.cluster._worker import be_head, join_as_worker

__all__ = [
    "JobStatus",
    "SlurmRequest",
    "Submission",
    "be_head",
    "describe_submission",
    "join_as_worker",
    "prepare_submission",
    "read_status",
]
