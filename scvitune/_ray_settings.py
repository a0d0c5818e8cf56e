"""How every Ray of ours is started, and by which variables the parts of a job know each other."""

from __future__ import annotations

OBJECT_STORE_BYTES = 100 * 1024**2
"""For configurations and reports only: data are memory-mapped."""

NO_WORKERS_AHEAD = {
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}
"""Environment: trials have one of their own, so workers started ahead are of no use to them."""

NODES = "SCVITUNE_NODES"
"""Environment variable: the names of all nodes of the job, the head's first."""

NODE_DIR = "SCVITUNE_NODE_DIR"
"""Environment variable: a directory on the node's own disk, removed when the node's job ends."""
