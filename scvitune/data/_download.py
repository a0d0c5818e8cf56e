"""The three datasets that scvi-tools downloads, with an error that says what to do offline."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scvitune.errors import InputError


@dataclass(frozen=True)
class _Source:
    name: str
    files: tuple[tuple[str, str], ...]
    """(file below the directory, address that scvi-tools takes it from)."""


_SCVI_DATA = "https://github.com/YosefLab/scVI-data/raw/master"
_TENX = "http://cf.10xgenomics.com/samples/cell-exp"

_CORTEX = _Source(
    "cortex",
    (
        (
            "expression.bin",
            "https://storage.googleapis.com/linnarsson-lab-www-blobs/blobs/cortex/"
            "expression_mRNA_17-Aug-2014.txt",
        ),
    ),
)
_PBMC = _Source(
    "pbmc",
    (
        ("gene_info_pbmc.csv", f"{_SCVI_DATA}/gene_info.csv"),
        ("pbmc_metadata.pickle", f"{_SCVI_DATA}/pbmc_metadata.pickle"),
        *(
            (
                f"{sample}/filtered_gene_bc_matrices.tar.gz",
                f"{_TENX}/2.1.0/{sample}/{sample}_filtered_gene_bc_matrices.tar.gz",
            )
            for sample in ("pbmc8k", "pbmc4k")
        ),
    ),
)
_BRAIN_LARGE = _Source(
    "brain_large",
    (
        (
            "brain_large.h5",
            f"{_TENX}/1.3.0/1M_neurons/1M_neurons_filtered_gene_bc_matrices_h5.h5",
        ),
    ),
)


def cortex(directory: str | Path = "data") -> Any:
    """Return 3005 cells of mouse cortex x 19972 genes (Zeisel et al., Science 2015).

    Parameters
    ----------
    directory
        Where the file is, or is downloaded to (about 120 MB).

    Returns
    -------
    AnnData
        As ``scvi.data.cortex`` gives it: dense counts in ``.X``, ``obs["cell_type"]``.

    Raises
    ------
    InputError
        If the file is not there and cannot be downloaded.
    """
    import scvi.data

    return _load(_CORTEX, directory, scvi.data.cortex)


def pbmc(directory: str | Path = "data") -> Any:
    """Return 11990 human blood cells of two 10x runs x 3346 genes.

    Parameters
    ----------
    directory
        Where the files are, or are downloaded to. One of them is a pickle of scvi-tools' own
        project, which runs code when it is read: take it from nowhere else.

    Returns
    -------
    AnnData
        As ``scvi.data.pbmc_dataset`` gives it: ``obs["batch"]``, ``obs["str_labels"]``.

    Raises
    ------
    InputError
        If the files are not there and cannot be downloaded.
    """
    import scvi.data

    return _load(_PBMC, directory, scvi.data.pbmc_dataset)


def brain_large(directory: str | Path = "data") -> Any:
    """Return 1.3 million cells of mouse brain x 720 genes (10x Genomics, 2017).

    Parameters
    ----------
    directory
        Where the file is, or is downloaded to (about 4 GB).

    Returns
    -------
    AnnData
        As ``scvi.data.brainlarge_dataset`` gives it: sparse counts in ``.X``.

    Raises
    ------
    InputError
        If the file is not there and cannot be downloaded.
    """
    import scvi.data

    return _load(_BRAIN_LARGE, directory, scvi.data.brainlarge_dataset)


def _load(source: _Source, directory: str | Path, loader: Callable[..., Any]) -> Any:
    place = Path(directory).expanduser().absolute()
    lacking = [name for name, _ in source.files if not (place / name).exists()]
    try:
        return loader(save_path=str(place))
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError) as error:
        if lacking:
            fault = f"{source.name!r} is not in {str(place)!r} and could not be downloaded"
            remedy = "Where there is a network, download by hand and put it there:"
        else:
            fault = f"The files of {source.name!r} in {str(place)!r} could not be read"
            remedy = "They may be cut short. Delete them and download them again:"
            lacking = [name for name, _ in source.files]
        addresses = dict(source.files)
        listed = "; ".join(f"{addresses[name]} as {str(place / name)!r}" for name in lacking)
        raise InputError(
            f"{fault} ({error or type(error).__name__}). {remedy} {listed}. The built-in data "
            "'pbmc68k' and 'simulated' need no download."
        ) from error
