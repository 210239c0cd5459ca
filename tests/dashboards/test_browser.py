"""The report in a real Chromium that can reach no network."""

import csv
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards import report
from tests.dashboards import synthetic

FALL = (43.0, 42.0, 30.0, 10.0, 25.0, 44.0)
STEPS = (0, 1, 8, 32, 128, 512)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium or google-chrome with chromedriver on PATH")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    yield opened
    opened.quit()


def wait(browser: Any, condition: str) -> None:
    end = time.monotonic() + 30
    while not browser.execute_script(f"return Boolean({condition})"):
        assert time.monotonic() < end, f"never true in the page: {condition}"
        time.sleep(0.05)


def assert_rows_can_be_downloaded(browser: Any, folder: Path) -> None:
    behaviour = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.execute_script("document.querySelector('button[data-figure=rankme]').click()")
    end = time.monotonic() + 30
    while not (file := folder / "rankme.csv").exists():
        assert time.monotonic() < end, "no file was downloaded"
        time.sleep(0.05)
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    drawn = browser.execute_script("return drawings.rankme.rows.length")
    assert len(rows) == drawn > 2 * len(STEPS)
    assert {HOSTILE in row["label"] for row in rows} == {True, False}
    assert [float(row["value"]) for row in rows if HOSTILE in row["label"]] == list(FALL)


@pytest.mark.slow
def test_page_in_a_browser(results: Path, browser: Any) -> None:
    synthetic.pico_like(results, steps=STEPS)
    # A long name without a space is what breaks a narrow page.
    synthetic.trajectory(results, FALL, model=f"{HOSTILE}{'x' * 60}", steps=STEPS)
    failure = {**synthetic.keys("head", "pico-64", 1), "message": "y" * 300, "kind": "head"}
    synthetic.write(results, "failures", [failure])
    path = Path(report.render(results, "pico"))
    for scheme in ("light", "dark"):
        for width in (1100, 390):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(path.as_uri())
            wait(browser, "document.documentElement.dataset.drawn")
            drawings, empty, wide = browser.execute_script(
                "const all = [...document.querySelectorAll('.drawing')];"
                "return [all.length, all.filter(d => !d.querySelector('svg path')).length,"
                " document.documentElement.scrollWidth - innerWidth]"
            )
            assert (drawings, empty) == (11, 0)
            assert wide <= 0, f"the page is {wide} px wider than {width} px"
            assert browser.get_log("browser") == []
    browser.execute_script("document.querySelector('input[value=tokens]').click()")
    title = "document.querySelector('#figure-rankme svg').textContent"
    wait(browser, f"{title}.includes('training tokens (log scale; linear below 1,024)')")
    assert_rows_can_be_downloaded(browser, results.parent)
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
    assert browser.get_log("browser") == []
