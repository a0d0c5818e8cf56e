"""report.html in a real browser: figures are drawn, tables sort, nothing is fetched or logged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

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


def open_report(browser, study) -> list[dict]:
    """Open a study's report and return what the browser fetched for it."""
    browser.get_log("performance")
    browser.get(study.write_report().as_uri())
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    return [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]


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
