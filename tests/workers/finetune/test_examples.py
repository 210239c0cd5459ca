"""What fine-tuning learns from: records, pico corpora, and how they are read and cut."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from jobs.errors import DataError
from jobs.finetune_work import PicoPairs
from tests.workers.finetune.pairs import PAIRS, of_pairs, tokens_of
from tests.workers.test_pico_tasks import CORPUS, asked, with_corpus
from workers import curriculum
from workers.artifacts import SharedFiles
from workers.facts import invent
from workers.finetune import examples as module
from workers.finetune.examples import Pair, load_pairs
from workers.harness import build_requests, load_task
from workers.hub import LoadedCheckpoint
from workers.scoring import LoadedModel


@pytest.fixture
def tokenizer(checkpoint: LoadedCheckpoint) -> Any:
    return checkpoint.tokenizer


Change = Callable[[dict[str, Any]], Any]
BROKEN: dict[str, tuple[Change, str]] = {
    "missing": (
        lambda r: {"prompt": r["prompt"]},
        "training.jsonl, line 2 has no field 'answer', only prompt → add it",
    ),
    "no text": (
        lambda r: {**r, "answer": 3},
        "line 2: field 'answer' holds int, not text → write it as text",
    ),
    "null": (lambda r: {**r, "prompt": None}, "line 2: field 'prompt' holds NoneType, not text"),
    "empty": (lambda r: {**r, "answer": " "}, "line 2: field 'answer' is empty → fill it in"),
    "no record": (lambda r: [r], "training.jsonl, line 2 is no record"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_records_that_do_not_fit_are_refused_with_their_line(tmp_path: Path, broken: str) -> None:
    change, message = BROKEN[broken]
    examples = of_pairs(tmp_path, [PAIRS[0], change(PAIRS[1])])
    with pytest.raises(DataError, match=message):
        load_pairs(examples, SharedFiles(tmp_path))


def test_empty_sets_and_changed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="task 'mine' has no training examples → add some"):
        load_pairs(of_pairs(tmp_path, []), SharedFiles(tmp_path))
    with pytest.raises(DataError, match="task 'mine' has no validation examples → add some"):
        load_pairs(of_pairs(tmp_path, PAIRS, []), SharedFiles(tmp_path))
    examples = of_pairs(tmp_path, PAIRS[:3])
    (tmp_path / "validation.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"validation\.jsonl changed since it was planned"):
        load_pairs(examples, SharedFiles(tmp_path))


def test_the_same_examples_are_read_once_whatever_they_are_called(tmp_path: Path) -> None:
    examples = of_pairs(tmp_path)
    found = load_pairs(examples, SharedFiles(tmp_path))
    assert load_pairs(replace(examples, name="theirs"), SharedFiles(tmp_path)) is found
    assert load_pairs(replace(examples, prompt="answer"), SharedFiles(tmp_path)) is not found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = with_corpus(tmp_path_factory.mktemp("results"), invent(1500, 40, 5))
    sums = curriculum.arithmetic(2000, 30, 20, seed=5)
    for name, problems in (("train", sums.train), ("heldout", sums.heldout)):
        (results / "artifacts" / CORPUS / f"arithmetic_{name}.jsonl").write_text(
            "".join(json.dumps({"problem": p, "answer": a}) + "\n" for p, a in problems)
        )
    return results


@pytest.mark.parametrize("form", ["open", "last_word"])
def test_pico_questions_are_those_that_evaluations_ask(corpus: Path, form: Any) -> None:
    sides = load_pairs(PicoPairs("facts", CORPUS, form), SharedFiles(corpus))
    for which, pairs in zip(("train", "heldout"), sides, strict=True):
        task = load_task(asked(form, which), SharedFiles(corpus))
        requests = build_requests(task, None)
        assert [pair.prompt for pair in pairs] == [request.args[0] for request in requests]
        assert [pair.answer for pair in pairs] == [f" {r.doc['answer']}" for r in requests]


def test_pico_choices_hold_their_options_and_sums_their_digits(corpus: Path) -> None:
    choices, heldout = load_pairs(PicoPairs("facts", CORPUS, "choice"), SharedFiles(corpus))
    for pair in (*choices, *heldout):
        assert pair.prompt.startswith("Choose from ")
        assert pair.answer.strip() in pair.prompt
        assert pair.answer.startswith(" ")
    training, validation = load_pairs(PicoPairs("sums", CORPUS, "sum"), SharedFiles(corpus))
    assert all(curriculum.solve(p.prompt) == p.answer for p in (*training, *validation))
    assert not {p.prompt for p in training} & {p.prompt for p in validation}


def test_a_corpus_without_what_is_asked_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "empty"
    folder.mkdir(parents=True)
    for name in ("questions_train", "questions_heldout", "arithmetic_train"):
        (folder / f"{name}.jsonl").write_text("")
    with pytest.raises(DataError, match=r"no questions in questions_train.* → .*`subjects`"):
        load_pairs(PicoPairs("facts", "empty", "open"), SharedFiles(tmp_path))
    with pytest.raises(DataError, match=r"no sums in arithmetic_train.* → .*`training_problems`"):
        load_pairs(PicoPairs("sums", "empty", "sum"), SharedFiles(tmp_path))
    (folder / "arithmetic_train.jsonl").unlink()
    with pytest.raises(DataError, match="artifact empty lacks arithmetic_train"):
        load_pairs(PicoPairs("sums", "empty", "sum"), SharedFiles(tmp_path))


@given(
    st.text(max_size=12) | st.sampled_from(["", "the river ", "a\n", "<|endoftext|>", "the  "]),
    st.text(min_size=1, max_size=8)
    | st.sampled_from([" bird", "<|endoftext|>x", " <|endoftext|>"]),
)
def test_tokens_are_lm_evals(checkpoint: LoadedCheckpoint, prompt: str, answer: str) -> None:
    if prompt and not prompt.strip():  # lm-eval fails at these.
        return
    beginning = copy.deepcopy(checkpoint.tokenizer)
    bos = (beginning.bos_token, beginning.bos_token_id)
    beginning.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos[0]} $A", special_tokens=[bos]
    )
    assert beginning.encode("the")[0] == bos[1] != checkpoint.tokenizer.encode("the")[0]
    for tokenizer in (checkpoint.tokenizer, beginning):
        model = LoadedModel(replace(checkpoint, tokenizer=tokenizer), 1)
        if not prompt:
            before = [model.prefix_token_id]
            after = model.tok_encode(answer, add_special_tokens=False)
            after = after[1:] if after[:1] == before else after
        else:
            before, after = model._encode_pair(prompt, answer)
        assert module._encode(tokenizer, Pair(prompt, answer)) == (before, after)


@pytest.mark.parametrize(
    ("template", "prompt", "answer", "read"),
    [
        ("{prompt}", "Say 1", "1", "Say 1 1"),
        ("{prompt}", "Say 1 ", "1", "Say 1 1"),
        ("{prompt}", "Say 1", "\n1", "Say 1\n1"),
        ("Q: {prompt}\nA:", "{0} {prompt} %s", "{answer}", "Q: {0} {prompt} %s\nA: {answer}"),
        ("Q: {prompt}\n", "Say 1", "1", "Q: Say 1\n1"),
    ],
)
def test_templates_and_the_space_before_answers(
    tmp_path: Path, tokenizer: Any, template: str, prompt: str, answer: str, read: str
) -> None:
    examples = of_pairs(tmp_path, [{"prompt": prompt, "answer": answer}])
    (pair,) = tokens_of(examples, tokenizer, tmp_path, template=template).training
    assert tokenizer.decode(pair.tokens) == read
    assert tokenizer.decode(pair.tokens[-pair.answer_length :]).strip() == answer.strip()


def test_sums_have_no_space_before_their_answer(corpus: Path, tokenizer: Any) -> None:
    found = tokens_of(PicoPairs("sums", CORPUS, "sum"), tokenizer, corpus, training_examples=5)
    assert all("= " not in tokenizer.decode(pair.tokens) for pair in found.training)


def test_limits_spread_over_the_examples(tmp_path: Path, tokenizer: Any) -> None:
    found = tokens_of(
        of_pairs(tmp_path), tokenizer, tmp_path, training_examples=3, validation_examples=20
    )
    said = [tokenizer.decode(pair.tokens) for pair in found.training]
    assert said == ["Say 1 1!", "Say 5 5!", "Say 8 8!"]
    assert len(found.validation) == 10


def test_long_prompts_are_cut_from_the_left_and_answers_never(
    tmp_path: Path, tokenizer: Any
) -> None:
    prompt = " ".join(f"river {n}" for n in range(30))
    examples = of_pairs(tmp_path, [{"prompt": prompt, "answer": "the old house"}, PAIRS[0]])
    whole = tokens_of(examples, tokenizer, tmp_path, 1000).training
    for limits in ({"max_length": 16}, {"context": 16}):
        found = tokens_of(examples, tokenizer, tmp_path, **limits)
        assert found.training[0].tokens == whole[0].tokens[-16:]
        assert found.training[0].answer_length == whole[0].answer_length
        assert [pair.truncated for pair in found.training] == [True, False]
        assert found.training[1] == whole[1]
        assert found.n_truncated == 1
    length = whole[0].answer_length
    least = tokens_of(examples, tokenizer, tmp_path, length + 1, validation_examples=1)
    assert len(least.training[0].tokens) == length + 1
    message = f"'mine': the answer ' the old house' has {length} tokens; of {length}, none .* → rai"
    with pytest.raises(DataError, match=message):
        tokens_of(examples, tokenizer, tmp_path, length)


def test_answers_without_tokens_and_texts_without_a_beginning_are_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="'mine': the answer '' has no tokens"):
        module._tokens("mine", tokenizer, Pair("the river", ""), 16)
    first = module._tokens("mine", tokenizer, Pair("", "river"), 16)
    assert first.tokens[0] == tokenizer.bos_token_id
    assert len(first.tokens) == 1 + first.answer_length
    bare = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    bare.bos_token = bare.eos_token = None
    assert module._tokens("mine", bare, Pair("the", " river"), 16).answer_length
    with pytest.raises(
        DataError, match=r"nothing comes before .* → give the fine-tune a `template`"
    ):
        module._tokens("mine", bare, Pair(" ", "river"), 16)


def test_the_fingerprint_is_that_of_what_is_read(tmp_path: Path, tokenizer: Any) -> None:
    def fingerprint(examples: Any, **changes: Any) -> str:
        return tokens_of(examples, tokenizer, tmp_path, **changes).fingerprint

    whole = fingerprint(of_pairs(tmp_path))
    assert whole == fingerprint(replace(of_pairs(tmp_path), name="theirs"), max_length=100)
    assert whole == fingerprint(of_pairs(tmp_path, [{**p, "more": 1} for p in PAIRS]))
    changed = [{**PAIRS[0], "answer": "none"}, *PAIRS[1:]]
    others = {
        fingerprint(of_pairs(tmp_path), template="{prompt}:"),
        fingerprint(of_pairs(tmp_path), training_examples=3),
        fingerprint(of_pairs(tmp_path), validation_examples=3),
        fingerprint(of_pairs(tmp_path, changed)),
        fingerprint(of_pairs(tmp_path, PAIRS, changed)),
        fingerprint(of_pairs(tmp_path, PAIRS[::-1])),
    }
    assert len({whole, *others}) == 7
