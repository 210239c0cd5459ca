"""The report as the command line draws it: of which study, as figures, and served during a run."""

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.about import existing_digest, existing_study
from jobs.place import Place
from jobs.study import load_study, shipped_studies
from orchestrator.report_command import about_study, report
from tests.dashboards import synthetic
from tests.dashboards.chromium import FAULTS, opened, show, wait
from tests.orchestrator.local_study import ROOT, environment, run_here


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = synthetic.start(tmp_path / "results")
    synthetic.trajectory(folder, (43.0, 42.0, 30.0), steps=(0, 1, 8))
    return folder


def test_the_study_stands_on_the_page_and_is_kept(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("report", "--results", str(results))
    run_here(capsys, *asked)
    assert existing_study(results) == ("pico", None)
    assert 'id="study"' not in (results / "report.html").read_text()
    run_here(capsys, *asked, "--study", "smoke", "--set", "datasets.heldout.sequences=77")
    page = (results / "report.html").read_text()
    for part in ("One tiny model and every measurement", "Spectra of the features", ">77<"):
        assert part in page
    name, about = existing_study(results)
    assert (name, about and about["name"]) == ("smoke", "smoke")
    run_here(capsys, *asked)
    assert existing_study(results) == (name, about)
    assert run_here(capsys, *asked, "--set", "geometry.layers=all").code == 2


@pytest.mark.parametrize("name", shipped_studies())
def test_every_study_can_be_told(name: str) -> None:
    about = about_study(load_study(name))
    assert about["name"] == name
    assert about["suites"] or [asked for asked, _ in about["asked"]] == ["toy"]
    assert about["asked"]
    assert all(what for _, what in about["asked"])


def test_a_report_of_these_very_results_is_not_drawn_again(results: Path) -> None:
    study, place = load_study("smoke"), Place(results)
    page = Path(report(place, study)["report"])
    before, digest = page.stat().st_mtime_ns, existing_digest(results)
    report(place, study)
    assert page.stat().st_mtime_ns == before
    synthetic.head(results, "pico-64", 8, 0.2)
    report(place, study)
    assert existing_digest(results) != digest
    digest = existing_digest(results)
    report(place, load_study("smoke", ["datasets.heldout.sequences=77"]))
    assert existing_digest(results) != digest


def test_figures_are_saved_beside_the_report(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("report", "--results", str(results), "--format", "svg")
    outcome = run_here(capsys, *asked)
    assert {Path(path).parent for path in outcome.last["figures"]} == {results / "figures"}
    assert not (results / "report.html").exists()
    out = tmp_path / "out"
    outcome = run_here(capsys, *asked, "--figure", "rankme", "--out", str(out), "--width", "17.4")
    assert outcome.last["figures"] == [str(out / "rankme.svg")]
    assert 'width="17' in (out / "rankme.svg").read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--format", "svg", "--figure", "rankm"], "did you mean 'rankme'"),
        (["--format", "svg", "--watch"], "--watch is nothing for --format svg"),
        (["--figure", "rankme"], "--figure is nothing for --format html"),
        (["--port", "8000"], "--port is for --watch alone"),
        (["--watch", "--port", "65536"], "65536 is not a port"),
        (["--format", "svg", "--width", "1"], "1 is not a width from 4 to 100 cm"),
        (["--study", "smok"], "did you mean 'smoke'"),
    ],
)
def test_options_that_do_not_go_together_are_mistakes(
    results: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    outcome = run_here(capsys, "report", "--results", str(results), *given)
    assert outcome.code == 2
    assert said in outcome.err


@pytest.fixture
def watch(results: Path) -> Iterator[tuple[Any, str]]:
    """A watch at work on the results, and where it serves."""
    command = ("-m", "orchestrator.run", "report", "--watch", "--results", str(results))
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(
        [sys.executable, "-u", *command], text=True, cwd=ROOT, env=environment(), **pipes
    )
    try:
        told = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", told)):
            line = process.stdout.readline() if process.stdout else ""
            assert line, told
            told += line
        yield process, found[0]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_watched_page_follows_the_results(
    results: Path, tmp_path: Path, watch: tuple[Any, str], capsys: pytest.CaptureFixture[str]
) -> None:
    process, url = watch
    port = url.rstrip("/").rpartition(":")[2]
    taken = run_here(capsys, "report", "--watch", "--results", str(results), "--port", port)
    assert (taken.code, f"cannot listen on 127.0.0.1:{port}" in taken.err) == (2, True)
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read().decode().startswith("<!doctype html>")
    assert "<script" in (results / "report.html").read_text()
    assert 'fetch("digest"' not in (results / "report.html").read_text()
    with opened(tmp_path / "profile") as browser:
        show(browser, url)
        assert browser.execute_script(FAULTS) == []
        wait(browser, "document.getElementById('live').textContent.includes('anew')")
        rows = "document.querySelectorAll('#all-checkpoints tr, [aria-labelledby=checkpoints] tr')"
        before = browser.execute_script(f"return {rows}.length")
        at = "document.getElementById('papers').getBoundingClientRect().top"
        browser.execute_script("document.getElementById('papers').scrollIntoView()")
        assert abs(browser.execute_script(f"return {at}")) <= 1
        assert browser.execute_script("return scrollY") > 1000
        synthetic.geometry(results, "pico-64", 32, 25.0)
        wait(browser, f"{rows}.length === {before + 1}")
        wait(browser, f"Math.abs({at}) <= 1")
        assert browser.get_log("browser") == []
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        wait(browser, "document.getElementById('live').textContent.includes('Nobody serves')")
    assert '"code": 0' in process.stdout.read()
