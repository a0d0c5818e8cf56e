"""The HParams page of a real study, in a real TensorBoard, in a real browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

import scvitune

# TensorBoard's elements lie in shadow trees within shadow trees.
FIND = """
function look(root, selector) {
  const found = [...root.querySelectorAll(selector)];
  for (const element of root.querySelectorAll("*"))
    if (element.shadowRoot) found.push(...look(element.shadowRoot, selector));
  return found;
}
const [view, selector] = arguments;
const roots = view ? look(document, view).map((element) => element.shadowRoot) : [document];
return roots.flatMap((root) => look(root, selector));
"""


@contextmanager
def tensorboard(logdir, log, *, n_trials):
    """Start TensorBoard on a port that it finds free; gives its address once it has read all.

    It reads in the background, and a page shows what had been read when it was opened.
    """
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    command += ["--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        said = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), log.read_text)
        address = said[0]
        until(lambda: _count_trials(address) == n_trials, log.read_text)
        yield address
    finally:
        process.terminate()
        process.wait()


def _count_trials(address):
    """Return of how many trials TensorBoard has read that they have ended."""
    asked = {"allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "sliceSize": 1000}
    request = urllib.request.Request(
        f"{address}/data/plugin/hparams/session_groups",
        json.dumps({"experimentName": "", "startIndex": 0, **asked}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return len(json.load(answer).get("sessionGroups", ()))
    except OSError:
        return 0


def until(condition, explain, *, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"nothing came within {seconds:g} s:\n{explain()}")
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory, pbmc, local_ray):
    """A conditional hyperparameter, a constant and a None."""
    return scvitune.tune(
        "SCVI",
        pbmc,
        space={
            "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
            "gene_likelihood": {"type": "choice", "values": ["nb", "zinb"]},
            "dispersion": {
                "type": "choice",
                "values": ["gene", "gene-label"],
                "when": {"gene_likelihood": "zinb"},
            },
            "n_hidden": 16,
            "gradient_clip_val": None,
        },
        points_to_evaluate=[{"lr": 1e-3, "gene_likelihood": "nb"}],
        searcher="random",
        scheduler="fifo",
        num_samples=5,
        max_epochs=2,
        storage=tmp_path_factory.mktemp("browser"),
        name="hparams",
    )


def test_the_hparams_page_shows_all_trials_in_its_three_views(browser, study, tmp_path):
    from selenium.common.exceptions import StaleElementReferenceException

    log = tmp_path / "tensorboard.log"
    driver = browser
    driver.set_window_size(1800, 1200)
    trials = study.trials
    with tensorboard(study.path / "tensorboard", log, n_trials=len(trials)) as address:

        def find(selector, *, within=None):
            return driver.execute_script(FIND, within, selector)

        def explain():
            driver.save_screenshot(str(tmp_path / "page.png"))
            return f"{log.read_text()}\n{driver.get_log('browser')}\nsee {tmp_path}/page.png"

        def read_table():
            """Return the rows by their first cells, once all are drawn and none anew meanwhile.

            A row's last cell holds the trial's curves, once they are asked for.
            """
            try:
                head, *rows = [
                    [cell.text for cell in row.find_elements("css selector", "th, td")]
                    for row in find("tr", within="tf-hparams-table-view")
                ] or [[]]
            except StaleElementReferenceException:
                return None
            known = {row[0]: dict(zip(head, row, strict=False)) for row in rows if any(row)}
            return known if len(known) >= len(trials) else None

        driver.get(f"{address}/#hparams")
        rows = until(read_table, explain)
        assert set(rows) == set(trials.index)
        head = list(rows["00000"])
        first_metric = next(name for name in head if "elbo" in name)
        assert first_metric == "Best/elbo_validation"
        for trial_id, row in rows.items():
            config = trials.filter(like="config/").loc[trial_id]
            assert row["gene_likelihood"] == config["config/gene_likelihood"]
            assert row["gradient_clip_val"] == "None"
            assert float(row["lr"]) == pytest.approx(config["config/lr"], rel=1e-4)
            inactive = config["config/gene_likelihood"] == "nb"
            assert row["dispersion"] == ("inactive" if inactive else config["config/dispersion"])
            best = trials.loc[trial_id, "elbo_validation"]
            assert float(row[first_metric]) == pytest.approx(best, rel=1e-4)
        assert "inactive" in {row["dispersion"] for row in rows.values()}

        _, parallel, scatter = find("paper-tab")
        parallel.click()
        view = "tf-hparams-parallel-coords-plot"
        # The axes' own lines are paths too; those of the trials come first, in a group.
        until(lambda: len(find("g.foreground path", within=view)) == len(trials), explain)
        assert len(find("g.axis", within=view)) >= 6
        scatter.click()
        view = "tf-hparams-scatter-plot-matrix-plot"
        until(lambda: len(find("circle", within=view)) >= len(trials), explain)
        assert driver.get_screenshot_as_png()
        errors = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
        assert errors == []
