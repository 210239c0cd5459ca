"""What fine-tuning learns from: the prompts, answers and tokens that an evaluation has."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from jobs.errors import DataError
from jobs.finetune_work import FinetuneWork, HarnessPairs, PairFiles, PicoPairs, Recipe
from jobs.questions import HarnessQuestions, HubData
from jobs.sources import TextFiles
from tests.conftest import Texts
from tests.hub.server import LocalHub
from tests.workers.drawing import files
from tests.workers.quiz import quiz_records
from tests.workers.test_harness import records_file, sciq
from tests.workers.test_pico_tasks import CORPUS, asked, with_corpus
from workers import curriculum
from workers.artifacts import SharedFiles
from workers.facts import invent
from workers.finetune import examples as module
from workers.finetune.examples import Pair, TokenPairs, load_pairs, tokenized
from workers.harness import build_requests, load_task, right_options
from workers.hub import LoadedCheckpoint
from workers.scoring import LoadedModel

QA = Path(__file__).parents[4] / "shared" / "data" / "qa"
CONTEXT = 128
RECIPE = Recipe(
    *("lora", "none", None, 8, ("attention",), None, 16.0, 0.05),
    *(3, 16, 2e-4, 0.01, 0, 1, "float32"),
)
PAIRS = [{"prompt": f"Say {n}", "answer": f"{n}!"} for n in range(10)]
OWN = {
    "arc_easy": None,
    "sciq": None,
    "hellaswag": """
output_type: multiple_choice
test_split: test
doc_to_text: "{{query}}"
doc_to_choice: choices
doc_to_target: gold
""",
    "lambada": """
output_type: loglikelihood
test_split: test
doc_to_text: "{{context}}"
doc_to_target: "{{' ' + continuation}}"
""",
    "triviaqa": """
