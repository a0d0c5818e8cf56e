"""What was done to a file's cells and genes is kept with the study, and told by its report."""

from __future__ import annotations

import pytest
import yaml

from scvitune.config import StudyConfig
from scvitune.data import _gene_selection, prepare_anndata, save_prepared, select_genes, simulated
from scvitune.experiment._preparing import prepare_experiment
from scvitune.experiment._reopening import freeze_changes, reopen
from scvitune.experiment._run_directory import create_run_directory
from scvitune.results import read_run
from scvitune.results._cautions import find_cautions
from scvitune.results.methods import describe_methods
from scvitune.results.report._facts import list_facts


@pytest.fixture
def cells():
    return simulated(400, 200, n_batches=2, mean_library=150.0, seed=1)


@pytest.fixture
def start(tmp_path, cells):
    """Write study.yaml of a study on a file, up to where trials would begin."""
    cells.write_h5ad(tmp_path / "cells.h5ad")

    def make(**chosen):
        raw = {
            "model": "SCVI",
            "data": {"path": str(tmp_path / "cells.h5ad"), **chosen},
            "space": {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
            "search": {"searcher": "random", "scheduler": "fifo", "num_samples": 2},
            "storage": str(tmp_path / "runs"),
            "name": "one",
        }
        preparation = prepare_experiment(StudyConfig.from_yaml_dict(raw))
        prepared = save_prepared(preparation.prepared, tmp_path / "runs")
        create_run_directory(preparation.layout, preparation.plan, prepared, name="one")
        return preparation.layout

    return make


@pytest.mark.filterwarnings("ignore:The 50 genes were chosen by Pearson")
def test_genes_chosen_by_the_fallback_are_told(start, monkeypatch):
    monkeypatch.setattr(_gene_selection, "_MIN_VARYING_GENES", 10**6)
    run = read_run(start(n_top_genes=50, batch_key="batch").root)
    chosen = run.settings["selection"]["top_genes"]
    assert chosen["flavour"] == "pearson_residuals"
    assert "genes vary" in chosen["fallback"]
    text = describe_methods(run).text
    assert (
        "The 50 most variable of 200 genes were chosen by the variance of Pearson residuals "
        f"(scanpy {chosen['scanpy']}; Wolf et al., 2018; Lause et al., 2021), ranked in each "
        f"batch (column 'batch'), because the usual method (seurat_v3) failed on these counts "
        f"({chosen['fallback']})."
    ) in text
    assert any("chosen by Pearson residuals" in caution for caution in find_cautions(run))
    assert "seurat_v3 failed" in dict(list_facts(run))["Genes"]


def test_filters_are_told_with_what_they_removed(start):
    run = read_run(start(n_top_genes=40, min_counts=140, min_genes=60, min_cells=100).root)
    found = run.settings["selection"]
    cells, genes = found["cells"], found["genes"]
    assert 40 < genes["filtered"] < genes["before"] == 200
    assert cells["filtered"] < cells["before"] == 400
    assert (run.settings["n_cells"], run.settings["n_genes"]) == (cells["kept"], 40)
    text = describe_methods(run).text
    assert (
        f"Kept were cells with at least 140 counts and 60 genes ({cells['filtered']} of 400) and "
        f"genes seen in at least 100 of these cells ({genes['filtered']} of 200)."
    ) in text
    assert (
        f"The 40 most variable of {genes['filtered']} genes were chosen by the variance of "
        "standardised counts (seurat_v3; scanpy "
    ) in text
    facts = dict(list_facts(run))
    assert facts["Cells"] == f"{cells['kept']} of the file's 400; min_counts 140; min_genes 60"
    assert facts["Genes"].startswith("40 of the file's 200; min_cells 100; the most variable of ")
    assert not any("Pearson" in caution for caution in find_cautions(run))


def test_cells_left_without_counts_are_told(start, cells, tmp_path):
    with pytest.warns(UserWarning, match="and were dropped"):
        run = read_run(start(n_top_genes=2).root)
    emptied = 400 - run.settings["n_cells"]
    assert emptied > 1
    assert (
        f"{emptied} cells were left out, having no counts in the genes kept."
    ) in describe_methods(run).text


def test_the_fingerprint_is_that_of_the_same_genes_chosen_by_hand(start, cells):
    import scvi

    layout = start(n_top_genes=50)
    by_hand = cells[:, select_genes(cells, 50)].copy()
    scvi.model.SCVI.setup_anndata(by_hand)
    fingerprint = prepare_anndata(by_hand, model="SCVI").fingerprint
    assert read_run(layout.root).settings["fingerprint"] == fingerprint
    # The arrays are shared with who came by them otherwise, and say nothing of it.
    meta = (layout.root.parent / ".data" / fingerprint / "meta.json").read_text()
    assert "selection" not in meta


def test_a_resume_keeps_it_and_an_older_run_lacks_it(start):
    layout = start(n_top_genes=50)
    before = read_run(layout.root).settings["selection"]
    freeze_changes(layout, reopen(layout.root, num_samples=5).plan)
    settings = yaml.safe_load(layout.study.read_text())
    assert (settings["search"]["num_samples"], settings["selection"]) == (5, before)
    del settings["selection"]
    layout.study.write_text(yaml.safe_dump(settings))
    assert reopen(layout.root).plan.num_trials == 6
    run = read_run(layout.root)
    assert "most variable" not in describe_methods(run).text
    assert {"Cells", "Genes"}.isdisjoint(dict(list_facts(run)))


def test_nothing_is_told_of_a_file_that_was_taken_as_it_is(start):
    assert "selection" not in read_run(start().root).settings


@pytest.mark.filterwarnings("ignore:The 50 genes were chosen by 100 random")
def test_a_file_read_in_blocks_says_by_how_many_cells_genes_were_chosen(start, monkeypatch):
    from scvitune.data import _large_file

    monkeypatch.setattr(_large_file, "LARGE", 0)
    monkeypatch.setattr(_large_file, "GENE_CELLS", 100)
    text = describe_methods(read_run(start(n_top_genes=50, min_cells=2).root)).text
    assert "Stuart et al., 2019) in 100 of the 400 cells." in text
    assert "genes seen in at least 2 cells (200 of 200)" in text
