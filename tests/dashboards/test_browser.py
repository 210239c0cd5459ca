"""The report in a real Chromium that can reach no network."""

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards import report
from dashboards.about import About
from tests.dashboards import synthetic
from tests.dashboards.chromium import FAULTS, REACHABLE, opened, show, tabbed, wait
from tests.dashboards.edge_results import EDGES, FALL, HOSTILE, STEPS
from tests.dashboards.finetune_scenarios import write_everything

ABOUT: About = {
    "name": HOSTILE,
    "description": HOSTILE,
    "suites": [(HOSTILE, "hub")],
    "texts": [(HOSTILE, "local", 400, 64)],
    "asked": [("geometry", HOSTILE)],
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with opened(tmp_path_factory.mktemp("profile")) as one:
        yield one


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


def assert_hover_tells_the_value(browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    point = browser.find_element("css selector", "#figure-rankme .mark-symbol.role-mark path")
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", point)
    ActionChains(browser).move_to_element(point).perform()
    wait(browser, "document.querySelector('#vg-tooltip-element.visible')")
    told = browser.find_element("id", "vg-tooltip-element").text
    assert "checkpoint" in told
    assert "RankMe" in told


@pytest.mark.slow
def test_page_in_a_browser(results: Path, browser: Any) -> None:
    synthetic.pico_like(results, steps=STEPS)
    # A long name without a space is what breaks a narrow page.
    synthetic.trajectory(results, FALL, model=f"{HOSTILE}{'x' * 60}", steps=STEPS)
    failure = {**synthetic.keys("head", "pico-64", 1), "message": "y" * 300, "kind": "head"}
    synthetic.write(results, "failures", [failure])
    path = Path(report.render(results, "pico", about=ABOUT))
    for scheme in ("light", "dark"):
        for width in (1280, 390, 360):
            show(browser, path.as_uri(), scheme, width)
            assert browser.execute_script(FAULTS) == []
            drawings = browser.execute_script("return document.querySelectorAll('.drawing').length")
            assert drawings == 11
            ground = browser.execute_script(
                "return getComputedStyle(document.body).backgroundColor"
            )
            assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
            assert browser.get_log("browser") == []
    show(browser, path.as_uri())
    assert_hover_tells_the_value(browser)
    browser.execute_script("document.querySelector('input[value=tokens]').click()")
    title = "document.querySelector('#figure-rankme svg').textContent"
    wait(browser, f"{title}.includes('training tokens (log scale; linear below 1,024)')")
    assert_rows_can_be_downloaded(browser, results.parent)
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_everything_can_be_reached_with_the_keyboard(results: Path, browser: Any) -> None:
    synthetic.pico_like(results, steps=STEPS)
    write_everything(results)
    show(browser, Path(report.render(results, "pico", about=ABOUT)).as_uri())
    assert browser.execute_script(FAULTS) == []
    wanted = browser.execute_script(REACHABLE)
    assert len(wanted) > 40
    met = tabbed(browser, len(wanted) + 5)
    assert [place for place in met if place] == wanted
    folded = browser.find_element("css selector", "details > summary")
    folded.send_keys("\ue007")
    wait(browser, "document.querySelector('details').open")


@pytest.mark.slow
def test_poor_and_hostile_results_give_pages(tmp_path: Path, browser: Any) -> None:
    for make, said in EDGES:
        results = synthetic.start(tmp_path / make.__name__)
        make(results)
        path = Path(report.render(results, HOSTILE, about=ABOUT))
        for width in (1280, 360):
            show(browser, path.as_uri(), width=width)
            # An alert would stop this, and is an error.
            assert browser.execute_script(FAULTS) == [], make.__name__
            text = browser.execute_script("return document.body.innerText")
            assert said in text, make.__name__
            assert browser.title == f"Eigentrace: {HOSTILE}"
            foreign = "return document.querySelectorAll('img, script[src], body script').length"
            figures = "return document.querySelectorAll('figure').length"
            own = 3 if browser.execute_script(figures) else 0
            assert browser.execute_script(foreign) == own, make.__name__
            assert browser.get_log("browser") == [], make.__name__
