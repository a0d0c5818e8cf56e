"""The paragraph for a paper's methods section: what a run did, with versions and citations."""

from scvitune.results.methods._paragraph import Methods, describe_methods
from scvitune.results.methods._search import describe_halving

__all__ = ["Methods", "describe_halving", "describe_methods"]
