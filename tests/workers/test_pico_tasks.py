"""Questions about invented facts: who is asked for what, and what guessing gives."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from datasets import Dataset

from jobs.errors import DataError
from jobs.questions import PicoQuestions
from workers.artifacts import SharedFiles
from workers.facts import RELATIONS, Facts, invent, records
from workers.harness import build_requests, load_task, right_options
from workers.pico_tasks import chance_level, pico_config

CORPUS = "corpus"
FORMS: tuple[Any, ...] = get_args(PicoQuestions.__annotations__["form"])


def with_corpus(results: Path, known: Facts, cell_id: str = CORPUS) -> Path:
    """Puts the questions of a corpus into a results folder; an id has but one corpus."""
    corpus = results / "artifacts" / cell_id
    corpus.mkdir(parents=True)
    for name, found in records(known, known.documents, seed=5).items():
        text = "".join(json.dumps(record) + "\n" for record in found)
        (corpus / f"{name}.jsonl").write_text(text)
    return results


@pytest.fixture(scope="module")
def known() -> Facts:
    return invent(documents=1500, subjects=40, seed=5)


@pytest.fixture(scope="module")
def results(known: Facts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the questions of a corpus."""
    return with_corpus(tmp_path_factory.mktemp("results"), known)


def asked(
    form: Any, which: Any = "heldout", limit: int | None = None, cell_id: str = CORPUS
) -> PicoQuestions:
    return PicoQuestions("facts", cell_id, form, which, limit)


def documents(results: Path, questions: PicoQuestions) -> list[dict[str, Any]]:
    task = load_task(questions, SharedFiles(results))
    return list({r.doc_id: r.doc for r in build_requests(task, questions.limit)}.values())


def _name(document: dict[str, Any], known: Facts) -> str:
    words = document["prompt"].rstrip("?").split()
    (name,) = (name for name in known.subjects if name in words)
    return name


def test_choices_are_four_values_of_the_relation(results: Path, known: Facts) -> None:
    task = load_task(asked("choice"), SharedFiles(results))
    requests = build_requests(task, None)
    values = {relation.name: relation.values for relation in RELATIONS}
    for place, document in enumerate(task.eval_docs):
        options = requests[4 * place : 4 * place + 4]
        assert {request.args[0] for request in options} == {document["prompt"]}
        words = [request.args[1] for request in options]
        assert all(word[0] == " " and word[1:] in values[document["relation"]] for word in words)
        assert len(set(words)) == 4
        (right,) = right_options(task, document)
        assert words[right] == f" {document['answer']}"


def test_open_questions_end_where_the_answer_begins(results: Path, known: Facts) -> None:
    task = load_task(asked("open"), SharedFiles(results))
    assert task.OUTPUT_TYPE == "generate_until"
    for request in build_requests(task, None):
        document = request.doc
        assert request.args[0] == document["prompt"]
        assert request.args[0].endswith("?")
        assert request.args[1]["until"] == ["\n"]
        assert not request.args[1]["do_sample"]
        assert task.process_results(document, [document["answer"]]) == {"exact_match": 1.0}


def test_statements_end_where_training_states_the_value(results: Path, known: Facts) -> None:
    task = load_task(asked("last_word"), SharedFiles(results))
    said = {document.text for document in known.documents if document.form == "statement"}
    found = 0
    for request in build_requests(task, None):
        statement, word = request.args
        assert word == f" {request.doc['answer']}"
        found += f"{statement}{word}." in said
    assert found > 20


@pytest.mark.parametrize("form", FORMS)
def test_heldout_questions_are_asked_nowhere_in_training(
    results: Path, known: Facts, form: Any
) -> None:
    asking = [document.text for document in known.documents if document.form != "statement"]
    place = {relation.name: number for number, relation in enumerate(RELATIONS)}
    ranks = {name: rank for rank, name in enumerate(known.subjects)}
    facts = {}
    for which in ("heldout", "train"):
        found = documents(results, asked(form, which))
        facts[which] = {(_name(d, known), d["relation"], d["answer"]) for d in found}
        assert len(facts[which]) == len(found)
        for name, relation, answer in facts[which]:
            known_value = known.values[ranks[name]][place[relation]]
            assert RELATIONS[place[relation]].values[known_value] == answer
            question = RELATIONS[place[relation]].question.format(subject=name)
            assert any(question in text for text in asking) == (which == "train")
    assert not facts["heldout"] & facts["train"]


@pytest.mark.parametrize(("form", "level"), [("choice", 1 / 4), ("open", 1 / 16)])
def test_chance_is_what_guessing_gives(results: Path, form: Any, level: float) -> None:
    found = documents(results, asked(form, "train"))
    assert chance_level(asked(form), found) == pytest.approx(level, rel=1e-12)
    assert chance_level(asked("last_word"), found) == pytest.approx(1 / 16, rel=1e-12)
    generator = random.Random(0)
    values = {relation.name: relation.values for relation in RELATIONS}

    def guess(document: dict[str, Any]) -> bool:
        if form == "choice":
            return generator.randrange(4) == document["label"]
        return generator.choice(values[document["relation"]]) == document["answer"]

    right = [guess(document) for document in found for _ in range(200)]
    error = (level * (1 - level) / len(right)) ** 0.5
    assert sum(right) / len(right) == pytest.approx(level, abs=4 * error)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [1, 6, 15])
def test_a_limit_spreads_over_all_frequencies(results: Path, form: Any, limit: int) -> None:
    whole = [document["frequency"] for document in documents(results, asked(form))]
    found = [document["frequency"] for document in documents(results, asked(form, limit=limit))]
    assert len(found) == limit
    assert len(whole) > 2 * limit
    for place, frequency in enumerate(found):
        part = slice(place * len(whole) // limit, -(-(place + 1) * len(whole) // limit))
        assert frequency in whole[part]
    assert len(set(found)) > limit / 2
    # Training speaks the more of a subject, the earlier it comes.
    assert _mean(whole[: len(whole) // 2]) > 2 * _mean(whole[len(whole) // 2 :])


def test_a_limit_above_their_number_asks_all_of_them(results: Path) -> None:
    whole = documents(results, asked("choice"))
    assert documents(results, asked("choice", limit=len(whole) + 1)) == whole


def test_a_corpus_without_questions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "questions_heldout.jsonl").write_text("")
    with pytest.raises(DataError, match=r"has no heldout questions → give its suite more"):
        pico_config(asked("choice"), tmp_path)


def test_a_corpus_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the artifact nowhere is gone"):
        load_task(asked("open", cell_id="nowhere"), SharedFiles(tmp_path))


def test_records_stay_what_arrow_makes_of_them(results: Path) -> None:
    task = load_task(asked("choice"), SharedFiles(results))
    assert isinstance(task.eval_docs, Dataset)
    assert set(task.eval_docs.features) == {
        *("prompt", "statement", "choices", "label", "answer", "relation", "frequency")
    }


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
