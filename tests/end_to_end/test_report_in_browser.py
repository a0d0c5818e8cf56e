"""report.html in a real browser: figures are drawn, tables sort, nothing is fetched or logged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from report_pages import open_report

import scvitune
from scvitune.contracts import RunLayout
from scvitune.events import EventLog
from scvitune.results.plots import PLOTS

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"

SPACE = {
    "n_latent": {"type": "randint", "low": 5, "high": 20},
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
    "gene_likelihood": {"type": "choice", "values": ["nb", "zinb"]},
    "dispersion": {
        "type": "choice",
        "values": ["gene", "gene-label"],
        "when": {"gene_likelihood": "zinb"},
    },
}


@pytest.fixture(scope="module")
def study(local_ray, pbmc, tmp_path_factory):
    """A real study with a conditional hyperparameter."""
    return scvitune.tune(
        "SCVI",
        pbmc,
        space=SPACE,
        searcher="random",
        scheduler="fifo",
        num_samples=6,
        max_epochs=3,
        seed=1,
        storage=tmp_path_factory.mktemp("runs"),
        name="browser",
    )


def drawn(browser) -> dict[str, int]:
    """Return figure -> number of marks (lines, points, cells) drawn in it."""
    return browser.execute_script(
        """
        const found = {};
        for (const place of document.querySelectorAll("[data-figure]")) {
          const marks = "svg .trace path, svg .hm image, svg .bars path, svg .point";
          found[place.id.replace("figure-", "")] = place.querySelectorAll(marks).length;
        }
        return found;
        """
    )


def test_figures_are_drawn_without_network_or_error(browser, study) -> None:
    fetched = open_report(browser, study)
    figures = drawn(browser)
    assert {"history", "curves"} <= set(figures) <= set(PLOTS)
    assert min(figures.values()) > 0, figures
    schemes = {request["request"]["url"].split(":", 1)[0] for request in fetched}
    assert schemes <= {"file", "data", "blob"}, schemes
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


PLAIN = {
    "study": "rich",
    "metric": "elbo",
    "further metric": "marginal_ll",
    "hyperparameter": "gene_likelihood",
    "value": "zinb",
    "batch": "b",
    "cell type": "NK",
    "reason": "",
}
"""What names come from data and settings, and what they are called in the rich run."""


@pytest.fixture(scope="module")
def rich_run(tmp_path_factory):
    """A run directory with all that a report can show: the logs of a study of many parts."""
    return write_rich_run(tmp_path_factory.mktemp("runs") / "rich", PLAIN)


def write_rich_run(root, names):
    layout = RunLayout(root)
    layout.root.mkdir()
    metric, further = names["metric"], names["further metric"]
    settings = {
        "name": names["study"],
        "model": "SCVI",
        "metric": f"{metric}_validation",
        "mode": "min",
        "further_metrics": [f"{further}_validation"],
        "search": {"searcher": "random", "scheduler": "pbt", "max_epochs": 8},
        "space": {
            "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
            "n_latent": {"type": "randint", "low": 5, "high": 50},
            names["hyperparameter"]: {"type": "choice", "values": ["nb", names["value"]]},
        },
        "rungs": [4.0],
        "confirm": {"top_k": 2, "seeds": 3},
        "n_cells": 400,
        "n_genes": 50,
        "split": {"train": 320, "validation": 40, "test": 40},
    }
    if names is not PLAIN:
        settings["own_metrics"] = [
            {"name": f"{name}_validation", "function": None, "mode": "min", "cost": "cheap"}
            for name in (metric, further)
        ]
    layout.study.write_text(yaml.safe_dump(settings))
    rng = np.random.default_rng(3)
    with EventLog(layout.events) as log:
        _log_search(log, rng, names)
        for trial_id, shift in (("00001", 0.0), ("00002", 1.5), ("00000", 3.0)):
            for seed in (1, 2, 3):
                value = 60 + shift + rng.normal(0, 0.3)
                found = {f"{metric}_validation": value, f"{metric}_test": value + 1}
                _log_training(log, "confirmation", trial_id, seed, found)
        for n_cells in (32, 64, 160, 320):
            for seed in (1, 2):
                loss = 60 + 200 / n_cells**0.5 + rng.normal()
                found = {"elbo_train": loss - 9, "elbo_validation": loss}
                _log_training(log, "learning_curve", "00001", seed, found, n_cells=n_cells)
        log.append("driver", action="end")
    roles = {"default": "00000", "best": "00001"}
    parts = [
        pd.DataFrame(rng.normal(size=(400, 2)), columns=["umap_1", "umap_2"]).assign(
            role=role,
            trial_id=trial_id,
            cell=np.arange(400),
            batch=np.resize(["a", names["batch"]], 400),
            label=np.resize(["T", "B", names["cell type"]], 400),
        )
        for role, trial_id in roles.items()
    ]
    pd.concat(parts).to_parquet(layout.root / "umap.parquet")
    return layout.root


def _log_search(log, rng, names) -> None:
    """A population of which the best, 00001, took the weights of 00002 at epoch 4."""
    log.append("driver", action="start", slots=2, pid=1, host="h")
    configs = {}
    for number in range(40):
        trial_id = f"{number:05d}"
        configs[trial_id] = {
            "lr": 10 ** rng.uniform(-4, -2),
            "n_latent": int(rng.integers(5, 50)),
            names["hyperparameter"]: ["nb", names["value"]][number % 2],
        }
        origin = "tpe" if number else "default"
        log.append("proposal", trial_id=trial_id, config=configs[trial_id], origin=origin)
        log.append("start", trial_id=trial_id)
    for epoch in (2.0, 4.0, 8.0):
        for number, (trial_id, config) in enumerate(configs.items()):
            worse = 2 + abs(np.log10(config["lr"]) + 3) * 8 + rng.normal(0, 0.5)
            value = 60 + 80 / epoch + (max(worse, 3.0) if number not in (1, 2) else number)
            found = {
                f"{names['metric']}_validation": value,
                f"{names['further metric']}_validation": rng.normal(-70, 4),
            }
            report = {"epoch": epoch, "time_s": epoch, "n_params": 1000, "metrics": found}
            log.append("report", trial_id=trial_id, **report)
        if epoch == 4.0:
            before, after = configs["00001"], configs["00002"] | {"lr": configs["00002"]["lr"] / 2}
            change = {"source": "00002", "before": before, "config": after}
            log.append("perturb", trial_id="00001", epoch=epoch, **change)
            log.append("generation", epoch=epoch, members=["00001", "00002"])
    for number, trial_id in enumerate(configs):
        status = "failed" if names["reason"] and number > 35 else "finished"
        reason = names["reason"] if status == "failed" else ""
        log.append("end", trial_id=trial_id, status=status, reason=reason)


def _log_training(log, event, trial_id, seed, metrics, **fields) -> None:
    common = {"epoch": 8.0, "time_s": 1.0, "status": "finished", "reason": ""}
    log.append(event, trial_id=trial_id, seed=seed, metrics=metrics, **common, **fields)


def test_every_figure_that_there_is_can_be_drawn(browser, rich_run) -> None:
    open_report(browser, scvitune.load(rich_run))
    figures = drawn(browser)
    assert set(figures) == set(PLOTS)
    assert min(figures.values()) > 0, figures
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


def column(browser, heading: str) -> list[str]:
    return browser.execute_script(
        """
        const table = document.querySelector("#trials table.sortable");
        const headings = [...table.tHead.rows[0].cells];
        const place = headings.findIndex((h) => h.textContent.trim() === arguments[0]);
        return [...table.tBodies[0].rows].map((row) => row.cells[place].textContent.trim());
        """,
        heading,
    )


@pytest.mark.parametrize("heading", ["elbo_validation", "n_latent", "lr"])
def test_tables_sort_by_number_on_click_and_by_keyboard(browser, study, heading) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_report(browser, study)
    label = f"//section[@id='trials']//th[.//button[normalize-space()='{heading}']]"
    head = browser.find_element(By.XPATH, label)
    button = head.find_element(By.TAG_NAME, "button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(text) for text in column(browser, heading)]
    assert len(values) == len(study.trials)
    assert values == sorted(values)
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(browser, heading)] == sorted(values, reverse=True)


def test_missing_values_sort_last_either_way(browser, study) -> None:
    from selenium.webdriver.common.by import By

    open_report(browser, study)
    label = "//section[@id='trials']//button[normalize-space()='dispersion']"
    button = browser.find_element(By.XPATH, label)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    inactive = int(study.trials["config/dispersion"].isna().sum())
    assert 0 < inactive < len(study.trials)
    for _ in range(2):
        button.click()
        assert column(browser, "dispersion")[-inactive:] == ["–"] * inactive
        assert "–" not in column(browser, "dispersion")[:-inactive]


WIDE_SPACE = {
    "n_latent": {"type": "randint", "low": 5, "high": 50},
    "n_hidden": {"type": "choice", "values": [64, 128, 256, 512], "ordered": True},
    "n_layers": {"type": "randint", "low": 1, "high": 4},
    "dropout_rate": {"type": "uniform", "low": 0.0, "high": 0.5},
    "gene_likelihood": {"type": "choice", "values": ["zinb", "nb"]},
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
    "weight_decay": {"type": "loguniform", "low": 1e-8, "high": 1e-3},
    "n_epochs_kl_warmup": {"type": "choice", "values": [5, 20, 100, 400], "ordered": True},
}
"""As many as the default space of SCVI has, and one more."""


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory):
    """Trials of eight hyperparameters, some of which failed with a long reason."""
    layout = RunLayout(tmp_path_factory.mktemp("runs") / "wide")
    layout.root.mkdir()
    settings = {"name": "wide", "model": "SCVI", "metric": "elbo_validation", "mode": "min"}
    search = {"searcher": "random", "scheduler": "asha", "num_samples": 15, "max_epochs": 4}
    layout.study.write_text(yaml.safe_dump({**settings, "search": search, "space": WIDE_SPACE}))
    rng = np.random.default_rng(1)
    with EventLog(layout.events) as log:
        log.append("driver", action="start", slots=2, pid=1, host="h")
        for number in range(16):
            trial_id = f"{number:05d}"
            config = {
                "n_latent": int(rng.integers(5, 50)),
                "n_hidden": int(rng.choice([64, 128, 256, 512])),
                "n_layers": int(rng.integers(1, 4)),
                "dropout_rate": float(rng.uniform(0, 0.5)),
                "gene_likelihood": str(rng.choice(["zinb", "nb"])),
                "lr": float(10 ** rng.uniform(-4, -2)),
                "weight_decay": float(10 ** rng.uniform(-8, -3)),
                "n_epochs_kl_warmup": int(rng.choice([5, 20, 100, 400])),
            }
            origin = "default" if number == 0 else "random"
            log.append("proposal", trial_id=trial_id, config=config, origin=origin)
            value = {"elbo_validation": 700 + 10 * rng.normal()}
            log.append("report", trial_id=trial_id, epoch=4.0, time_s=754.0, metrics=value)
            status = "failed" if number > 13 else "stopped" if number > 5 else "finished"
            reason = "CUDA out of memory. Tried to allocate 2.00 GiB. " * 5
            log.append("end", trial_id=trial_id, status=status, reason=reason)
        log.append("driver", action="end")
    return layout.root


def test_the_table_shows_every_hyperparameter_without_scrolling(browser, wide_run) -> None:
    size = browser.get_window_size()
    browser.set_window_size(1280, 900)
    try:
        open_report(browser, scvitune.load(wide_run))
        table, page, edge, room, *shifts = browser.execute_script(
            """
            const place = document.querySelector("#trials .rows");
            const last = [...place.querySelectorAll("tbody td:last-child")];
            const edge = Math.max(...last.map((cell) => cell.getBoundingClientRect().right));
            const page = document.documentElement;
            return [place.scrollWidth - place.clientWidth, page.scrollWidth - page.clientWidth,
                    edge, window.innerWidth,
                    ...["#trials h2", "#trials .rows"].map((one) =>
                      document.querySelector(one).getBoundingClientRect().left
                      - document.querySelector("#methods h2").getBoundingClientRect().left)];
            """
        )
        assert room <= 1280
        assert table <= 0, "the table scrolls sideways"
        assert page <= 0, "the page scrolls sideways"
        assert edge <= room
        assert shifts[0] == shifts[1], "the table begins where its heading does"
    finally:
        browser.set_window_size(size["width"], size["height"])
    for name in WIDE_SPACE:
        assert all(column(browser, name)), name


def test_the_page_fits_a_narrow_window(browser, wide_run) -> None:
    size = browser.get_window_size()
    browser.set_window_size(700, 900)
    try:
        open_report(browser, scvitune.load(wide_run))
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(f"return {wider}") <= 0
    finally:
        browser.set_window_size(size["width"], size["height"])


def test_a_figure_is_saved_as_pdf(browser_programs, wide_run, tmp_path, monkeypatch) -> None:
    pytest.importorskip("kaleido", reason="needs the extra `figures`")
    monkeypatch.setenv("BROWSER_PATH", browser_programs[0])
    figure, _ = scvitune.load(wide_run).plot("parallel")
    path = tmp_path / "parallel.pdf"
    figure.write_image(path, width=1000, height=500)
    assert path.read_bytes().startswith(b"%PDF-")


def test_names_from_data_are_only_text(browser, tmp_path) -> None:
    layout = RunLayout(tmp_path / "hostile")
    layout.root.mkdir()
    settings = {
        "name": HOSTILE,
        "model": HOSTILE,
        "metric": "elbo_validation",
        "mode": "min",
        "search": {"max_epochs": 4},
        "space": {
            HOSTILE: {"type": "choice", "values": [HOSTILE, "b"]},
            "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
        },
    }
    layout.study.write_text(yaml.safe_dump(settings))
    rng = np.random.default_rng(0)
    with EventLog(layout.events) as log:
        log.append("driver", action="start")
        for number in range(40):
            trial_id = f"{number:05d}"
            config = {HOSTILE: [HOSTILE, "b"][number % 2], "lr": 10 ** rng.uniform(-4, -2)}
            origin = "default" if number == 0 else "tpe"
            log.append("proposal", trial_id=trial_id, config=config, origin=origin)
            for epoch in (2.0, 4.0):
                value = {"elbo_validation": 100 / epoch + rng.normal()}
                log.append("report", trial_id=trial_id, epoch=epoch, time_s=epoch, metrics=value)
            log.append("end", trial_id=trial_id, status="finished", reason=HOSTILE)
        log.append("driver", action="end")
    open_report(browser, scvitune.load(layout.root))
    assert browser.title.startswith("<script>")
    assert browser.execute_script("return document.images.length") == 0
    assert min(drawn(browser).values()) > 0
    text = browser.execute_script("return document.body.textContent")
    assert text.count(HOSTILE) > 40
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


def test_names_of_every_kind_stay_text_in_tables_and_figures(browser, tmp_path) -> None:
    """Of cell types, batches, metrics ... each is to be read as it is, tags and all."""
    names = {kind: f"<i>{kind}</i> &amp; {HOSTILE}" for kind in PLAIN}
    open_report(browser, scvitune.load(write_rich_run(tmp_path / "run", names)))
    figures = drawn(browser)
    assert set(figures) == set(PLOTS)
    assert min(figures.values()) > 0, figures
    assert "taken" not in browser.title.replace(HOSTILE, "")
    assert browser.execute_script("return document.images.length") == 0
    made = "i, img, [onerror], tspan[style*='italic']"
    assert browser.execute_script(f'return document.querySelectorAll("{made}").length') == 0
    text = browser.execute_script("return document.body.textContent")
    assert [kind for kind, name in names.items() if name not in text] == []
    in_figures = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map((t) => t.textContent).join(' ')"
    )
    shown = ["hyperparameter", "value", "batch", "cell type"]
    assert [kind for kind in shown if names[kind] not in in_figures] == []
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
