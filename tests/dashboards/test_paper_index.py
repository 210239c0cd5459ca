"""The index of both papers: complete, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from dashboards.paper_index import INDEX, paper_index
from dashboards.published import NORM, TRACING
from dashboards.report import render
from tests.dashboards import finetune_scenarios, posttrain_scenarios, synthetic

FIGURES = {NORM: range(1, 4), TRACING: range(1, 15)}
TABLES = {NORM: range(1, 4), TRACING: range(1, 10)}


def numbers(name: str) -> list[int]:
    found = [int(number) for number in re.findall(r"\d+", name)]
    return list(range(found[0], found[1] + 1)) if " to " in name else found


@pytest.mark.parametrize("paper", [NORM, TRACING])
def test_every_table_and_figure_is_listed_once(paper: str) -> None:
    for word, wanted in (("Figure", FIGURES), ("Table", TABLES)):
        named = [e.name for e in INDEX if e.paper == paper and e.name.startswith(word)]
        assert [number for name in named for number in numbers(name)] == list(wanted[paper])


def test_an_entry_has_parts_or_a_reason() -> None:
    assert all(bool(entry.parts) != bool(entry.reason) for entry in INDEX)


def test_what_is_missing_says_what_would_measure_it() -> None:
    placed = {(p.entry.paper, p.entry.name): p for p in paper_index(["title-overlap"], False)}
    overlaps = placed[NORM, "Figure 1"]
    assert overlaps.places == (("mean", "title-overlap"),)
    assert overlaps.missing == ("spread (needs head)",)
    assert placed[TRACING, "Figure 7"].missing == ("generations (needs generate)",)


def test_the_first_element_that_fits_is_taken() -> None:
    ids = ["title-layers-rankme-0", "title-layers-rankme-1"]
    layers = next(p for p in paper_index(ids, False) if p.entry.name == "Figure 3" and p.places)
    assert layers.places == (("RankMe", "title-layers-rankme-0"),)


def test_small_models_are_asked_for() -> None:
    for small in (False, True):
        placed = paper_index(["title-rankme", "title-alpha-req"], small)
        assert bool(next(p for p in placed if p.entry.name == "Figure 11").places) == small


def test_links_of_a_full_page_lead_somewhere(tmp_path: Path) -> None:
    results = synthetic.pico_like(tmp_path, steps=(0, 8, 64))
    finetune_scenarios.write_everything(results)
    posttrain_scenarios.write_chain(
        results, {"sft": 5.0, "dpo": 3.0, "rlvr": -4.0}, passk=posttrain_scenarios.RISE_AND_CROSS
    )
    synthetic.toy(results, "pico-5", [[1.0, 2.0, 1.5, 1.2]])
    page = Path(render(results, "all")).read_text(encoding="utf-8")
    ids = set(re.findall(r'\bid="([^"]+)"', page))
    section = page[page.index('<section aria-labelledby="papers"') :]
    links = re.findall(r'href="#([^"]+)"', section[: section.index("</section>")])
    assert len(links) > 25
    assert set(links) <= ids
    assert len(re.findall(r'\bid="([^"]+)"', page)) == len(ids)
