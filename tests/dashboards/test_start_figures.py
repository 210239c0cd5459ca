"""Losses of answers and win rates by the checkpoint that tuning began from."""

import json
from pathlib import Path

import pytest
import vl_convert

from dashboards.figures import Figure
from dashboards.posttrain_read import read_posttrained
from dashboards.start_figures import start_figures
from dashboards.tables import read
from tests.dashboards import synthetic
from tests.dashboards.posttrain_scenarios import write_geometry, write_log

STARTS = (100, 200, 400)
SEEDS = (0, 7, 8)


def write_losses(results: Path) -> None:
    """Writes chains from three checkpoints with three seeds each, and two losses at their ends."""
    for place, start in enumerate(STARTS):
        base = synthetic.keys("begin", "pico-64", start)
        write_geometry(results, base, 40.0 + place)
        for number, seed in enumerate(SEEDS):
            write_log(results, base, "sft", seed, data="hh")
            at = {
                **synthetic.keys("made", f"pico-64@{start}-seed{seed}", 10, suite="tuned"),
                "revision": "sft-step10",
                "stage": "sft",
            }
            values = {"hh-test": 2.0 - 0.1 * place, "alpaca": 2.0 + 0.1 * place}
            synthetic.write(results, "evals", [
                {**at, "cell_id": synthetic.cell_id(at["cell_id"], task), "row": 0, "task": task,
                 "metric": "answer_loss", "value": value + 0.01 * number, "n": 1234}
                for task, value in values.items()
            ])  # fmt: skip


def write_winrates(results: Path, comparison: str, seeds: tuple[int, ...] = SEEDS) -> None:
    for place, start in enumerate(STARTS):
        for seed in seeds:
            model = f"pico-64@{start}-seed{seed}"
            row = {
                **synthetic.keys(f"winrates {comparison}", model, 10, suite="hh"),
                "comparison": comparison,
                "instructions": "alpaca_eval",
                "start_step": start,
                "baseline_suite": "af",
                "judge": "judge-1",
                "win_rate": 14.0 - 2 * place + seed / 10,
                "stderr": 1.0,
                "n": 805,
            }
            synthetic.write(results, "winrates", [row])


def drawn(results: Path) -> dict[str, Figure]:
    measured = read(results)
    found = read_posttrained(measured)
    assert found is not None
    figures = {figure.key: figure for figure in start_figures(measured, found)}
    for figure in figures.values():
        for spec in figure.specs.values():
            shown = {**spec, "width": 300, "datasets": {"rows": list(figure.rows)}}
            assert "NaN" not in vl_convert.vegalite_to_svg(json.dumps(shown))
    return figures


def test_losses_have_the_deviation_of_the_seeds(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    write_losses(results)
    figure = drawn(results)["start-answer-loss"]
    assert {row["label"] for row in figure.rows} == {
        "tuned, loss on hh-test", "tuned, loss on alpaca",
    }  # fmt: skip
    first = next(r for r in figure.rows if r["label"].endswith("hh-test") and r["step"] == 100)
    assert first["value"] == pytest.approx(2.01)
    assert first["deviation"] == pytest.approx(0.01)
    assert (first["n"], first["high"]) == (3, pytest.approx(2.02))
    assert "Trained on: tuned: hh." in figure.caption
    assert "n = 1,234 tokens" in figure.caption


def test_win_rates_fall_by_start_beside_rankme(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    write_losses(results)
    write_winrates(results, "pair")
    write_winrates(results, "last", seeds=(0,))
    figures = drawn(results)
    assert set(figures) == {
        "start-answer-loss", "start-win-rate-pair", "start-win-rate-last",
    }  # fmt: skip
    pair = figures["start-win-rate-pair"]
    assert [row["step"] for row in pair.rows] == list(STARTS)
    assert pair.rows[0]["value"] == pytest.approx(14.5)
    assert pair.rows[0]["start_rankme"] == 40.0
    assert "judged by judge-1" in pair.caption
    last = figures["start-win-rate-last"].rows[0]
    assert (last["deviation"], last["low"], last["high"]) == (None, 13.0, 15.0)


def test_nothing_measured_nothing_drawn(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    write_log(results, synthetic.keys("begin", "pico-64", 100), "sft")
    assert drawn(results) == {}
