"""Rows as the page carries them: shorter, and the same."""

import json
import math
from typing import Any

import pytest

from dashboards.page_data import packed, unpacked

ROWS: list[dict[str, Any]] = [
    {"label": "a", "step": step, "value": 1 / (step + 3), "flag": step == 2, "kind": "line"}
    for step in range(12)
]


def test_rows_come_back() -> None:
    back = unpacked(json.loads(json.dumps(packed(ROWS), allow_nan=False)))
    assert len(back) == len(ROWS)
    for row, found in zip(ROWS, back, strict=True):
        assert {**row, "value": found["value"]} == found
        assert found["value"] == pytest.approx(row["value"], rel=5e-6)


def test_equal_values_are_said_once_and_repeated_texts_are_counted() -> None:
    rows = [{"label": f"model {n % 2}", "suite": "pico", "n": n} for n in range(100)]
    columns = packed(rows)["columns"]
    assert columns["suite"] == {"same": "pico"}
    assert columns["label"]["distinct"] == ["model 0", "model 1"]
    assert columns["n"] == {"values": list(range(100))}
    assert len(json.dumps(packed(rows))) < len(json.dumps(rows)) / 4


def test_truth_is_not_taken_for_a_number() -> None:
    values = [True, 1, 0, False]
    back = unpacked(packed([{"x": value} for value in values]))
    assert [type(row["x"]) for row in back] == [bool, int, int, bool]


def test_what_is_missing_or_not_finite_is_null() -> None:
    back = unpacked(packed([{"x": math.nan}, {"x": math.inf, "y": 2}, {}]))
    assert back == [{"x": None, "y": None}, {"x": None, "y": 2}, {"x": None, "y": None}]


def test_whole_numbers_keep_all_digits() -> None:
    (row,) = unpacked(packed([{"tokens": 299_892_736_001}]))
    assert row["tokens"] == 299_892_736_001


def test_no_rows() -> None:
    assert unpacked(packed([])) == []
