"""Losses of chats: of the tokens that fine-tuning would learn, and of no others."""

import copy
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch.nn.functional import cross_entropy
from trl import SFTConfig, SFTTrainer

from jobs.capability_spec import ChatLoss, Evals
from jobs.capability_work import ChatsWork
from jobs.errors import DataError
from jobs.events import Failed, Finished
from jobs.posttrain_spec import LocalExamples
from jobs.sources import Folder
from jobs.work import LossWork
from orchestrator.plan import make_plan
from tests.conftest import Texts
from tests.workers.finetune.staging import RECORDS, records_in
from tests.workers.models import silent
from tests.workers.tasks import kinds, run_cells, small_study
from workers.artifacts import SharedFiles
from workers.features import forward_pass
from workers.finetune.chat_sequences import draw_chats, marked
from workers.finetune.chats import supervised
from workers.hub import LoadedCheckpoint, load_tokenizer
from workers.measure import loss_rows
from workers.sequences import TokenSequences, load_sequences

TALK = [
    {"role": "user", "content": "the river"},
    {"role": "assistant", "content": "moves under"},
    {"role": "user", "content": "and the old house?"},
    {"role": "assistant", "content": "sings"},
]
CHATS: list[dict[str, Any]] = [
    {"messages": TALK},
    {"messages": TALK[2:]},
    {"messages": [{"role": "system", "content": "be quiet"}, *TALK[:2]]},
]
# As a model's own template, which marks no answers: the last one alone is learned then.
OWN = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def drawn(
    folder: Path, tokenizer: Path, records: list[dict[str, Any]], **draw: Any
) -> tuple[dict[str, Any], TokenSequences]:
    about = Folder(str(tokenizer), ())
    work = ChatsWork(
        "chats", records_in(folder / "data", records), ChatLoss(data=("chats",), **draw), about
    )
    (made := folder / "made").mkdir(exist_ok=True)
    columns = draw_chats(work, SharedFiles(folder / "results"), tokenizer, made, silent)
    return columns, load_sequences(made)


def parts(sequences: TokenSequences) -> list[tuple[list[int], list[bool]]]:
    assert sequences.answers is not None
    lengths = sequences.lengths.tolist()
    both = zip(sequences.ids.split(lengths), sequences.answers.split(lengths), strict=True)
    return [(ids.tolist(), answers.tolist()) for ids, answers in both]


