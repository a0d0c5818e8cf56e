"""Reports opened in a browser."""

from __future__ import annotations

import json


def open_report(browser, study) -> list[dict]:
    """Open a study's report and return what the browser fetched for it."""
    browser.get_log("performance")
    browser.get(study.write_report().as_uri())
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    return [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
