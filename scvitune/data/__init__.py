"""AnnData -> plain, memory-mapped arrays; splits; built-in and simulated data.

Every name is loaded when it is first used, so that importing this package costs neither torch
nor scvi-tools nor scanpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scvitune.data._built_in import BUILT_IN
    from scvitune.data._deconvolution import DeconvolutionData, prepare_deconvolution
    from scvitune.data._download import brain_large, cortex, pbmc
    from scvitune.data._file import check_file, prepare_file, read_anndata
    from scvitune.data._finding_cells import find_cells
    from scvitune.data._gene_selection import select_genes
    from scvitune.data._matching import check_matches
    from scvitune.data._node_copy import copy_to_node
    from scvitune.data._pbmc68k import pbmc68k
    from scvitune.data._preparation import prepare_anndata
    from scvitune.data._rebuild import rebuild_anndata
    from scvitune.data._simulation import simulated
    from scvitune.data._split import load_split, save_split, split_cells, take_share
    from scvitune.data._spot_checks import add_setting_faults
    from scvitune.data._spot_composition import SimulatedSpots, simulate_composition
    from scvitune.data._spots import simulate_spots
    from scvitune.data._storage import load_prepared, save_prepared
    from scvitune.data._tissues import simulate_tissue, split_reference, take_genes

_HOMES = {
    "BUILT_IN": "_built_in",
    "DeconvolutionData": "_deconvolution",
    "prepare_deconvolution": "_deconvolution",
    "brain_large": "_download",
    "cortex": "_download",
    "pbmc": "_download",
    "load_cell_names": "_cell_names",
    "save_cell_names": "_cell_names",
    "check_file": "_file",
    "prepare_file": "_file",
    "read_anndata": "_file",
    "find_cells": "_finding_cells",
    "select_genes": "_gene_selection",
    "check_matches": "_matching",
    "copy_to_node": "_node_copy",
    "pbmc68k": "_pbmc68k",
    "prepare_anndata": "_preparation",
    "rebuild_anndata": "_rebuild",
    "simulated": "_simulation",
    "load_split": "_split",
    "save_split": "_split",
    "split_cells": "_split",
    "take_share": "_split",
    "SimulatedSpots": "_spot_composition",
    "simulate_composition": "_spot_composition",
    "add_setting_faults": "_spot_checks",
    "simulate_spots": "_spots",
    "load_prepared": "_storage",
    "save_prepared": "_storage",
    "simulate_tissue": "_tissues",
    "split_reference": "_tissues",
    "take_genes": "_tissues",
}

__all__ = [
    "check_file",
    "check_matches",
    "copy_to_node",
    "BUILT_IN",
    "DeconvolutionData",
    "SimulatedSpots",
    "add_setting_faults",
    "brain_large",
    "cortex",
    "find_cells",
    "load_cell_names",
    "load_prepared",
    "load_split",
    "pbmc",
    "pbmc68k",
    "prepare_anndata",
    "prepare_deconvolution",
    "prepare_file",
    "read_anndata",
    "rebuild_anndata",
    "save_cell_names",
    "save_prepared",
    "save_split",
    "select_genes",
    "simulate_composition",
    "simulate_spots",
    "simulated",
    "simulate_tissue",
    "split_cells",
    "split_reference",
    "take_genes",
    "take_share",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
