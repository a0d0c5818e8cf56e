"""A report of many trials in a real browser: its long tables, and what a figure leaves out."""

from __future__ import annotations

import pytest
import yaml
from report_pages import open_report

import scvitune
from scvitune.contracts import RunLayout
from scvitune.events import EventLog


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "long", n_trials=60)


def write_run(root, *, n_trials):
    """Write the log of so many trials, of which 00007 is far off."""
    layout = RunLayout(root)
    layout.root.mkdir()
    settings = {"name": "long", "model": "SCVI", "metric": "elbo_validation", "mode": "min"}
    search = {
        "searcher": "random",
        "scheduler": "asha",
        "num_samples": n_trials - 1,
        "max_epochs": 4,
    }
    space = {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}
    layout.study.write_text(yaml.safe_dump({**settings, "search": search, "space": space}))
    with EventLog(layout.events) as log:
        log.append("driver", action="start", slots=2, pid=1, host="h")
        for number in range(n_trials):
            trial_id = f"{number:05d}"
            origin = "random" if number else "default"
            config = {"lr": 1e-3 * (1 + number / 60)}
            log.append("proposal", trial_id=trial_id, config=config, origin=origin)
            value = 5000.0 if number == 7 else 700.0 + number
            reported = {"elbo_validation": value}
            log.append("report", trial_id=trial_id, epoch=4.0, time_s=1.0, metrics=reported)
            log.append("end", trial_id=trial_id, status="finished", reason="")
        log.append("driver", action="end")
    return layout.root


def test_a_double_click_shows_what_lies_outside_of_a_figure(browser, long_run, wait_for) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    open_report(browser, scvitune.load(long_run))
    top = "return document.getElementById('figure-history').layout.yaxis.range[1]"
    first = browser.execute_script(top)
    assert first < 1000
    text = browser.find_element(By.ID, "figure-history").text
    assert "1 trial above not shown: double click shows all" in text
    place = browser.find_element(By.CSS_SELECTOR, "#figure-history .nsewdrag")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", place)
    # However long a busy machine takes from the first click to the second: each pair is one.
    pair = """
    const figure = document.getElementById("figure-history");
    figure._context.doubleClickDelay = 60_000;
    figure._mouseDownTime = 0;
    """
    for shown in (True, False):
        browser.execute_script(pair)
        ActionChains(browser).double_click(place).perform()
        wait_for(lambda shown=shown: (browser.execute_script(top) > 5000) == shown, seconds=60)


def rows_seen(browser) -> list[str]:
    """Return the trials of the table whose rows take up room."""
    return browser.execute_script(
        """
        const rows = [...document.querySelectorAll("#trials .rows tbody tr")];
        return rows.filter((row) => row.getBoundingClientRect().height > 0)
          .map((row) => row.cells[0].textContent.trim().slice(0, 5));
        """
    )


def test_a_long_table_begins_with_its_first_rows_and_shows_all(browser, long_run) -> None:
    from selenium.webdriver.common.by import By

    open_report(browser, scvitune.load(long_run))
    best_first = [f"{number:05d}" for number in (*range(7), *range(8, 60), 7)]
    assert rows_seen(browser) == best_first[:25]
    button = browser.find_element(By.CSS_SELECTOR, "#trials .more")
    assert (button.text, button.get_attribute("aria-expanded")) == ("Show all 60 trials", "false")
    heading = browser.find_element(By.XPATH, "//section[@id='trials']//th[2]/button")
    for _ in range(2):
        browser.execute_script("arguments[0].click()", heading)
    assert rows_seen(browser) == best_first[::-1][:25], "of all rows, not of those shown"
    browser.execute_script("arguments[0].click()", button)
    assert rows_seen(browser) == best_first[::-1]
    assert button.text == "Show the first 25"
    # the headings stay in sight
    last = browser.find_element(By.CSS_SELECTOR, "#trials .rows tbody tr:last-child")
    browser.execute_script("arguments[0].scrollIntoView({block: 'end'})", last)
    top = "return arguments[0].getBoundingClientRect().top"
    assert browser.execute_script(top, heading) >= 0
    browser.execute_script("arguments[0].click()", button)
    assert len(rows_seen(browser)) == 25


def test_printed_pages_and_pages_without_scripts_have_all_rows(browser, long_run) -> None:
    path = scvitune.load(long_run).write_report()
    open_report(browser, scvitune.load(long_run))
    assert len(rows_seen(browser)) == 25
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert len(rows_seen(browser)) == 60
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert len(rows_seen(browser)) == 60


_SIZES = """
const sizes = () => [...document.querySelectorAll("[data-figure]")].map((place) => {
  const { width, height } = place.querySelector("svg").getBoundingClientRect();
  return [width, height];
});
"""

_PAPERS = {"A4": (8.27, 11.69), "Letter": (8.5, 11.0)}


@pytest.mark.parametrize("paper", _PAPERS)
def test_figures_are_laid_out_for_the_paper_and_restored(browser, long_run, paper) -> None:
    open_report(browser, scvitune.load(long_run))
    width, height = _PAPERS[paper]
    before = browser.execute_script(
        f"""
        {_SIZES}
        addEventListener("beforeprint", () => {{ window.printed = sizes(); }});
        return sizes();
        """
    )
    wanted = {"paperWidth": width, "paperHeight": height}
    browser.execute_cdp_cmd("Page.printToPDF", wanted)
    printed = browser.execute_script("return window.printed")
    assert len(printed) == len(before) > 2
    # the style sheet makes them smaller; both papers have room for 680 px between their margins
    assert {one for one, _ in printed} == {680 / 0.8}
    assert [one for _, one in printed] == [one for _, one in before]
    assert browser.execute_script(f"{_SIZES} return sizes()") == before


def test_printed_pages_have_no_controls_and_hold_together_what_belongs_together(
    browser, long_run
) -> None:
    open_report(browser, scvitune.load(long_run))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        seen, scrolling, torn, left = browser.execute_script(
            """
            const all = (which) => [...document.querySelectorAll(which)];
            const style = (one) => getComputedStyle(one);
            return [
              all(".modebar, nav, .more").filter((one) => one.getClientRects().length).length,
              all("body *").filter((one) => ["auto", "scroll"].includes(style(one).overflowX))
                .map((one) => one.outerHTML.slice(0, 60)),
              all(".figure").map((one) => one.parentElement).filter(
                (one) => style(one).breakInside !== "avoid" || !one.querySelector("h3, p")).length,
              all("h2, h3").filter((one) => style(one).breakAfter !== "avoid").length,
            ];
            """
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert seen == 0
    assert scrolling == []
    assert torn == left == 0


def test_a_search_in_the_page_looks_through_all_rows(browser, long_run) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_report(browser, scvitune.load(long_run))
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.CONTROL, "f")
    assert len(rows_seen(browser)) == 60


def test_short_tables_are_whole(browser, tmp_path) -> None:
    open_report(browser, scvitune.load(write_run(tmp_path / "short", n_trials=30)))
    assert len(rows_seen(browser)) == 30
    assert browser.execute_script("return document.querySelectorAll('.more').length") == 0
