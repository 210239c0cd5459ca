"""Tasks of lm-eval as examples: its own prompts, answers and tokens."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import DataError
from jobs.finetune_work import HarnessPairs
from jobs.questions import HarnessQuestions, HubData
from jobs.sources import TextFiles
from tests.conftest import Texts
from tests.hub.server import LocalHub
from tests.workers.drawing import files
from tests.workers.finetune.pairs import tokens_of
from tests.workers.quiz import quiz_records
from tests.workers.test_harness import records_file, sciq
from workers.artifacts import SharedFiles
from workers.finetune.examples import Pair, load_pairs
from workers.harness import build_requests, load_task, right_options
from workers.hub import LoadedCheckpoint
from workers.scoring import LoadedModel

QA = Path(__file__).parents[4] / "shared" / "data" / "qa"
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


def of_task(task: str | None, records: TextFiles, config: TextFiles | None = None) -> HarnessPairs:
    return HarnessPairs("mine", task, config, records, records)


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
    model._max_length = 340
    theirs = model.token_requests((place, 0, *pair) for place, pair in enumerate(said))
    longest = model.max_length + 1  # An evaluation needn't read the last token.
    found = tokens_of(examples, checkpoint.tokenizer, tmp_path, longest)
    assert found.n_truncated == 2 * sum(each.truncated for each in theirs)
    assert name not in ("hellaswag", "lambada") or found.n_truncated
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


def test_descriptions_and_beginnings_of_answers_are_in_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    text = files(records_file(tmp_path, [{"asked": "Who sings?", "said": ["bird", "hill"]}]))
    for more, answer in (("", "~bird"), ("gen_prefix: I say", " bird")):
        path.write_text(
            "output_type: generate_until\ntest_split: test\ndescription: Say it. \n"
            f"doc_to_text: asked\ndoc_to_target: said\ntarget_delimiter: '~'\n{more}\n"
        )
        (pair,), _ = load_pairs(of_task(None, text, files(path)), SharedFiles(tmp_path))
        (request,) = by_lm_eval(text, None, files(path), tmp_path)
        assert pair == Pair(request.args[0], answer)
        assert pair.prompt.startswith("Say it.")
        assert pair.prompt.endswith("I say" if more else "Who sings?")


def test_training_and_validation_records_are_kept_apart(tmp_path: Path) -> None:
    training = files(records_file(tmp_path, sciq(5), "training.jsonl"))
    validation = files(records_file(tmp_path, sciq(8)[5:], "validation.jsonl"))
    examples = replace(of_task("sciq", training), validation=validation)
    found = load_pairs(examples, SharedFiles(tmp_path))
    assert [[pair.answer for pair in side] for side in found] == [
        [" 1", " 2", " 3", " 4", " 5"],
        [" 6", " 7", " 8"],
    ]


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


def test_records_without_a_right_answer_are_refused(tmp_path: Path) -> None:
    records = sciq(3)
    records[1]["correct_answer"] = ""
    # lm-eval looks at the first record itself.
    text = files(records_file(tmp_path, records))
    with pytest.raises(DataError, match="right answer of record 1 is empty → check the records"):
        load_pairs(of_task("sciq", text), SharedFiles(tmp_path))
