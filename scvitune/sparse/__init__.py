"""A minibatch's counts as CSR rows, and the dense layers that read them."""

from scvitune.sparse._counts import SparseCounts
from scvitune.sparse._dense import Counts, DenseCounts
from scvitune.sparse._gathering import gather_counts
from scvitune.sparse._linear import (
    DENSE_FROM,
    SparseRows,
    can_multiply_sparse,
    multiply_sparse,
    multiply_sparse_transposed,
    prefers_sparse,
    sparse_linear,
    store_by_input,
    write_dense,
)

__all__ = [
    "DENSE_FROM",
    "Counts",
    "DenseCounts",
    "SparseCounts",
    "SparseRows",
    "can_multiply_sparse",
    "gather_counts",
    "multiply_sparse",
    "multiply_sparse_transposed",
    "prefers_sparse",
    "sparse_linear",
    "store_by_input",
    "write_dense",
]
