#!/bin/bash
# One further node of a job's Ray cluster. Called by submit.sbatch on every other node with the
# job's directory, when the head is up.
set -u
umask 077
exec ${SCVITUNE_PYTHON:-python} -m scvitune.cluster worker "$1"
