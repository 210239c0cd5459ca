"""The arithmetic curriculum: verified answers, nothing held out in training."""

import numpy as np
import pytest

from workers import curriculum, facts


def _by_hand(problem: str) -> list[int]:
    parts = [part.split("+") for part in problem.rstrip("=").split(",")]
    return [sum(_read(left) + _read(right)) for left, right in parts]


def _read(answer: str) -> list[int]:
    return [int("".join(reversed(part))) for part in answer.split(",")]


@pytest.fixture(scope="module")
def sums() -> curriculum.Arithmetic:
    return curriculum.arithmetic(200_000, 2000, 500, seed=7)


@pytest.fixture(scope="module")
def people() -> facts.Facts:
    return facts.invent(20_000, 100, seed=7)


def test_the_example_of_the_module() -> None:
    assert curriculum.solve("70+58,63+92=") == "290,560"


def test_every_answer_is_the_sum_in_three_digits_least_significant_first(
    sums: curriculum.Arithmetic,
) -> None:
    for problem, answer in [*sums.train, *sums.heldout]:
        assert _read(answer) == _by_hand(problem)
        assert len(answer) == 7
    for document in sums.documents:
        problem, answer = document.split("=")
        assert _read(answer) == _by_hand(problem)


def test_the_budget_is_filled(sums: curriculum.Arithmetic) -> None:
    lengths = {len(document) + 1 for document in sums.documents}
    assert lengths == {20}
    assert len(sums.documents) == 10_000


def test_only_second_operands_of_documents_are_skewed(sums: curriculum.Arithmetic) -> None:
    def digits(problems: list[str], place: int) -> list[float]:
        found = [int(part[place]) for p in problems for part in p.split("=")[0].split(",")]
        return (np.bincount(found, minlength=10) / len(found)).tolist()

    weights = (1 + np.arange(10.0)) ** -1.5
    expected = (weights / weights.sum()).tolist()
    for place in (0, 1):
        assert digits(list(sums.documents), place) == pytest.approx([0.1] * 10, abs=0.03)
        assert digits(list(sums.documents), place + 3) == pytest.approx(expected, abs=0.05)
        for problems in (sums.train, sums.heldout):
            drawn = digits([problem for problem, _ in problems], place + 3)
            assert drawn == pytest.approx([0.1] * 10, abs=0.04)


def test_the_answer_space_is_large(sums: curriculum.Arithmetic) -> None:
    # All sums 0 … 198 occur in either place, so that answers range over 199² values.
    for place in (0, 1):
        seen = {_by_hand(problem)[place] for problem, _ in sums.train}
        assert len(seen) > 180
    assert (2 * curriculum.LIMIT - 1) ** 2 == 39_601


def test_no_heldout_sum_is_trained_on_in_either_order(sums: curriculum.Arithmetic) -> None:
    texts = [*sums.documents, *(problem for problem, _ in sums.train)]
    trained = {part for text in texts for part in text.split("=")[0].split(",")}
    held = {part for problem, _ in sums.heldout for part in problem.rstrip("=").split(",")}
    assert len(held) > 300
    assert not trained & (held | {f"{part[3:]}+{part[:2]}" for part in held})


def test_problems_are_distinct_and_follow_from_the_seed(sums: curriculum.Arithmetic) -> None:
    for problems in (sums.train, sums.heldout):
        assert len(set(problems)) == len(problems)
    assert len(sums.heldout) > 490
    assert len(sums.train) > 1990
    assert curriculum.arithmetic(200_000, 2000, 500, seed=7) == sums
    assert curriculum.arithmetic(2_000, 20, 500, seed=8).heldout != sums.heldout


@pytest.mark.parametrize(
    ("answer", "correct", "well_formed"),
    [
        ("290,560", True, True),
        (" 290,560\n", True, True),
        ("290,561", False, True),
        ("092,065", False, True),
        ("290", False, False),
        ("290,560,", False, False),
        ("290,56", False, False),
        ("290,560 Zarvin", False, False),
        ("", False, False),
        ("٢90,560", False, False),
    ],
)
def test_grading(answer: str, correct: bool, well_formed: bool) -> None:
    assert curriculum.grade("70+58,63+92=", answer) == (correct, well_formed)


def test_frequencies_follow_zipf(people: facts.Facts) -> None:
    counts = np.bincount([document.rank for document in people.documents], minlength=101)[1:]
    harmonic = sum(1 / rank for rank in range(1, 101))
    expected = len(people.documents) / harmonic / np.arange(1, 101)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    slope = np.polyfit(np.log(np.arange(1, 101)), np.log(counts), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


def test_documents_say_what_is_true(people: facts.Facts) -> None:
    for document in people.documents[:3000]:
        relation = facts.RELATIONS[document.relation]
        value = relation.values[people.values[document.rank - 1][document.relation]]
        assert people.subjects[document.rank - 1] in document.text
        if document.form == "statement":
            assert value in document.text
        else:
            assert document.text.endswith(f"? {value}")


def test_names_are_distinct_and_none_begins_another(people: facts.Facts) -> None:
    assert len(set(people.subjects)) == 100
    values = {value for relation in facts.RELATIONS for value in relation.values}
    assert not values & set(people.subjects)
    for relation in facts.RELATIONS:
        assert len(set(relation.values)) == len(relation.values) == 16


def test_heldout_questions_are_stated_and_never_asked(people: facts.Facts) -> None:
    files = facts.records(people, people.documents, seed=7)
    trained = "\n".join(document.text for document in people.documents)
    for record in files["questions_heldout"]:
        question = str(record["prompt"]).split(". ")[-1]
        assert question not in trained
    keys = {
        name: {(record["subject"], record["relation"]) for record in files[name]} for name in files
    }
    assert keys["questions_heldout"]
    assert not keys["questions_heldout"] & keys["questions_train"]
    stated = {(r["subject"], r["relation"]) for r in files["facts"] if r["stated"]}
    assert keys["questions_heldout"] <= stated
    asked = {(r["subject"], r["relation"]) for r in files["facts"] if r["asked"]}
    assert keys["questions_train"] == asked


def test_records_count_the_documents_that_were_used(people: facts.Facts) -> None:
    used = people.documents[:5000]
    files = facts.records(people, used, seed=7)
    assert len(files["facts"]) == 400
    totals = [int(str(record["stated"])) + int(str(record["asked"])) for record in files["facts"]]
    assert sum(totals) == 5000
    for record in files["facts"]:
        about = [d for d in used if people.subjects[d.rank - 1] == record["subject"]]
        assert record["frequency"] == len(about)


def test_choices_hold_the_answer_once_and_in_every_place(people: facts.Facts) -> None:
    files = facts.records(people, people.documents, seed=7)
    labels = []
    for record in files["questions_train"]:
        choices, label = record["choices"], record["label"]
        assert isinstance(choices, tuple)
        assert isinstance(label, int)
        assert len(set(choices)) == 4
        assert choices[label] == record["answer"]
        labels.append(label)
        if record["form"] == "choice":
            assert all(choice in str(record["prompt"]) for choice in choices)
    assert np.bincount(labels).min() / len(labels) == pytest.approx(0.25, abs=0.07)