@pytest.mark.parametrize("template", [None, OWN])
@pytest.mark.parametrize("records", [CHATS, RECORDS["sft"][:3]])
@pytest.mark.parametrize("length", [1024, 32])
def test_what_counts_is_what_the_trainer_learns(
    checkpoint: LoadedCheckpoint,
    tokenizer: Path,
    tmp_path: Path,
    template: str | None,
    records: list[dict[str, Any]],
    length: int,
) -> None:
    words = load_tokenizer(tokenizer)
    words.chat_template = template
    examples = supervised(records, "chats", words)
    found = []
    for example in examples:
        ids, answers = marked(example, words)
        if any(answers[:length]):
            found.append((ids[:length], answers[:length]))
    trainer = SFTTrainer(
        copy.deepcopy(checkpoint.model),
        args=SFTConfig(
            str(tmp_path),
            max_length=length,
            assistant_only_loss="messages" in examples[0],
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=datasets.Dataset.from_list(examples),
        processing_class=words,
    )
    expected = [
        (row["input_ids"], [label != -100 for label in row["labels"]])
        for row in trainer.train_dataset
    ]
    assert found == expected
    assert found


def test_chats_are_drawn_at_random_and_cut(tokenizer: Path, tmp_path: Path) -> None:
    columns, every = drawn(tmp_path / "a", tokenizer, CHATS * 5)
    assert (columns["n_sequences"], columns["documents"], columns["mode"]) == (15, 15, "chat")
    assert columns["total_tokens"] == len(every.ids)
    _, some = drawn(tmp_path / "b", tokenizer, CHATS * 5, sequences=6)
    assert parts(some) == parts(every)[:6]
    _, other = drawn(tmp_path / "c", tokenizer, CHATS * 5, sequences=6, seed=1)
    assert parts(other) != parts(some)
    columns, short = drawn(tmp_path / "d", tokenizer, CHATS * 5, sequence_length=30)
    assert int(short.lengths.max()) == 30
    assert columns["share_full_length"] == short.share_full_length
    fingerprints = {s.fingerprint for s in (every, some, other, short)}
    assert len(fingerprints) == 4
    assert (short.first(2).lengths == short.lengths[:2]).all()
    assert parts(short.first(2)) == parts(short)[:2]


def test_the_first_token_is_never_predicted(tokenizer: Path, tmp_path: Path) -> None:
    _, found = drawn(tmp_path, tokenizer, [{"prompt": "", "completion": "the river"}] * 4)
    ids, answers = parts(found)[0]
    assert all(answers)
    assert found.predicted.tolist() == [len(ids) - 1] * 4


@pytest.mark.parametrize(
    ("records", "draw", "said"),
    [
        ([{"text": "a", "by": "b"}], {}, "'chats': record 1 has the fields text, by → these"),
        (CHATS, {"sequence_length": 2}, "no chat of 'chats' has an answer within 2 tokens"),
        ([{"messages": TALK[:1]}], {}, "doesn't end with an assistant's answer"),
    ],
)
def test_what_has_no_answers_is_refused(
    tokenizer: Path, tmp_path: Path, records: list[dict[str, Any]], draw: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        drawn(tmp_path, tokenizer, records, **draw)


def test_the_loss_is_that_of_a_plain_loop(
    checkpoint: LoadedCheckpoint, tokenizer: Path, tmp_path: Path
) -> None:
    _, sequences = drawn(tmp_path, tokenizer, CHATS * 2, sequence_length=40)
    passed = forward_pass(
        checkpoint.model, sequences, batch_size=4, layers=False, loss=True, report=silent
    )
    (row,) = loss_rows(LossWork("chats", "0" * 64, "float32"), sequences, passed)
    sums, counts = [], []
    for ids, answers in parts(sequences):
        with torch.no_grad():
            logits = checkpoint.model(input_ids=torch.tensor([ids])).logits[0].double()
        losses = cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
        learned = torch.tensor(answers[1:])
        sums.append(float(losses[learned].sum()))
        counts.append(int(learned.sum()))
    total, number = sum(sums), sum(counts)
    assert (row["task"], row["metric"], row["n"]) == ("chats", "answer_loss", number)
    assert row["value"] == pytest.approx(total / number, rel=1e-5)
    residuals = [s - total / number * c for s, c in zip(sums, counts, strict=True)]
    assert row["stderr"] == pytest.approx(sum(r * r for r in residuals) ** 0.5 / number, rel=1e-4)
    assert row["loss_counts"].tolist() == counts
    assert row["loss_sums"].tolist() == pytest.approx(sums, rel=1e-5)


def test_a_study_measures_both_losses_from_one_load(
    tiny_series: Path, texts: Texts, tmp_path: Path
) -> None:
    (tmp_path / "id.json").write_text(json.dumps(CHATS * 3))
    (tmp_path / "ood.json").write_text(json.dumps(RECORDS["sft"][:10]))
    (tmp_path / "none.json").write_text(json.dumps([{"text": "a"}]))
    data = {name: LocalExamples(paths=(str(tmp_path / f"{name}.json"),)) for name in ("id", "ood")}
    study = small_study(
        tiny_series,
        texts,
        evals=Evals(chats=ChatLoss(data=("id", "ood"), sequences=8)),
        training=data | {"none": LocalExamples(paths=(str(tmp_path / "none.json"),))},
    )
    cells = make_plan(study).cells
    for cell in cells:
        if cell.work.table == "sequences":
            assert isinstance(run_cells([cell], tmp_path)[-1], Finished)
    group = [c for c in cells if c.checkpoint and c.checkpoint.revision == "step100"]
    events = run_cells(group, tmp_path)
    assert kinds(events, Failed) == []
    tables = [dict(e.tables) for e in kinds(events, Finished)]
    rows = [row for found in tables if "evals" in found for row in found["evals"].to_pylist()]
    assert [(row["task"], row["metric"]) for row in rows] == [
        ("id", "answer_loss"),
        ("ood", "answer_loss"),
    ]
    assert all(0 < row["stderr"] < row["value"] < 12 for row in rows)
    assert len(rows[0]["loss_sums"]) == len(rows[1]["loss_counts"]) == 8
    refused = study.model_copy(update={"evals": Evals(chats=ChatLoss(data=("none",)))})
    (cell,) = (c for c in make_plan(refused).cells if isinstance(c.work, ChatsWork))
    (failed,) = kinds(run_cells([cell], tmp_path), Failed)
    assert failed.cause == "data"
    assert "'none': record 1 has the fields text" in failed.message
