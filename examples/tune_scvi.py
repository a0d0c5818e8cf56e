"""Tune scVI on 700 human blood cells, then look at the best model's latent space.

Command::

    python examples/tune_scvi.py

The cells ship inside scanpy, so nothing is downloaded. What is left behind: the run directory
with its tables and ``report.html``, and the cells' UMAP coordinates in ``umap.csv`` beside them.
"""

from __future__ import annotations

import argparse

import pandas as pd
import scanpy as sc
import scvi

import scvitune
from scvitune.data import pbmc68k


def main() -> None:
    parser = argparse.ArgumentParser(description="Tune scVI on 700 human blood cells.")
    parser.add_argument("--num-samples", type=int, default=8)
    parser.add_argument("--max-epochs", type=int, default=20)
    parser.add_argument("--storage", default="runs")
    args = parser.parse_args()

    adata = pbmc68k()
    scvi.model.SCVI.setup_anndata(adata, layer="counts")
    study = scvitune.tune(
        scvi.model.SCVI,
        adata,
        num_samples=args.num_samples,
        max_epochs=args.max_epochs,
        storage=args.storage,
    )
    print(study.best_config)

    model = study.best_model(adata)  # an ordinary scvi.model.SCVI
    adata.obsm["X_scVI"] = model.get_latent_representation()
    sc.pp.neighbors(adata, use_rep="X_scVI")
    sc.tl.umap(adata)
    umap = pd.DataFrame(adata.obsm["X_umap"], index=adata.obs_names, columns=["umap1", "umap2"])
    umap["cell_type"] = adata.obs["cell_type"]
    umap.to_csv(study.path / "umap.csv")
    print(f"Report: {study.path / 'report.html'}\nUMAP:   {study.path / 'umap.csv'}")


# Ray's processes import this file too; they must not start a study of their own.
if __name__ == "__main__":
    main()
