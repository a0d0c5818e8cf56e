"""A minibatch's counts as CSR rows, and the dense layers that read them."""

from scvitune.sparse._compiling import compile_kernel, load_kernels
from scvitune.sparse._counts import SparseCounts
from scvitune.sparse._gathering import gather_counts
from scvitune.sparse._linear import (
    DENSE_FROM,
    can_multiply_sparse,
    prefers_sparse,
    sparse_linear,
    store_by_input,
)

__all__ = [
    "DENSE_FROM",
    "SparseCounts",
    "can_multiply_sparse",
    "compile_kernel",
    "gather_counts",
    "load_kernels",
    "prefers_sparse",
    "sparse_linear",
    "store_by_input",
]
