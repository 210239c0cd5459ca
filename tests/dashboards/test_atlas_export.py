"""Exports: they load with `datasets`, tell nothing of machines, and replace nothing else."""

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from dashboards import atlas_export
from dashboards.atlas import Atlas
from dashboards.atlas_export import MARKER, export
from dashboards.query import load, merge
from jobs.errors import StoreError, UsageError
from tests.dashboards import synthetic

PRIVATE = ("carol", "gpu-7", "10.1.2.3", "4242", "/home", "worker.log")
PROVENANCE = {
    "eigentrace": "0.1.0",
    "python": "3.11.9",
    "libraries": {"torch": "2.13.0"},
    "device": "NVIDIA H100 80GB HBM3",
    "dtype": "bfloat16",
    "threads": 2,
    "seconds": 1.5,
    "node": "10.1.2.3",
    "host": "gpu-7.lab.example",
    "pid": 4242,
    "log": "/home/carol/ray/worker.log",
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of someone whose paths are in every place where paths may get to."""
    results = synthetic.start(tmp_path / "carol" / "results")
    key = synthetic.keys("checkpoints", "/home/carol/models/tiny", 512, suite="/home/carol/runs")
    synthetic.write(
        results,
        "checkpoints",
        [{**key, "weights_sha256": "a" * 64, "refused": False,
          "finding": "see http://gpu-7.lab.example:8000/home/carol",
          "weight_profile": [0.5, -math.inf]}],
        provenance=PROVENANCE,
    )  # fmt: skip
    row = {**key, "cell_id": synthetic.cell_id("geometry"), "dataset": "/home/carol/text.txt",
           "layer": -1, "rankme": 20.5, "spectrum": [1.0, 0.25, 1e-300]}  # fmt: skip
    synthetic.write(results, "geometry", [row], provenance=PROVENANCE)
    failed = {**key, "cell_id": synthetic.cell_id("failed"), "kind": "evals", "cause": "data",
              "message": "cannot read /home/carol/x on gpu-7", "attempts": 1,
              "traceback": "File /home/carol/eigentrace"}  # fmt: skip
    synthetic.write(results, "failures", [failed], provenance=PROVENANCE)
    said = {**key, "cell_id": synthetic.cell_id("generations"), "prompt": 'Once "upon,\n a time',
            "text": "", "generated_tokens": 0}  # fmt: skip
    synthetic.write(results, "generations", [said], provenance=PROVENANCE)
    (results / "report.html").write_text("<title>Eigentrace: my &amp; study</title>")
    return results


@pytest.fixture
def atlas(results: Path) -> Atlas:
    return merge(results)


def front_matter(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return found


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_datasets_loads_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    import datasets

    results = synthetic.pico_like(tmp_path / "results", steps=(0, 2, 64))
    folder = tmp_path / "out" / "atlas"
    written = export(merge(results), folder, form, "cc-by-4.0")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert sorted(written) == ["checkpoints", "evals", "geometry", "head", "influences"]
    for table, count in written.items():
        rows = datasets.load_dataset(
            str(folder), table, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert rows.num_rows == count == load(table, results).num_rows
    rows = datasets.load_dataset(
        str(folder), "geometry", split="train", cache_dir=str(tmp_path / "cache")
    )
    own = load("geometry", results).to_pylist()
    assert [row["rankme"] for row in rows] == [row["rankme"] for row in own]
    spectrum = rows[0]["spectrum"]
    assert (json.loads(spectrum) if form == "csv" else spectrum) == own[0]["spectrum"]


def test_parquet_keeps_lists_units_and_definitions(atlas: Atlas, tmp_path: Path) -> None:
    export(atlas, tmp_path / "out", "parquet", "cc-by-4.0")
    geometry = pq.read_table(tmp_path / "out" / "geometry.parquet")
    assert geometry["spectrum"].to_pylist() == [[1.0, 0.25, 1e-300]]
    assert geometry.schema.field("tokens").metadata[b"unit"] == b"tokens"
    assert b"entropy" in geometry.schema.field("rankme").metadata[b"definition"]


def test_csv_holds_lists_as_json_and_texts_as_they_are(atlas: Atlas, tmp_path: Path) -> None:
    export(atlas, tmp_path / "out", "csv", "cc-by-4.0")
    with (tmp_path / "out" / "checkpoints.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert json.loads(row["weight_profile"]) == [0.5, "-Infinity"]
    assert json.loads(row["also_known_as"] or "null") is None
    assert (row["step"], row["refused"]) == ("512", "false")
    with (tmp_path / "out" / "generations.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["prompt"], row["text"]) == ('Once "upon,\n a time', "")


def test_every_number_has_a_json_text() -> None:
    values = [1.5, math.nan, math.inf, -math.inf, None]
    found = json.loads(atlas_export._json(values) or "", parse_constant=pytest.fail)
    assert found == [1.5, "NaN", "Infinity", "-Infinity", None]
    assert [float(value) for value in found[2:4]] == [math.inf, -math.inf]
    assert np.isnan(float(found[1]))
    assert atlas_export._json(["é", None]) == '["é", null]'
    assert atlas_export._json(None) is None


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_nothing_tells_of_machines_or_people(atlas: Atlas, tmp_path: Path, form: Any) -> None:
    folder = tmp_path / "out"
    export(atlas, folder, form, "cc-by-4.0")
    said = [(folder / name).read_text() for name in ("README.md", MARKER)]
    for path in folder.glob(f"*.{form}"):
        if form == "csv":
            said.append(path.read_text())
        else:
            said += [str(pq.read_table(path).to_pydict()), str(pq.read_metadata(path).metadata)]
    # Every private word is there to be found.
    whole = str([rows.to_pylist() for rows in atlas.tables.values()]) + str(atlas.provenance)
    for word in PRIVATE:
        assert word in whole
        assert not [text for text in said if word in text], word
    assert any("tiny" in text for text in said)


def test_the_card_says_where_the_rows_are_from(atlas: Atlas, tmp_path: Path) -> None:
    export(atlas, tmp_path / "out", "parquet", "cc-by-4.0")
    card = (tmp_path / "out" / "README.md").read_text()
    matter = front_matter(tmp_path / "out")
    assert matter["license"] == "cc-by-4.0"
    assert [c["config_name"] for c in matter["configs"]] == [
        "checkpoints",
        "geometry",
        "generations",
    ]
    assert "- libraries torch: 2.13.0" in card
    assert "- device: NVIDIA H100 80GB HBM3" in card
    assert "- evals, data: 1" in card
    assert r"Studies: my & study." in card
    assert "No license was chosen yet" not in card
    assert "## Conflicts\n\nNone." in card
    rankme = next(line for line in card.splitlines() if line.startswith("| `rankme` |"))
    assert "exp of the entropy" in rankme
    assert {line.count(" | ") for line in card.splitlines() if line.startswith("| `")} == {3}


def test_definitions_with_bars_stay_in_their_cells(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path / "results")
    synthetic.head(results, "pico-64", 512, 0.3)
    export(merge(results), tmp_path / "out", "parquet", "unknown")
    card = (tmp_path / "out" / "README.md").read_text()
    assert r"mean of \|cos\| over all pairs of rows" in card
    assert "No license was chosen yet" in card
    assert front_matter(tmp_path / "out")["license"] == "unknown"


def test_conflicts_are_published_and_told(tmp_path: Path) -> None:
    for name, cv in (("alice", 0.3), ("bob", 0.4)):
        results = synthetic.start(tmp_path / name)
        synthetic.head(results, "pico-64", 512, cv)
        synthetic.head(results, "pico-64", 256, 0.2)
    synthetic.head(tmp_path / "bob", "pico-64", 1024, 0.5)
    atlas = merge(tmp_path / "alice", tmp_path / "bob", names=["alice", "bob"])
    assert export(atlas, tmp_path / "out", "parquet", "odc-by")["conflicts"] == 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| values | `head` | `norm_cv` |" in card
    assert "0.3; 0.4" in card
    assert "- alice: 2 rows\n- bob: 3 rows" in card
    listed = pq.read_table(tmp_path / "out" / "conflicts.parquet")
    assert listed["values"].to_pylist() == [["0.3", "0.4"]]


def test_an_export_is_replaced_and_nothing_else_is(atlas: Atlas, tmp_path: Path) -> None:
    folder = tmp_path / "there" / "out"
    export(atlas, folder, "csv", "cc-by-4.0")
    export(atlas, folder, "parquet", "cc-by-4.0")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "checkpoints.parquet",
        MARKER,
        "generations.parquet",
        "geometry.parquet",
    ]
    for name, text in (("notes.txt", "mine"), ("README.md", "my own card")):
        before = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text(text)
        with pytest.raises(StoreError, match=name):
            export(atlas, folder, "parquet", "cc-by-4.0")
        assert (folder / name).read_text() == text
        if before is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(before)
    export(atlas, folder, "parquet", "cc-by-4.0")
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_places_that_hold_something_else(atlas: Atlas, results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", results):
        with pytest.raises(StoreError, match="--to"):
            export(atlas, place, "parquet", "cc-by-4.0")
    assert load("geometry", results).num_rows == 1
    (tmp_path / "empty").mkdir()
    export(atlas, tmp_path / "empty", "parquet", "cc-by-4.0")
    for license_id in ("CC BY 4.0", "", "x\ny"):
        with pytest.raises(UsageError, match="no identifier of a license"):
            export(atlas, tmp_path / "other", "parquet", license_id)
    assert not (tmp_path / "other").exists()


def test_what_fails_half_way_leaves_what_was_there(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "there" / "out"
    export(atlas, folder, "parquet", "cc-by-4.0")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as broken:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        broken.setattr(atlas_export, "_parquet", full)
        with pytest.raises(StoreError, match="No space left on device"):
            export(atlas, folder, "parquet", "cc-by-4.0")
    with monkeypatch.context() as broken:
        real = os.rename

        def once(source: Any, target: Any) -> None:
            if str(source).endswith(".tmp"):
                raise OSError(13, "Permission denied")
            real(source, target)

        broken.setattr(Path, "rename", lambda self, target: once(self, target))
        with pytest.raises(StoreError, match="Permission denied"):
            export(atlas, folder, "parquet", "cc-by-4.0")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_a_link_to_a_folder_stays_a_link(atlas: Atlas, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export(atlas, tmp_path / "link", "parquet", "cc-by-4.0")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / MARKER).is_file()


def test_the_report_has_the_title_that_is_read() -> None:
    template = Path(atlas_export.__file__).with_name("report.html.j2").read_text()
    assert "<title>Eigentrace: {{ study }}</title>" in template[:4096]
