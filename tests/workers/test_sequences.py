"""Draws of sequences, against a slow and obvious cutting of the same text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from jobs.columns import KEYS
from jobs.errors import DataError
from jobs.records import TABLES
from jobs.text_spec import Sequences
from tests.conftest import Texts
from tests.workers.drawing import drawn_from, files, lists, shuffled
from tests.workers.models import random_sequences, token_sequences


@pytest.fixture
def special(tiny_series: Path, tmp_path: Path) -> Path:
    """A tokenizer that puts a token before and one after each document."""
    folder = tmp_path / "special"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_series / "step0" / name).read_bytes())
    about = json.loads((folder / "tokenizer.json").read_text())
    about["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("minimum", [1, 20])
@pytest.mark.parametrize("seed", [0, 7])
def test_document_mode(
    texts: Texts, tokenizer: Path, tmp_path: Path, seed: int, minimum: int
) -> None:
    encode = AutoTokenizer.from_pretrained(tokenizer).encode
    expected = []
    for document in shuffled(texts.documents, seed):
        ids = encode(document)[:24]
        if len(ids) >= minimum:
            expected.append(ids)
    draw = Sequences(sequences=40, sequence_length=24, minimum_length=minimum, seed=seed)
    columns, drawn = drawn_from(files(texts.txt), draw, tokenizer, tmp_path / "out")
    assert lists(drawn) == expected[:40]
    assert min(drawn.lengths) >= minimum
    assert set(columns) == set(TABLES["sequences"].names) - {k.name for k in KEYS} - {"dataset"}
    lengths = [len(s) for s in expected[:40]]
    assert columns["n_sequences"] == len(drawn) == 40
    assert columns["seq_len"] == drawn.seq_len == 24
    assert columns["total_tokens"] == sum(lengths)
    assert columns["share_full_length"] == pytest.approx(np.mean([n == 24 for n in lengths]))
    assert drawn.share_full_length == pytest.approx(columns["share_full_length"])
    assert columns["documents"] == len(texts.documents)
    assert columns["sequences_fingerprint"] == drawn.fingerprint


@pytest.mark.parametrize("minimum", [1, 20])
@pytest.mark.parametrize("special_tokens", [True, False])
def test_packed_mode(
    texts: Texts, tokenizer: Path, tmp_path: Path, special_tokens: bool, minimum: int
) -> None:
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    assert loaded.eos_token_id == 0
    stream: list[int] = []
    for document in shuffled(texts.documents, 1):
        ids = loaded.encode(document, add_special_tokens=False)
        if len(ids) >= minimum:
            stream += ids + ([loaded.eos_token_id] if special_tokens else [])
    draw = Sequences(
        sequences=30,
        sequence_length=16,
        mode="packed",
        special_tokens=special_tokens,
        minimum_length=minimum,
        seed=1,
    )
    columns, drawn = drawn_from(files(texts.jsonl), draw, tokenizer, tmp_path / "out")
    assert lists(drawn) == [stream[i * 16 : i * 16 + 16] for i in range(30)]
    assert columns["share_full_length"] == 1
    parameters = {"mode", "special_tokens", "minimum_length", "seed"}
    assert {name: columns[name] for name in parameters} == draw.model_dump(include=parameters)
    assert (0 in drawn.ids) is special_tokens


def test_packed_mode_uses_the_text_to_its_last_whole_piece(
    texts: Texts, tokenizer: Path, tmp_path: Path
) -> None:
    encode = AutoTokenizer.from_pretrained(tokenizer).encode
    total = sum(len(encode(d)) + 1 for d in texts.documents)
    draw = Sequences(sequences=total // 50, sequence_length=50, mode="packed")
    assert len(drawn_from(files(texts.txt), draw, tokenizer, tmp_path / "out")[1]) == total // 50
    more = draw.model_copy(update={"sequences": total // 50 + 1})
    with pytest.raises(DataError, match=f"only {total // 50} of {total // 50 + 1} sequences"):
        drawn_from(files(texts.txt), more, tokenizer, tmp_path / "more")


@pytest.mark.parametrize("mode", ["document", "packed"])
def test_a_draw_repeats_itself_and_a_smaller_one_is_its_prefix(
    texts: Texts, tokenizer: Path, tmp_path: Path, mode: Any
) -> None:
    draws = {
        name: drawn_from(
            files(file),
            Sequences(sequences=count, sequence_length=20, mode=mode, seed=seed),
            tokenizer,
            tmp_path / name,
        )
        for name, file, count, seed in (
            ("one", texts.txt, 60, 0),
            ("again", texts.jsonl, 60, 0),
            ("smaller", texts.txt, 13, 0),
            ("other", texts.txt, 60, 1),
        )
    }
    one, again, smaller, other = (draws[n] for n in ("one", "again", "smaller", "other"))
    assert one[0] == again[0]
    assert lists(one[1])[:13] == lists(smaller[1])
    assert len({d[1].fingerprint for d in (one, smaller, other)}) == 3


def test_special_tokens_count_towards_the_length(
    texts: Texts, special: Path, tmp_path: Path
) -> None:
    plain = AutoTokenizer.from_pretrained(special)
    for with_them in (True, False):
        draw = Sequences(sequences=50, sequence_length=24, special_tokens=with_them)
        drawn = drawn_from(files(texts.txt), draw, special, tmp_path / str(with_them))[1]
        for document, ids in zip(shuffled(texts.documents, 0), lists(drawn), strict=False):
            words = plain.encode(document, add_special_tokens=False)
            assert ids == ([0, *words[:22], 0] if with_them else words[:24])


def test_a_length_that_has_no_room_for_special_tokens(
    texts: Texts, special: Path, tmp_path: Path
) -> None:
    draw = Sequences(sequences=4, sequence_length=1)
    with pytest.raises(DataError, match="sequence_length") as error:
        drawn_from(files(texts.txt), draw, special, tmp_path / "out")
    assert error.value.remedy


def test_documents_are_cut_at_their_end_whatever_the_tokenizer_prefers(
    texts: Texts, special: Path, tmp_path: Path
) -> None:
    file = special / "tokenizer_config.json"
    left = {"truncation_side": "left", "padding_side": "left", "model_max_length": 8}
    file.write_text(json.dumps(json.loads(file.read_text()) | left))
    draw = Sequences(sequences=20, sequence_length=12, special_tokens=False)
    drawn = drawn_from(files(texts.txt), draw, special, tmp_path / "out")[1]
    encode = AutoTokenizer.from_pretrained(special).encode
    expected = [encode(d, add_special_tokens=False)[:12] for d in shuffled(texts.documents, 0)[:20]]
    assert lists(drawn) == expected


@pytest.mark.parametrize("size", [1, 4, 100])
def test_batches_hold_every_sequence_once_padded_on_the_right(size: int) -> None:
    sequences = random_sequences(21)
    seen: dict[int, list[int]] = {}
    widths = []
    for places, ids, lengths in token_sequences(sequences, 12).batches(size):
        assert len(places) == len(ids) == len(lengths) <= size
        assert ids.shape[1] == int(lengths.max())
        widths.append(ids.shape[1])
        for place, row, length in zip(places.tolist(), ids, lengths.tolist(), strict=True):
            assert place not in seen
            seen[place] = row[:length].tolist()
            assert torch.equal(row[length:], torch.zeros_like(row[length:]))
    assert [seen[place] for place in range(21)] == sequences
    assert widths == sorted(widths, reverse=True)


def test_the_fingerprints_follow_what_they_name(
    texts: Texts, special: Path, tmp_path: Path
) -> None:
    (special / "training_tokens").mkdir()
    draw = Sequences(sequences=4)
    before, _ = drawn_from(files(texts.txt), draw, special, tmp_path / "before")
    (special / "model.safetensors").write_bytes(b"weights")
    (special / "tokens_seen.json").write_text("7")
    same, _ = drawn_from(files(texts.txt), draw, special, tmp_path / "same")
    assert same == before
    file = special / "tokenizer_config.json"
    file.write_text(file.read_text() + "\n")
    after, _ = drawn_from(files(texts.txt), draw, special, tmp_path / "after")
    assert after["tokenizer_fingerprint"] != before["tokenizer_fingerprint"]
    assert after["sequences_fingerprint"] == before["sequences_fingerprint"]
