"""Ray on several machines: Slurm jobs, their nodes, and what they say of themselves."""

from scvitune.cluster._request import SlurmRequest
from scvitune.cluster._status import JobStatus, read_status
from scvitune.cluster._submission import Submission, prepare_submission

__all__ = ["JobStatus", "SlurmRequest", "Submission", "prepare_submission", "read_status"]
