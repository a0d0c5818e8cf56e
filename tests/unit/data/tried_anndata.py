"""What becomes of an AnnData of any form: it works as in scvi-tools, is refused, or is a fault."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
import scvi
from any_anndata import Built, Recipe, build, verdict
from scvi.data import AnnTorchDataset

from scvitune.data import prepare_anndata, prepare_file, rebuild_anndata
from scvitune.errors import InputError


def registered_by_scvi_tools(adata: Any, model: str) -> dict[str, np.ndarray]:
    """Return what scvi-tools hands to its module, all cells in one batch."""
    manager = getattr(scvi.model, model)._get_most_recent_anndata_manager(adata)
    manager.validate()
    found = AnnTorchDataset(manager)[list(range(adata.n_obs))]
    dense = {k: v.toarray() if sp.issparse(v) else np.asarray(v) for k, v in found.items()}
    return dense | {"n_batch": manager.summary_stats["n_batch"]}


def assert_equal(prepared: Any, expected: dict[str, np.ndarray]) -> None:
    counts = sp.csr_matrix(
        (prepared.values.astype(np.float32), prepared.indices, prepared.indptr),
        shape=(prepared.n_cells, prepared.n_genes),
    )
    ours = {
        "X": counts.toarray(),
        "batch": prepared.batch[:, None],
        "labels": prepared.labels[:, None],
        "extra_categorical_covs": prepared.categorical_covariates,
        "extra_continuous_covs": prepared.continuous_covariates,
        "size_factor": None if prepared.size_factor is None else prepared.size_factor[:, None],
    }
    assert prepared.n_batch == expected.pop("n_batch")
    for name, array in ours.items():
        theirs = expected.pop(name, None)
        if name == "labels" and theirs is None:
            continue  # DestVI's spots have none
        assert (array is None) == (theirs is None), name
        if array is not None:
            np.testing.assert_array_equal(array, theirs.astype(array.dtype), err_msg=name)
    assert not expected, f"not prepared: {sorted(expected)}"


def check_message(error: InputError) -> None:
    for fault in error.faults:
        assert fault.strip(), "an empty fault"
        assert len(fault) < 1500, fault
        assert fault.rstrip()[-1] in ".)?", fault
        assert "Traceback" not in fault


def change(recipe: Recipe, built: Built) -> bool:
    """Do to a set-up AnnData what its recipe says; return whether that must be refused."""
    adata, kwargs = built.adata, built.kwargs
    key = kwargs.get("batch_key")
    if recipe.change == "column dropped" and key:
        del adata.obs[key]
        return True
    if recipe.change == "column renamed" and key:
        adata.obs = adata.obs.rename(columns={key: "elsewhere"})
        return True
    if recipe.change == "new category" and key:
        adata.obs[key] = "new"
        return True
    if recipe.change == "category lost" and key and len(adata.obs):
        before = adata.obs[key].astype(object)
        adata.obs[key] = before.iloc[0]
        return bool((before != before.iloc[0]).any())
    if recipe.change == "columns permuted" and key:
        before = adata.obs[key].astype(object).to_numpy()
        adata.obs[key] = np.roll(before, 1)
        return bool((np.roll(before, 1) != before).any())
    if recipe.change == "layer dropped" and "counts" in adata.layers:
        del adata.layers["counts"]
        return True
    if recipe.change == "X removed" and not adata.isbacked:
        adata.X = None
        return recipe.place == "X"
    if recipe.change == "cells dropped" and adata.n_obs > 1 and not adata.isbacked:
        adata._inplace_subset_obs(np.arange(adata.n_obs - 1))
        return True
    if recipe.change == "genes dropped" and adata.n_vars > 1 and not adata.isbacked:
        adata._inplace_subset_var(np.arange(adata.n_vars - 1))
        return True
    if recipe.change == "another model":
        other = scvi.model.LinearSCVI if recipe.model != "LinearSCVI" else scvi.model.SCVI
        other.setup_anndata(adata, layer=kwargs.get("layer"))
    if recipe.change == "set up again":
        labels = {"labels_key": kwargs["labels_key"]} if "labels_key" in kwargs else {}
        getattr(scvi.model, recipe.model).setup_anndata(adata, layer=kwargs.get("layer"), **labels)
    if recipe.change == "text for counts" and not adata.isbacked:
        words = np.full(adata.shape, "1", dtype=object)
        if recipe.place == "X":
            adata.X = words
        else:
            adata.layers["counts"] = words
        return True
    if recipe.change == "file closed" and adata.isbacked:
        adata.file.close()
    if recipe.change == "uns cleared":
        adata.uns.clear()
        return True
    return False


def try_in_memory(recipe: Recipe, directory: Path) -> str:
    """Return how it ends: works, refused, by scvi-tools, no anndata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            built = build(recipe)
            if recipe.form == "backed":
                path = directory / "backed.h5ad"
                built.adata.write_h5ad(path)
                built.adata = anndata.read_h5ad(path, backed="r")
        except Exception:  # noqa: BLE001 - anndata's own, of what it cannot hold
            return "no anndata"
        due = verdict(recipe, built)
        try:
            getattr(scvi.model, recipe.model).setup_anndata(built.adata, **built.kwargs)
            if change(recipe, built):
                due = "bad"
            elif recipe.change == "set up again":  # without these
                fewer = {"batch": "none", "categorical": (), "continuous": ()}
                due = verdict(replace(recipe, size_factor="none", **fewer), built)
        except Exception:  # noqa: BLE001 - of scvi-tools, in the user's own call of it
            assert refusal(built.adata, recipe.model) is not None
            return "by scvi-tools"
        adata = built.adata
        if recipe.form in ("copy", "view"):
            adata = adata.copy() if recipe.form == "copy" and not adata.isbacked else adata[:]
            due = "bad"
        try:
            prepared = prepare_anndata(adata, model=recipe.model)
        except InputError as error:
            check_message(error)
            assert due != "good", f"a good input is refused: {error}"
            return "refused"
        assert due != "bad", "a bad input is taken"
        assert_equal(prepared, registered_by_scvi_tools(adata, recipe.model))
        if recipe.seed == 0:  # what trials see instead of the AnnData; of some, for it takes long
            again = rebuild_anndata(prepared)
            assert_equal(prepared, registered_by_scvi_tools(again, recipe.model))
        return "works"


def refusal(adata: Any, model: str) -> InputError | None:
    try:
        prepare_anndata(adata, model=model)
    except InputError as error:
        check_message(error)
        return error
    return None


def try_file(recipe: Recipe, directory: Path, **options: Any) -> str:
    """Return how a file of the recipe ends: works, refused, no anndata."""
    path = directory / "cells.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            built = build(recipe)
            built.adata.write_h5ad(path)
        except Exception:  # noqa: BLE001 - anndata's own, of what it cannot hold or write
            return "no anndata"
        # A file has no masks, and filters may drop what is wrong.
        due = verdict(recipe, built, from_file=True) if not options else "either"
        try:
            adata, prepared = prepare_file(path, model=recipe.model, **built.kwargs, **options)
        except InputError as error:
            check_message(error)
            assert due != "good", f"a good input is refused: {error}"
            return "refused"
        assert due != "bad", "a bad input is taken"
        if not options:
            read = anndata.read_h5ad(path)
            getattr(scvi.model, recipe.model).setup_anndata(read, **built.kwargs)
            assert_equal(prepared, registered_by_scvi_tools(read, recipe.model))
        assert_equal(prepared, registered_by_scvi_tools(adata, recipe.model))
        return "works"
