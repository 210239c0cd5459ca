"""What was run, beside the tracing paper's settings."""

from pathlib import Path

from dashboards.settings_table import settings_table
from dashboards.tables import read
from tests.dashboards import posttrain_scenarios, synthetic


def here(results: Path) -> dict[tuple[str, str], str]:
    rows = settings_table(read(results)).rows
    return {(table, setting): ours for table, setting, _, ours in rows}


def test_settings_are_read_from_the_rows(tmp_path: Path) -> None:
    results = synthetic.pico_like(tmp_path, steps=(0, 8))
    posttrain_scenarios.write_chain(results, {"sft": 1.0}, seeds=(0, 7), methods=("sft",))
    key = {**synthetic.keys("sequences", "", None), "revision": None, "stage": None}
    chat = {"dataset": "hh", "mode": "chat", "n_sequences": 500, "seq_len": 1024}
    synthetic.write(results, "sequences", [{**key, **chat}])
    found = here(results)
    assert found["Table 5", "Number of sequences"] == "heldout: 1500"
    assert found["Table 5", "Max sequence length"] == "heldout: 64"
    assert found["Table 5", "Batch size"] == "not recorded in the rows"
    assert found["Table 6", "Seeds"] == "0, 7"
    assert found["Table 6", "SFT data"] == "facts"
    assert found["Table 7", "Max sequence length"] == "hh: 1024"
    assert found["Table 8", "Judge"] == "–"


def test_every_table_of_settings_is_there(tmp_path: Path) -> None:
    synthetic.geometry(synthetic.start(tmp_path), "pico-64", 8, 20.0)
    tables = {table for table, _ in here(tmp_path)}
    assert tables == {f"Table {number}" for number in range(3, 9)}


def test_nothing_measured_gives_no_rows(tmp_path: Path) -> None:
    assert settings_table(read(synthetic.start(tmp_path))).rows == ()
