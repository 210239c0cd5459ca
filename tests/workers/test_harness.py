"""lm-eval's tasks on given records: what is asked, and what is refused before anything is."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import DataError
from jobs.questions import HarnessQuestions, HubData
from tests.hub.server import LocalHub
from tests.workers.drawing import files
from workers import harness
from workers.artifacts import SharedFiles
from workers.harness import build_requests, load_task, right_options, template_fingerprint

COMMIT = "0" * 40
CONFIG = """
output_type: multiple_choice
test_split: test
doc_to_text: "{{asked}}:"
doc_to_choice: "{{options}}"
doc_to_target: "{{place}}"
"""


def sciq(count: int = 8) -> list[dict[str, Any]]:
    """Records of SciQ, whose right option is always the last one."""
    return [
        {
            "question": f"Which number follows {n}?",
            "correct_answer": f"{n + 1}",
            **{f"distractor{k}": f"{n + 1 + k}" for k in (1, 2, 3)},
            "support": "",
        }
        for n in range(count)
    ]


def records_file(folder: Path, records: list[Any], name: str = "records.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    return path


def of_sciq(folder: Path, records: list[Any], **more: Any) -> HarnessQuestions:
    asked = HarnessQuestions("mine", "sciq", None, files(records_file(folder, records)), 0, None)
    return replace(asked, **more)


def of_config(folder: Path, records: list[Any], config: str = CONFIG) -> HarnessQuestions:
    path = folder / "task.yaml"
    path.write_text(config)
    return of_sciq(folder, records, task=None, config=files(path))


def prompts(questions: HarnessQuestions, folder: Path) -> list[str]:
    task = load_task(questions, SharedFiles(folder))
    return [request.args[0] for request in build_requests(task, questions.limit)[::4]]


def test_a_named_task_asks_the_given_records(tmp_path: Path) -> None:
    questions = of_sciq(tmp_path, sciq(), limit=3)
    task = load_task(questions, SharedFiles(tmp_path))
    requests = build_requests(task, 3)
    assert len(requests) == 12
    assert requests[0].args == ("\nQuestion: Which number follows 0?\nAnswer:", " 2")
    assert [request.doc_id for request in requests] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(right_options(task, request.doc) == {3} for request in requests)


def test_the_same_questions_are_loaded_once_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_tasks", {})
    questions = of_sciq(tmp_path, sciq())
    task = load_task(questions, SharedFiles(tmp_path))
    again = load_task(replace(questions, name="theirs"), SharedFiles(tmp_path))
    assert again is task
    assert task.config.task == "theirs"
    assert load_task(replace(questions, shots=1), SharedFiles(tmp_path)) is not task


def test_requests_hold_no_answer_of_an_earlier_checkpoint(tmp_path: Path) -> None:
    task = load_task(of_sciq(tmp_path, sciq()), SharedFiles(tmp_path))
    for request in build_requests(task, None):
        request.resps.append((0.0, True))
    assert all(not request.resps for request in build_requests(task, None))


def test_every_checkpoint_is_shown_the_same_solved_examples(tmp_path: Path) -> None:
    questions = of_sciq(tmp_path, sciq(6), shots=4)
    first, second = prompts(questions, tmp_path), prompts(questions, tmp_path)
    assert first == second
    for place, prompt in enumerate(first):
        *solved, asked = re.findall(r"follows (\d)\?\nAnswer:( \d)?", prompt)
        assert asked == (str(place), "")
        assert len({number for number, _ in solved} - {str(place)}) == 4
        assert all(int(answer) == int(number) + 1 for number, answer in solved)


def test_more_solved_examples_than_there_are_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'mine' cannot be asked.* → .*enough records for `shots`"):
        prompts(of_sciq(tmp_path, sciq(3), shots=3), tmp_path)


def test_a_task_file_of_the_users_own(tmp_path: Path) -> None:
    records = [{"asked": "2 + 2", "options": ["3", "4"], "place": 1}]
    task = load_task(of_config(tmp_path, records), SharedFiles(tmp_path))
    assert [r.args for r in build_requests(task, None)] == [("2 + 2:", " 3"), ("2 + 2:", " 4")]
    assert right_options(task, task.eval_docs[0]) == {1}


@pytest.mark.parametrize("label", [2, -1, "five"])
def test_a_label_that_no_option_has_is_refused(tmp_path: Path, label: Any) -> None:
    question = {"asked": "2 + 2", "options": ["3", "4"]}
    records = [{**question, "place": place} for place in ("1", str(label))]
    task = load_task(of_config(tmp_path, records), SharedFiles(tmp_path))
    with pytest.raises(DataError, match="none of the 2 options → check the labels"):
        right_options(task, task.eval_docs[1])


def test_several_right_options_and_labels_in_words(tmp_path: Path) -> None:
    config = CONFIG.replace('"{{place}}"', "place")
    for label in ([1, 2], ["b", "c"]):
        records = [{"asked": "2 + 2", "options": ["a", "b", "c"], "place": label}]
        task = load_task(of_config(tmp_path, records, config), SharedFiles(tmp_path))
        assert right_options(task, task.eval_docs[0]) == {1, 2}


def test_fingerprints_are_those_of_what_is_asked(tmp_path: Path) -> None:
    def fingerprint(questions: HarnessQuestions) -> str:
        task = load_task(questions, SharedFiles(tmp_path))
        return template_fingerprint(build_requests(task, questions.limit))

    whole = fingerprint(of_sciq(tmp_path, sciq()))
    assert whole == fingerprint(of_sciq(tmp_path, sciq(), name="theirs"))
    changed = sciq()
    changed[-1]["correct_answer"] = "10"
    others = [{"limit": 7}, {"shots": 1}]
    found = {fingerprint(of_sciq(tmp_path, sciq(), **more)) for more in others}
    assert len({whole, fingerprint(of_sciq(tmp_path, changed)), *found}) == 4


def test_strings_may_hold_what_unicode_takes_for_line_ends(tmp_path: Path) -> None:
    records = sciq(2)
    records[0]["question"] = "one\u2028two\x85three"
    assert "one\u2028two\x85three" in prompts(of_sciq(tmp_path, records), tmp_path)[0]


Break = Callable[[Path], HarnessQuestions]
BROKEN: dict[str, tuple[Break, str]] = {
    "unknown task": (
        lambda f: of_sciq(f, sciq(), task="sciqq"),
        "lm-eval has no task 'sciqq' → see `lm_eval ls tasks`, or give a `config` of your own",
    ),
    "empty data": (lambda f: of_sciq(f, []), "records.jsonl: no records → add some"),
    "a field that the task reads": (
        lambda f: of_sciq(f, [{"question": "Why?"}] * 2),
        "'mine' cannot be set up: UndefinedError: 'support' is undefined → check that the records",
    ),
    "a field of one record": (
        lambda f: of_sciq(f, [*sciq(2), {"question": "Why?"}]),
        "line 3 differs from the first record in the fields correct_answer, distractor1, .* → give",
    ),
    "kinds": (
        lambda f: of_sciq(f, [{"question": 1}, {"question": "Why?"}]),
        "a field has values of different kinds: .* → mend them",
    ),
    "no records": (lambda f: of_sciq(f, [5]), "line 1 is no record: b'5' → write"),
    "no task file": (lambda f: of_config(f, sciq(), "- a"), "task.yaml is no task file: .* → see"),
    "no YAML": (lambda f: of_config(f, sciq(), "a: ["), "task.yaml is no task file: .* → see"),
    "code": (
        lambda f: of_config(f, sciq(), CONFIG + "process_docs: !function utils.process_docs\n"),
        "task.yaml says '!function': .* nor run code → write its fields out",
    ),
    "include": (
        lambda f: of_config(f, sciq(), CONFIG + '"include": other.yaml\n'),
        "task.yaml says 'include:': a task file may neither include others .* → write its fields",
    ),
    "class": (
        lambda f: of_config(f, sciq(), CONFIG + "class: Mine\n"),
        "task.yaml says 'class:': .* → write its fields out",
    ),
    "rolling": (
        lambda f: of_config(f, sciq(), "output_type: loglikelihood_rolling\n"),
        "'mine' has no questions: .* → measure it as a dataset of evals.loss",
    ),
    "output": (
        lambda f: of_config(f, sciq(), "output_type: drawing\n"),
        "'mine' asks for 'drawing' → give one that asks for multiple_choice, loglikelihood, gener",
    ),
    "written in Python": (
        lambda f: of_sciq(f, sciq(), task="squadv2"),
        "'mine' needs more than text and templates: it has `class` → leave it out",
    ),
    "runs answers": (
        lambda f: of_sciq(f, sciq(), task="humaneval"),
        "'mine' needs more than text and templates: it has `unsafe_code` → leave it out",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_cannot_be_asked_is_refused_with_a_remedy(tmp_path: Path, broken: str) -> None:
    breaking, message = BROKEN[broken]
    with pytest.raises(DataError, match=f"(?s){message}"):
        load_task(breaking(tmp_path), SharedFiles(tmp_path))


def test_records_that_are_not_json_are_refused_with_their_line(tmp_path: Path) -> None:
    path = records_file(tmp_path, sciq(1))
    for bad in (b"{", b"\xff", b"[" * 100_000, b'{"support": "\\udfff"}'):
        path.write_bytes(json.dumps(sciq(1)[0]).encode() + b"\n" + bad)
        questions = HarnessQuestions("mine", "sciq", None, files(path), 0, None)
        with pytest.raises(DataError, match=r"line 2 is not JSON: .* → mend the line"):
            load_task(questions, SharedFiles(tmp_path))


@pytest.mark.parametrize("name", ["records.jsonl", "task.yaml"])
def test_files_that_changed_since_the_plan_are_refused(tmp_path: Path, name: str) -> None:
    questions = of_config(tmp_path, [{"asked": "a", "options": ["b"], "place": 0}])
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=f"{name} changed since it was planned → run the command"):
        load_task(questions, SharedFiles(tmp_path))


def test_records_on_the_hub_are_those_of_the_pinned_commit(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    def at(count: int) -> dict[str, bytes]:
        splits = {"test": sciq(count), "train": sciq(20)[10:], "validation": sciq(1)}
        return {f"{n}.jsonl": records_file(tmp_path, r).read_bytes() for n, r in splits.items()}

    repository = local_hub.dataset("allenai/sciq")
    commit = repository.commit("main", at(4))
    repository.commit("main", at(6))
    questions = HarnessQuestions("mine", "sciq", None, HubData("allenai/sciq", commit), 2, None)
    asked = prompts(questions, tmp_path)
    assert [prompt.rpartition("follows ")[2] for prompt in asked] == [
        f"{n}?\nAnswer:" for n in range(4)
    ]
    # Solved examples come from the training split, as lm-eval has it.
    shown = {n for prompt in asked for n in re.findall(r"follows (\d+)\?", prompt)[:-1]}
    assert shown <= {str(n) for n in range(10, 20)}


def test_another_repository_than_the_tasks_is_refused(tmp_path: Path) -> None:
    questions = HarnessQuestions("mine", "sciq", None, HubData("org/other", COMMIT), 0, None)
    remedy = 'set tasks.mine.repository = "allenai/sciq"'
    with pytest.raises(DataError, match=f"reads allenai/sciq, not org/other → {remedy}"):
        load_task(questions, SharedFiles(tmp_path))


def test_a_commit_that_is_gone_is_no_mistake_of_the_records(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    local_hub.dataset("allenai/sciq").commit("main", {"test.jsonl": b"{}"})
    questions = HarnessQuestions("mine", "sciq", None, HubData("allenai/sciq", COMMIT), 0, None)
    with pytest.raises(OSError, match="allenai/sciq"):
        load_task(questions, SharedFiles(tmp_path))
