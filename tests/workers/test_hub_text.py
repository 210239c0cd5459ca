"""Texts from the hub: the same draws as from a file, and what is said where they can't be had."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import DataError
from jobs.streams import HubStream
from jobs.text_spec import Sequences
from tests.conftest import Texts
from tests.hub.client import no_waiting
from tests.hub.server import LocalHub
from tests.workers.drawing import drawn_from, files
from workers.hub_text import streamed_documents

NAME = "org/texts"
CARD = b"""---
configs:
- config_name: small
  data_files: small/*.jsonl
- config_name: large
  data_files:
  - {split: train, path: large.jsonl}
  - {split: test, path: rest.jsonl}
---
"""


def parquet(documents: list[str | None]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": documents}), sink, row_group_size=16)
    return sink.getvalue()


def jsonl(documents: list[str]) -> bytes:
    return "".join(
        json.dumps({"text": d, "id": n}) + "\n" for n, d in enumerate(documents)
    ).encode()


def stream(commit: str, documents: int = 1000, **more: Any) -> HubStream:
    about = {"config": None, "split": "train", "field": "text", **more}
    return HubStream(repository=NAME, commit=commit, documents=documents, **about)


def read(commit: str, documents: int = 1000, **more: Any) -> list[str]:
    return streamed_documents(stream(commit, documents, **more), lambda _done, _total: None)


FORMATS: dict[str, Callable[[list[str]], dict[str, bytes]]] = {
    "parquet": lambda d: {"data/train-00000-of-00001.parquet": parquet([*d])},
    "two parquet files": lambda d: {
        "data/train-00000-of-00002.parquet": parquet([*d[:50]]),
        "data/train-00001-of-00002.parquet": parquet([*d[50:]]),
    },
    "jsonl": lambda d: {"train.jsonl": jsonl(d)},
    "jsonl.gz": lambda d: {"train.jsonl.gz": gzip.compress(jsonl(d), mtime=0)},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mode", ["document", "packed"])
def test_draws_are_those_of_a_file_with_the_same_documents(
    local_hub: LocalHub, texts: Texts, tokenizer: Path, tmp_path: Path, form: str, mode: Any
) -> None:
    commit = local_hub.dataset(NAME).commit("main", FORMATS[form](list(texts.documents)))
    local_hub.dataset(NAME).commit("main", FORMATS[form](["a later commit"]))
    first = tmp_path / "first.jsonl"
    first.write_text("".join(texts.jsonl.read_text().splitlines(keepends=True)[:60]))
    draw = Sequences(sequences=30, sequence_length=16, mode=mode, seed=3)
    columns, drawn = drawn_from(stream(commit, 60), draw, tokenizer, tmp_path / "hub")
    expected, _ = drawn_from(files(first), draw, tokenizer, tmp_path / "file")
    assert columns == expected
    assert columns["documents"] == 60
    assert len(drawn) == 30


def test_documents_are_the_first_ones_and_nothing_is_empty(local_hub: LocalHub) -> None:
    rows: list[str | None] = [f"document {n}" if n % 5 else None for n in range(1000)]
    commit = local_hub.dataset(NAME).commit("main", {"train.parquet": parquet(rows)})
    seen: list[tuple[int, int]] = []
    read = streamed_documents(stream(commit, 700), lambda done, total: seen.append((done, total)))
    assert read == [row for row in rows[:700] if row is not None]
    assert seen == [(256, 700), (512, 700)]


def test_subsets_and_splits_are_chosen_by_name(local_hub: LocalHub) -> None:
    commit = local_hub.dataset(NAME).commit(
        "main",
        {
            "README.md": CARD,
            "small/a.jsonl": jsonl(["small"]),
            "large.jsonl": jsonl(["large"]),
            "rest.jsonl": jsonl(["rest"]),
        },
    )
    assert read(commit, config="small") == ["small"]
    assert read(commit, config="large") == ["large"]
    assert read(commit, config="large", split="test") == ["rest"]
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"config": "huge"}, "org/texts has no config 'huge', only small, large → give .*`config`"),
        ({}, "org/texts has several configs: small, large → give the dataset's `config`"),
        ({"config": "large", "split": "dev"}, "has no split 'dev', only train, test → give"),
        ({"config": "small", "field": "body"}, "has no field 'body', only text, id → give"),
        ({"config": "large", "field": "id"}, "field 'id' holds int, not text → give"),
    )
    for more, message in mistakes:
        with pytest.raises(DataError, match=message):
            read(commit, **more)


def test_a_folder_of_the_same_name_is_not_the_dataset(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = local_hub.dataset(NAME).commit("main", {"train.jsonl": jsonl(["from the hub"])})
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / NAME / "train.jsonl").write_bytes(jsonl(["from the disk"]))
    monkeypatch.chdir(tmp_path)
    assert read(commit) == ["from the hub"]


def test_code_is_never_run(local_hub: LocalHub, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    script = f"open({str(proof)!r}, 'w')".encode()
    commit = local_hub.dataset(NAME).commit(
        "main", {"texts.py": script, "train.jsonl": jsonl(["x"])}
    )
    with pytest.raises(DataError, match=r"scripts are no longer supported.* → see its page"):
        read(commit)
    assert not proof.exists()


def test_what_cannot_be_had_is_said(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = local_hub.dataset(NAME)
    commit = repository.commit("main", {"train.jsonl": b'{"text": "x"}\n{"text": \n'})
    with pytest.raises(DataError, match=f"{NAME} at {commit[:8]} cannot be read"):
        read(commit)
    with pytest.raises(DataError, match=r"Revision 'ffff.*' doesn't exist"):
        read("f" * 40)
    commit = repository.commit("main", {"train.jsonl": jsonl(["x"])})
    repository.gate("secret-token")
    with pytest.raises(DataError, match=r"is a gated dataset.* → .*set HF_TOKEN on every node"):
        read(commit)
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    assert read(commit) == ["x"]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_passes_is_survived(
    local_hub: LocalHub, texts: Texts, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    documents = list(texts.documents) * 20
    commit = local_hub.dataset(NAME).commit("main", FORMATS[form](documents))
    waits = no_waiting(monkeypatch)
    local_hub.faults.refuse("/api/*", 500, times=2)
    local_hub.faults.refuse("*/resolve/*/*train*", 429, times=2, retry_after=1)
    local_hub.faults.cut("*/resolve/*/*train*", 1000, times=2)
    pauses: list[float] = []
    read = streamed_documents(stream(commit, 1500), lambda _done, _total: None, pauses.append)
    assert read == documents[:1500]
    assert pauses
    assert waits


def test_a_hub_that_is_away_is_no_fault_of_the_data(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = local_hub.dataset(NAME).commit("main", {"train.jsonl": jsonl(["x"])})
    no_waiting(monkeypatch)
    local_hub.faults.refuse("*", 503, times=None)
    pauses: list[float] = []
    with pytest.raises(OSError, match="org/texts cannot be streamed from the hub: "):
        streamed_documents(stream(commit), lambda _done, _total: None, pauses.append)
    assert pauses == [1, 4]
    local_hub.close()
    with pytest.raises(OSError, match="org/texts cannot be streamed from the hub: "):
        streamed_documents(stream(commit), lambda _done, _total: None, pauses.append)


def test_few_documents_cost_few_bytes(local_hub: LocalHub) -> None:
    # As the public corpora are: row groups that are small beside the file, which doesn't shrink.
    noise = [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" * 128 for n in range(20_000)]
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"text": noise}),
        sink,
        row_group_size=500,
        compression="none",
        use_dictionary=False,
    )
    commit = local_hub.dataset(NAME).commit("main", {"train.parquet": sink.getvalue()})
    assert len(sink.getvalue()) > 40_000_000
    assert read(commit, 100) == noise[:100]
    assert local_hub.sent() < 25_000_000
