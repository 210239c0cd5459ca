"""The report page: complete, offline, escaped, useful on poor data."""

import html
import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.report import write_results
from dashboards import report
from dashboards.page_data import unpacked
from jobs.errors import StoreError
from tests.dashboards import synthetic

FALL = (43.0, 42.0, 30.0, 10.0, 25.0, 44.0)
STEPS = (0, 1, 8, 32, 128, 512)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def rendered(results: Path) -> str:
    return Path(report.render(results, "a study")).read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Collects the start tags and the text of a page, scripts apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self.inside == "script" else self.text).append(data)


def test_identical_weights_are_flagged(results: Path) -> None:
    for step, weights in ((0, "a" * 64), (1, "a" * 64), (2, "b" * 64)):
        key = synthetic.keys("checkpoints", "pico-64", step)
        synthetic.write(results, "checkpoints", [{**key, "weights_sha256": weights}])
    page = rendered(results)
    assert page.count("same weights as") == 2
    assert page.count(f"<code>{'a' * 12}</code>") == 2


def test_failures_are_listed_until_their_cell_is_done(results: Path) -> None:
    failure = {
        **synthetic.keys("head", "pico-64", 4),
        "kind": "head",
        "cause": "data",
        "attempts": 1,
        "message": "row 7 has norm zero",
        "remedy": "set head.drop_zero_rows",
    }
    synthetic.write(results, "failures", [failure])
    page = rendered(results)
    for part in ("1 cell failed", "row 7 has norm zero", "set head.drop_zero_rows"):
        assert part in page
    synthetic.head(results, "pico-64", 4, 0.06)
    assert "row 7 has norm zero" not in rendered(results)


def test_provenance_shows_distinct_values_and_adds_times(results: Path) -> None:
    for step, device in ((0, "cpu"), (1, "cuda"), (2, "cpu")):
        record = {"device": device, "libraries": {"torch": "2.13.0"}, "seconds": 1.5}
        key = synthetic.keys("head", "pico-64", step)
        synthetic.write(results, "head", [{**key, "norm_cv": 0.1}], provenance=record)
    text = " ".join(Elements(rendered(results)).text)
    assert "cpu, cuda" in text
    assert re.search(r"libraries\.torch\s+2\.13\.0", text)
    assert "4.5" in text


def test_missing_parts_are_said(results: Path) -> None:
    synthetic.trajectory(results, FALL, steps=STEPS)
    page = rendered(results)
    assert "No head rows yet" in page
    assert "No loss rows yet" in page
    assert "No geometry rows yet" not in page


def test_names_stay_text(results: Path) -> None:
    synthetic.trajectory(results, FALL, model=HOSTILE, steps=STEPS)
    synthetic.head(results, HOSTILE, 0, 0.06)
    failure = {**synthetic.keys("head", HOSTILE, 1), "message": HOSTILE, "remedy": '"><img src=x>'}
    synthetic.write(results, "failures", [failure], provenance={HOSTILE: HOSTILE})
    clean = synthetic.start(results.parent / "clean")
    synthetic.trajectory(clean, FALL, steps=STEPS)
    page = Path(report.render(results, HOSTILE, digest=f'"{HOSTILE}')).read_text(encoding="utf-8")
    elements = Elements(page)
    scripts = [tag for tag, _ in elements.tags if tag == "script"]
    assert len(scripts) == [tag for tag, _ in Elements(rendered(clean)).tags].count("script")
    assert not [tag for tag, _ in elements.tags if tag == "img"]
    assert HOSTILE in "".join(elements.text)
    assert HOSTILE not in page
    specs = json.loads(elements.scripts[0])
    assert unpacked(specs["rankme"]["data"])[0]["label"] == HOSTILE


