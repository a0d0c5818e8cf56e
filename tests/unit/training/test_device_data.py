"""Minibatches against the dense rows that they stand for."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from torch.utils._python_dispatch import TorchDispatchMode

from scvitune.data import simulated
from scvitune.training import DeviceData
from scvitune.training._counts_on_device import CompressedRows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain():
    """Prepared arrays of simulated counts, without scvi-tools."""
    from scvitune.contracts import PreparedData

    adata = simulated(70, 23, mean_library=60.0, seed=1)
    csr = adata.X.tocsr()
    csr.sort_indices()
    rng = np.random.default_rng(0)
    return PreparedData(
        values=csr.data.astype(np.uint8),
        indices=csr.indices.astype(np.int32),
        indptr=csr.indptr.astype(np.int64),
        n_genes=23,
        batch=rng.integers(0, 3, 70),
        labels=rng.integers(0, 2, 70),
        n_batch=3,
        n_labels=2,
        categorical_covariates=rng.integers(0, 4, (70, 2)),
        n_categories_per_covariate=(4, 4),
        continuous_covariates=rng.normal(size=(70, 3)).astype(np.float32),
        size_factor=rng.random(70).astype(np.float32),
        library_log_means=np.zeros((1, 3)),
        library_log_vars=np.ones((1, 3)),
        gene_names=tuple(map(str, range(23))),
        setup={},
        fingerprint="",
    )


def dense(prepared):
    rows = np.zeros((prepared.n_cells, prepared.n_genes), dtype=np.float64)
    for cell in range(prepared.n_cells):
        part = slice(prepared.indptr[cell], prepared.indptr[cell + 1])
        rows[cell, prepared.indices[part]] = prepared.values[part]
    return rows


COUNTS = {
    "uint8": [1, 255],
    "uint16": [1, 32767, 32768, 40_000, 65_535],
    "uint32": [1, 65_536, 2**31 - 1, 2**31, 2**31 + 5, 3_000_000_000, 2**32 - 1],
    "float32": [1.0, 2.0**33],
}


def with_counts(prepared, dtype):
    values = prepared.values.astype(dtype)
    values[: len(COUNTS[dtype])] = COUNTS[dtype]
    values[-1] = COUNTS[dtype][-1]
    return dataclasses.replace(prepared, values=values)


CELLS = {
    "some, unordered": [3, 0, 69, 17, 4],
    "twice the same": [5, 5],
    "one": [69],
    "all": list(range(70)),
}


@pytest.mark.parametrize("dtype", COUNTS)
@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_counts_are_those_of_the_rows(plain, dtype, cells, place):
    prepared = with_counts(plain, dtype)
    batch = place.put(prepared).gather(torch.tensor(cells, device=place.device))
    rows = dense(prepared)[cells]
    assert batch.counts.densify().dtype == torch.float32
    assert np.array_equal(batch.counts.densify().cpu().numpy(), rows.astype(np.float32))
    np.testing.assert_allclose(
        batch.log_library.cpu().numpy(), np.log(rows.sum(1, keepdims=True)), rtol=1e-6
    )
    np.testing.assert_allclose(
        batch.counts.log_factorial.cpu().numpy(), gammaln(rows + 1).sum(1), rtol=1e-5
    )
    if place.layout == "rows":
        assert (batch.counts.flat.diff() > 0).all()


@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("dtype", COUNTS)
def test_counts_stay_in_the_integers_they_were_prepared_in(plain, dtype, layout):
    prepared = with_counts(plain, dtype)
    values, *others = DeviceData(prepared, CPU, layout=layout)._counts.tensors
    assert values.element_size() == prepared.values.itemsize
    if layout == "csr":
        assert [t.dtype for t in others] == [torch.int16, torch.int64]


def test_genes_past_the_reach_of_two_bytes_take_four(plain):
    last = np.iinfo(np.int16).max
    indices = np.r_[plain.indices[:-1], last].astype(np.int32)
    for n_genes, expected in ((last + 1, torch.int16), (last + 2, torch.int32)):
        wide = dataclasses.replace(plain, indices=indices, n_genes=n_genes)
        data = DeviceData(wide, CPU, layout="csr")
        assert data._counts.tensors[1].dtype == expected
        batch = data.gather(torch.tensor([69]))
        assert batch.counts.values[0, last] == plain.values[-1]


def test_a_dense_matrix_is_made_in_parts(plain, monkeypatch):
    from scvitune.training import _counts_on_device

    monkeypatch.setattr(_counts_on_device, "_CHUNK", 100)
    (matrix,) = DeviceData(plain, CPU, layout="dense")._counts.tensors
    assert np.array_equal(matrix.numpy(), dense(plain))


def test_dense_where_there_is_plenty_of_room(plain):
    from scvitune._device_counts import dense_fits

    mostly_zero = dataclasses.replace(plain, n_genes=500)
    assert dense_fits(mostly_zero, free_bytes=8 * 70 * 500)
    assert not dense_fits(mostly_zero, free_bytes=8 * 70 * 500 - 1)
    assert not dense_fits(mostly_zero, free_bytes=None)
    # Three bytes a count in CSR, one in a matrix: with few zeros that is no larger.
    assert dense_fits(plain, free_bytes=None)


def test_the_cpu_keeps_its_compressed_rows(plain):
    assert DeviceData(plain, CPU).layout == "rows"


def test_covariates_are_those_of_the_cells(plain):
    cells = torch.tensor([9, 2, 66, 2])
    batch = DeviceData(plain, CPU).gather(cells)
    assert np.array_equal(batch.batch, plain.batch[cells])
    assert np.array_equal(batch.labels, plain.labels[cells])
    assert np.array_equal(batch.categorical_covariates, plain.categorical_covariates[cells])
    assert np.array_equal(batch.continuous_covariates, plain.continuous_covariates[cells])
    assert np.array_equal(batch.size_factor, plain.size_factor[cells][:, None])
    assert batch.batch.dtype == batch.categorical_covariates.dtype == torch.int64
    assert batch.continuous_covariates.dtype == batch.size_factor.dtype == torch.float32


def test_what_the_data_lacks_the_minibatch_lacks(plain):
    bare = dataclasses.replace(
        plain, categorical_covariates=None, continuous_covariates=None, size_factor=None
    )
    batch = DeviceData(bare, CPU).gather(torch.tensor([1, 2]))
    assert batch.categorical_covariates is None
    assert batch.continuous_covariates is None
    assert batch.size_factor is None


def test_cells_without_counts_do_not_shift_the_others(plain, place):
    indptr = plain.indptr.copy()
    first, second = indptr[1], indptr[2]
    # Cell 1 gives its counts away.
    keep = np.r_[0:first, second : len(plain.values)]
    indptr[2:] -= second - first
    sparse = dataclasses.replace(
        plain, values=plain.values[keep], indices=plain.indices[keep], indptr=indptr
    )
    batch = place.put(sparse).gather(torch.tensor([1, 0, 1, 2], device=place.device))
    assert np.array_equal(batch.counts.densify().cpu().numpy(), dense(sparse)[[1, 0, 1, 2]])
    assert batch.counts.log_factorial[0] == 0


class Kernels(TorchDispatchMode):
    """Counts what would be a kernel each on a GPU: all that is no view of memory."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if all(of.alias_info is None or of.alias_info.is_write for of in function._schema.returns):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("layout", "dtype", "n"),
    [
        # of the counts; beside them logs of library size and factorials, batch and label
        ("csr", "uint8", 9 + 4),
        ("csr", "uint16", 10 + 4),
        ("csr", "uint32", 11 + 4),
        ("dense", "uint8", 2 + 4),
        ("dense", "uint16", 3 + 4),
    ],
)
def test_a_minibatch_takes_no_more_kernels_than_needed(plain, layout, dtype, n):
    """Each costs a GPU some microseconds, which is most of what they take."""
    prepared = dataclasses.replace(
        with_counts(plain, dtype),
        categorical_covariates=None,
        continuous_covariates=None,
        size_factor=None,
    )
    data, cells = DeviceData(prepared, CPU, layout=layout), torch.tensor([3, 0, 69])
    with Kernels() as kernels:
        data.gather(cells)
    assert len(kernels.names) == n, kernels.names


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_the_last_cells_without_counts_read_nothing(plain, layout):
    indptr = plain.indptr.copy()
    indptr[-2:] = indptr[-3]
    cut = dataclasses.replace(
        plain,
        values=plain.values[: indptr[-1]],
        indices=plain.indices[: indptr[-1]],
        indptr=indptr,
    )
    batch = DeviceData(cut, CPU, layout=layout).gather(torch.tensor([69, 68, 67]))
    assert np.array_equal(batch.counts.densify().numpy(), dense(cut)[[69, 68, 67]])
    assert batch.log_library[:2].tolist() == [[-np.inf], [-np.inf]]


