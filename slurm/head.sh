#!/bin/bash
# The head of a job's Ray cluster, on its first node. Called by submit.sbatch with the job's
# directory; ends when it is told to, and ends nothing but what it started.
set -u
umask 077
# Not quoted: it may be several words, such as: apptainer exec image.sif python
exec ${SCVITUNE_PYTHON:-python} -m scvitune.cluster head "$1"