def test_page_loads_nothing_from_elsewhere(results: Path) -> None:
    page = rendered(synthetic.pico_like(results, steps=STEPS))
    elements = Elements(page)
    for tag, attributes in elements.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), (tag, name, target)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policy = next(a["content"] for t, a in elements.tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "http" not in re.sub("(<script.*?</script>|http-equiv)", "", page, flags=re.DOTALL)


def test_page_is_small_and_written_at_once(results: Path) -> None:
    path = Path(report.render(synthetic.pico_like(results, steps=STEPS), "pico"))
    assert path == results / "report.html"
    assert path.stat().st_size < 5_000_000
    names = {entry.name for entry in results.iterdir() if entry.is_file()}
    assert names == {"report.html", "eigentrace.json"}


def test_every_figure_has_a_heading_and_words(results: Path) -> None:
    elements = Elements(rendered(synthetic.pico_like(results, steps=STEPS)))
    drawings = [a for tag, a in elements.tags if a.get("role") == "img"]
    assert len(drawings) == 11
    assert all(len(a["aria-label"] or "") > 80 for a in drawings)
    figures = [a for tag, a in elements.tags if tag == "figure"]
    names = {a["id"] for _, a in elements.tags if "id" in a}
    for attributes in figures:
        assert {attributes["aria-labelledby"], attributes["aria-describedby"]} <= names
    assert [tag for tag, _ in elements.tags].count("h1") == 1


def test_equal_results_give_equal_pages(results: Path) -> None:
    synthetic.trajectory(results, FALL, steps=STEPS)
    assert rendered(results) == rendered(results)


def test_digest_is_read_back(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "page.html"
    assert report.existing_digest(out.parent, out.name) is None
    for digest in ("0f" * 32, 'a "quoted" & <odd> one'):
        assert report.render(results, "pico", out=out, digest=digest) == str(out)
        assert report.existing_digest(out.parent, out.name) == digest
    report.render(results, "pico", out=out)
    assert report.existing_digest(out.parent, out.name) is None
    out.write_bytes(b"\xff\xfe\x00")
    assert report.existing_digest(out.parent, out.name) is None


def test_nothing_measured_still_gives_a_page(results: Path) -> None:
    page = html.unescape(rendered(results))
    assert "Nothing was measured yet" in page
    assert "No geometry rows yet" in page
    assert "No checkpoint was measured yet" in page
    assert "<script" not in page


def test_only_failures_still_give_a_page(results: Path) -> None:
    failure = {**synthetic.keys("geometry", "pico-64", 1), "message": "out of memory"}
    synthetic.write(results, "failures", [failure, {**failure, "row": 1}])
    page = rendered(results)
    assert "2 cells failed" in page
    assert "out of memory" in page


def test_one_checkpoint_and_values_that_are_not_finite(results: Path) -> None:
    synthetic.geometry(results, "pico-64", None, 20.0, alpha_req=None)
    synthetic.geometry(results, "bad", 1, math.nan, rankme_se=math.inf, alpha_req=math.inf)
    page = rendered(results)
    assert "the only checkpoint that was measured" in page
    assert "not finite" in page
    assert "NaN" not in "".join(Elements(page).scripts[:1])


def test_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        report.render(tmp_path, "pico")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_time_of_many_checkpoints(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = (0, *(2**power for power in range(9)), *range(512, 512 + 30 * 256, 256))
    synthetic.pico_like(results, steps=steps)
    begin = time.perf_counter()
    path = Path(report.render(results, "pico"))
    seconds = time.perf_counter() - begin
    with capsys.disabled():
        print(f"\nreport of {len(steps)} checkpoints × 2 models: {seconds:.2f} s")
    assert path.read_text(encoding="utf-8").count("<tr>") > 2 * len(steps)


def test_many_checkpoints_by_many_layers_stay_a_small_page(results: Path) -> None:
    write_results(results, checkpoints=60, layers=33, sequences=20)
    path = Path(report.render(results, "many"))
    assert path.stat().st_size < 5_000_000
    drawings = json.loads(Elements(path.read_text(encoding="utf-8")).scripts[0])
    assert drawings["layers-rankme-0"]["data"]["n"] == 60 * 33
    assert drawings["rankme"]["data"]["n"] == 60