def test_chunks_of_the_log_factorials_fit_together(plain, monkeypatch):
    from scvitune.training import _device_data

    whole = _device_data._log_factorials(plain)
    for chunk in (1, 7, 100):
        monkeypatch.setattr(_device_data, "_CHUNK", chunk)
        np.testing.assert_allclose(_device_data._log_factorials(plain), whole, rtol=1e-6)


def test_memory_mapped_arrays_are_not_copied(plain, tmp_path):
    np.save(tmp_path / "values.npy", plain.values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    data = DeviceData(dataclasses.replace(plain, values=mapped), CPU)
    assert data._counts.tensors[0].data_ptr() == mapped.ctypes.data


@pytest.fixture(scope="module")
def kernel():
    """The kernel that makes minibatches of compressed rows: on a GPU, or interpreted without."""
    pytest.importorskip("triton", reason="needs the extra `test`, on Linux")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
            patch.delitem(sys.modules, "scvitune.training._densify_kernel", raising=False)
        module = importlib.import_module("scvitune.training._densify_kernel")
        patch.setattr(module, "_BLOCK", 16)  # fewer than there are genes
        yield module.densify, device


@pytest.mark.parametrize("dtype", COUNTS)
@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_one_kernel_makes_the_counts_of_the_rows(plain, dtype, cells, kernel):
    densify, device = kernel
    prepared = with_counts(plain, dtype)
    rows = CompressedRows(prepared, device, kernel=densify)
    chosen, factorials = torch.tensor(cells, device=device), torch.zeros(len(cells), device=device)
    counts, _ = rows.gather(chosen, factorials)
    assert np.array_equal(counts.densify().cpu(), dense(prepared)[cells].astype(np.float32))
    # No operation of torch's beside it, which would be a kernel each.
    rows._kernel = lambda *args, **others: counts.values
    with Kernels() as kernels:
        rows.gather(chosen, factorials)
    assert kernels.names == []


def test_one_kernel_makes_cells_without_counts(plain, kernel):
    densify, device = kernel
    indptr = plain.indptr.copy()
    indptr[-3:] = indptr[-4]
    indptr[1] = indptr[0]
    last = indptr[-1]
    cut = dataclasses.replace(
        plain, values=plain.values[:last], indices=plain.indices[:last], indptr=indptr
    )
    rows = CompressedRows(cut, device, kernel=densify)
    counts, _ = rows.gather(torch.tensor([69, 0, 68, 1, 0], device=device), torch.zeros(5))
    assert np.array_equal(counts.values.cpu(), dense(cut)[[69, 0, 68, 1, 0]])
    assert counts.values[[0, 1, 2, 4]].sum() == 0


def wrong(*args, n_genes, **others):
    return torch.zeros(len(args[0]), n_genes)


def broken(*args, **others):
    raise RuntimeError("no C compiler\nand more")


@pytest.mark.parametrize(
    ("other", "why"), [(wrong, "its counts are not those"), (broken, "no C compiler")]
)
def test_a_kernel_that_does_not_work_here_is_not_used(plain, other, why):
    with pytest.warns(UserWarning, match=f"is not used .{why}"):
        rows = CompressedRows(plain, CPU, kernel=other)
    counts, _ = rows.gather(torch.arange(70), torch.zeros(70))
    assert np.array_equal(counts.values, dense(plain))


COMPILE = """
import json, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from scvitune.training._densify_kernel import _write_row

signature = {name: "*i64" for name in ("cells", "bounds")}
signature |= {"indices": "*i16", "values": "*i16", "dense": "*fp32", "n_genes": "i32"}
constants = {"MASK": 0xFFFF, "BLOCK": 1024}
signature |= dict.fromkeys(constants, "constexpr")
found = {}
for capability in (75, 80, 90):
    source = ASTSource(_write_row, signature=signature, constexprs=constants)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    found[capability] = {"bytes": len(built.asm["cubin"]), "assembly": built.asm["ptx"]}
print(json.dumps(found))
"""


def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path):
    """For Turing, Ampere and Hopper; whatever is written first is waited for."""
    pytest.importorskip("triton", reason="needs the extra `test`, on Linux")
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == ["75", "80", "90"]
    for built in found.values():
        assert built["bytes"] > 0
        zeros, barrier, counts = built["assembly"].partition("bar.sync")
        assert barrier and "st.global" in zeros and "st.global" in counts