output_type: generate_until
test_split: test
doc_to_text: "{{context}}"
doc_to_target: aliases
""",
}
FILES = {
    "arc_easy": "arc_easy_validation.jsonl",
    "sciq": "sciq_validation.jsonl",
    "hellaswag": "hellaswag_val1000_docs.jsonl",
    "lambada": "lambada_openai.jsonl",
    "triviaqa": "triviaqa_sm_sub.jsonl",
}
needs_data = pytest.mark.skipif(
    not QA.is_dir(), reason="the questions of ../shared/data are not beside the repository"
)


def of_pairs(folder: Path, training: list[Any] = PAIRS, validation: list[Any] = PAIRS) -> PairFiles:
    one, two = (
        files(records_file(folder, records, name))
        for records, name in ((training, "training.jsonl"), (validation, "validation.jsonl"))
    )
    return PairFiles("mine", one, two, "prompt", "answer")


def of_task(task: str | None, records: TextFiles, config: TextFiles | None = None) -> HarnessPairs:
    return HarnessPairs("mine", task, config, records, records)


def work_of(examples: Any, **changes: Any) -> FinetuneWork:
    whole = FinetuneWork(examples, RECIPE, None, None, 512, "{prompt}", None, None, 256)
    return replace(whole, **changes)


def tokens_of(
    examples: Any, tokenizer: Any, folder: Path, context: int = CONTEXT, **changes: Any
) -> TokenPairs:
    return tokenized(work_of(examples, **changes), tokenizer, SharedFiles(folder), context)


@pytest.fixture
def tokenizer(checkpoint: LoadedCheckpoint) -> Any:
    return checkpoint.tokenizer


def by_lm_eval(records: TextFiles, task: str | None, config: TextFiles | None, folder: Path) -> Any:
    """Prompt and right answer of each record as lm-eval asks for them."""
    loaded = load_task(
        HarnessQuestions("mine", task, config, records, 0, None), SharedFiles(folder)
    )
    for request in build_requests(loaded, None):
        if loaded.OUTPUT_TYPE != "multiple_choice" or request.idx in right_options(
            loaded, request.doc
        ):
            yield request


@needs_data
@pytest.mark.parametrize("name", OWN)
def test_real_records_give_lm_evals_own_prompts_answers_and_tokens(
    name: str, checkpoint: LoadedCheckpoint, tmp_path: Path
) -> None:
    lines = (QA / FILES[name]).read_text(encoding="utf-8").split("\n")[:120]
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    text, config, own = files(path), None, OWN[name]
    if own:
        (tmp_path / "task.yaml").write_text(own)
        config = files(tmp_path / "task.yaml")
    task = None if config else name
    examples = of_task(task, text, config)
    training, validation = load_pairs(examples, SharedFiles(tmp_path))
    requests = list(by_lm_eval(text, task, config, tmp_path))
    assert training == validation
    if name == "triviaqa":
        first = [json.loads(line)["aliases"][0] for line in lines]
        said = [
            (request.args[0], f" {alias}") for request, alias in zip(requests, first, strict=True)
        ]
    else:
        said = [request.args[:2] for request in requests]
    assert [(pair.prompt, pair.answer) for pair in training] == said
    model = LoadedModel(checkpoint, 8)
    model._max_length = 200
    theirs = model.token_requests((place, 0, *pair) for place, pair in enumerate(said))
    longest = model.max_length + 1  # An evaluation needn't read the last token.
    found = tokens_of(examples, checkpoint.tokenizer, tmp_path, longest)
    assert found.n_truncated == 2 * sum(each.truncated for each in theirs)
    for ours, each in zip(found.training, theirs, strict=True):
        assert ours.tokens == (*each.context, *each.continuation)
        assert ours.answer_length == len(each.continuation)
        assert ours.truncated == each.truncated


@pytest.mark.parametrize("task", ["sciq", "arc_easy", "winogrande"])
def test_every_way_of_reading_choices_gives_the_right_one(
    task: str, texts: Texts, tmp_path: Path
) -> None:
    text = files(records_file(tmp_path, quiz_records(texts)[task]))
    found, _ = load_pairs(of_task(task, text), SharedFiles(tmp_path))
    said = [request.args[:2] for request in by_lm_eval(text, task, None, tmp_path)]
    assert [(pair.prompt, pair.answer) for pair in found] == said


@given(
    st.text(max_size=12) | st.sampled_from(["", "the river ", "a\n", "<|endoftext|>", "the  "]),
    st.text(min_size=1, max_size=8)
    | st.sampled_from([" bird", "<|endoftext|>x", " <|endoftext|>"]),
)
def test_tokens_are_lm_evals(checkpoint: LoadedCheckpoint, prompt: str, answer: str) -> None:
    if prompt and not prompt.strip():  # lm-eval fails at these.
        return
    model = LoadedModel(checkpoint, 1)
    if not prompt:
        before, after = [model.prefix_token_id], model.tok_encode(answer, add_special_tokens=False)
        after = after[1:] if after[:1] == before else after
    else:
        before, after = model._encode_pair(prompt, answer)
    assert module._encode(checkpoint.tokenizer, Pair(prompt, answer)) == (before, after)


def test_training_and_validation_records_are_kept_apart(tmp_path: Path) -> None:
    training = files(records_file(tmp_path, sciq(5), "training.jsonl"))
    validation = files(records_file(tmp_path, sciq(8)[5:], "validation.jsonl"))
    examples = replace(of_task("sciq", training), validation=validation)
    found = load_pairs(examples, SharedFiles(tmp_path))
    assert [[pair.answer for pair in side] for side in found] == [
        [" 1", " 2", " 3", " 4", " 5"],
        [" 6", " 7", " 8"],
    ]


def test_the_same_examples_are_read_once_whatever_they_are_called(tmp_path: Path) -> None:
    examples = of_pairs(tmp_path)
    found = load_pairs(examples, SharedFiles(tmp_path))
    assert load_pairs(replace(examples, name="theirs"), SharedFiles(tmp_path)) is found
    assert load_pairs(replace(examples, prompt="answer"), SharedFiles(tmp_path)) is not found


def test_splits_on_the_hub_are_those_of_the_pinned_commit(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    splits = {"test": sciq(2), "train": sciq(20)[10:], "validation": sciq(3)}
    repository = local_hub.dataset("allenai/sciq")
    commit = repository.commit(
        "main",
        {f"{n}.jsonl": records_file(tmp_path, r).read_bytes() for n, r in splits.items()},
    )
    repository.commit("main", {"train.jsonl": b"{}"})
    data = HubData("allenai/sciq", commit)
    training, validation = load_pairs(
        HarnessPairs("mine", "sciq", None, data, data), SharedFiles(tmp_path)
    )
    assert [pair.answer for pair in training] == [f" {n + 1}" for n in range(10, 20)]
    assert [pair.answer for pair in validation] == [" 1", " 2", " 3"]


def test_a_task_without_a_training_split_is_refused(local_hub: LocalHub, tmp_path: Path) -> None:
    words = [{"text": "the old house sings"}] * 2
    content = records_file(tmp_path, words).read_bytes()
    commit = local_hub.dataset("EleutherAI/lambada_openai").commit("main", {"test.jsonl": content})
    data = HubData("EleutherAI/lambada_openai", commit)
    examples = HarnessPairs("mine", "lambada_openai", None, data, data)
    message = (
        r"'mine' can't be .* no training split .*names none.* → give tasks\.mine\.training_data"
    )
    with pytest.raises(DataError, match=message):
        load_pairs(examples, SharedFiles(tmp_path))


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        # lm-eval itself looks for solved examples there.
        ("train", "'mine' cannot be set up: KeyError: 'train'"),
        ("validation", "no validation split on the hub .*no 'validation'.* → give"),
    ],
)
def test_a_dataset_without_a_split_is_refused(
    local_hub: LocalHub, tmp_path: Path, lacking: str, message: str
) -> None:
    names = {"test", "train", "validation"} - {lacking}
    content = records_file(tmp_path, sciq(3)).read_bytes()
    commit = local_hub.dataset("allenai/sciq").commit(
        "main", {f"{name}.jsonl": content for name in names}
    )
    data = HubData("allenai/sciq", commit)
    with pytest.raises(DataError, match=message):
        load_pairs(HarnessPairs("mine", "sciq", None, data, data), SharedFiles(tmp_path))


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


def test_records_without_a_right_answer_are_refused(tmp_path: Path) -> None:
    records = sciq(3)
    records[1]["correct_answer"] = ""
    # lm-eval looks at the first record itself.
    text = files(records_file(tmp_path, records))
    with pytest.raises(DataError, match="right answer of record 1 is empty → check the records"):
        load_pairs(of_task("sciq", text), SharedFiles(tmp_path))


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
