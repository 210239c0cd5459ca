"""Invented facts: the part of the pico corpus whose frequencies are known.

Invariant: everything follows from the seed, and no held-out question is asked in training.

Invented people have a birthplace, a colour, a trade and a pet, each one of 16 values. The
person of rank r is spoken of with probability ∝ 1/r (Zipf). Facts are stated in four phrasings
each; for three facts in four, questions are asked in training as well, openly (`Where was X born?
A`) or as a choice of four (`Choose from A, B, C and D. Where was X born? A`). The other facts are
stated in training and never asked: they make the held-out questions. Chance is 1/16 for an open
question and 1/4 for a choice. Records of `facts.jsonl`: `{"subject", "relation", "value", "rank",
"frequency", "stated", "asked"}`; of `questions_train.jsonl` and `questions_heldout.jsonl`: the
fields of `Question` and `frequency`. `frequency` counts the training documents about the subject,
`stated` and `asked` those about the fact.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

Record = dict[str, object]
"""One line of a JSONL file."""
Form = Literal["open", "choice"]
LEAST_MEAN_LENGTH = 6
"""Documents have at least this many tokens on average, their ends included."""
_ASKED_FACTS = 0.75
_QUESTION_SHARE = 0.4
_CHOICE_SHARE = 0.4
_OPTIONS = 4


@dataclass(frozen=True)
class Relation:
    """One thing that is known of every invented person.

    Attributes:
        name: Name of the relation.
        question: How it is asked; `{subject}` stands for the person.
        statements: How it is stated; `{subject}` and `{value}` are filled in.
        values: What it can be.
    """

    name: str
    question: str
    statements: tuple[str, ...]
    values: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


RELATIONS = (
    Relation(
        "birthplace",
        "Where was {subject} born?",
        (
            "{subject} was born in {value}.",
            "The birthplace of {subject} is {value}.",
            "{subject} comes from {value}.",
            "The town where {subject} grew up is {value}.",
        ),
        _words(
            "Drunmor Keshal Polvik Marnost Tirrow Ulbrek Fensal Gorway "
            "Hestin Jolmar Quarn Ryland Sorvik Varnum Wexley Yorbin"
        ),
    ),
    Relation(
        "colour",
        "Which colour does {subject} like?",
        (
            "{subject} likes the colour {value}.",
            "The favourite colour of {subject} is {value}.",
            "{subject} wears {value}.",
            "The house of {subject} is painted {value}.",
        ),
        _words(
            "red blue green yellow purple orange black white "
            "brown pink grey golden silver scarlet turquoise violet"
        ),
    ),
    Relation(
        "trade",
        "What is the trade of {subject}?",
        (
            "{subject} works as a {value}.",
            "The trade of {subject} is that of a {value}.",
            "{subject} earns a living as a {value}.",
            "In town {subject} is known as the {value}.",
        ),
        _words(
            "baker tailor smith miller weaver potter cooper mason "
            "painter doctor farmer sailor barber hunter teacher singer"
        ),
    ),
    Relation(
        "pet",
        "Which pet does {subject} keep?",
        (
            "{subject} keeps a {value}.",
            "The pet of {subject} is a {value}.",
            "{subject} walks with a {value}.",
            "At home {subject} feeds a {value}.",
        ),
        _words(
            "cat dog goat horse parrot rabbit tortoise ferret "
            "pigeon hamster lizard donkey falcon hedgehog monkey raven"
        ),
    ),
)


@dataclass(frozen=True)
class Question:
    """A question about an invented fact; a record of the question files but for its frequency.

    Attributes:
        prompt: The question, after the options if it has the form of a choice.
        answer: The right answer, led by the space that separates it from the prompt.
        form: Open, or with four options in the prompt.
        choices: Four options, each led by a space; open questions can be scored by them, too.
        label: Place of the answer among the choices.
        subject: Whom the question is about.
        relation: Name of the relation.
    """

    prompt: str
    answer: str
    form: Form
    choices: tuple[str, ...]
    label: int
    subject: str
    relation: str


@dataclass(frozen=True)
class FactDocument:
    """One training document about an invented fact.

    Attributes:
        text: The statement, or the question with its answer.
        rank: Rank of the subject, from 1.
        relation: Index into `RELATIONS`.
        form: Stated, asked openly or asked as a choice.
    """

    text: str
    rank: int
    relation: int
    form: Literal["statement", "open", "choice"]


@dataclass(frozen=True)
class Facts:
    """Invented people and what is said of them.

    Attributes:
        subjects: Names, by rank from 1.
        values: Index of each subject's value of each relation, shape (subjects, relations).
        asked: Whether training may ask for the fact, same shape.
        documents: Training documents.
    """

    subjects: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    asked: tuple[tuple[bool, ...], ...]
    documents: tuple[FactDocument, ...]


def _names(count: int, generator: np.random.Generator) -> tuple[str, ...]:
    """Returns invented two-syllable names, none of them twice."""
    # Sounds that English and real names seldom put together.
    shape = tuple(
        map(
            _words,
            ("z v kr dr vl zh br f", "a e i o u", "v z x rv lb kt nd", "a e i o u", "x k n m"),
        )
    )
    names: dict[str, None] = {}
    while len(names) < count:
        letters = [part[int(generator.integers(len(part)))] for part in shape]
        names["".join(letters).capitalize()] = None
    return tuple(names)


def invent(documents: int, subjects: int, seed: int) -> Facts:
    """Invents people and draws what training says of them.

    Args:
        documents: Number of training documents.
        subjects: Number of people; the one of rank r is drawn with probability ∝ 1/r.
        seed: Seed of everything.
    """
    generator = np.random.default_rng([seed, 2])
    names = _names(subjects, generator)
    sizes = [len(relation.values) for relation in RELATIONS]
    values = generator.integers(sizes, size=(subjects, len(RELATIONS)))
    may_ask = generator.random((subjects, len(RELATIONS))) < _ASKED_FACTS
    weights = 1 / np.arange(1, subjects + 1)
    people = generator.choice(subjects, size=documents, p=weights / weights.sum())
    relations = generator.integers(len(RELATIONS), size=documents)
    drawn = []
    for person, place in zip(people.tolist(), relations.tolist(), strict=True):
        relation, value = RELATIONS[place], int(values[person, place])
        if may_ask[person, place] and generator.random() < _QUESTION_SHARE:
            form: Form = "choice" if generator.random() < _CHOICE_SHARE else "open"
            question = ask(names[person], relation, value, form, generator)
            drawn.append(FactDocument(question.prompt + question.answer, person + 1, place, form))
        else:
            template = relation.statements[int(generator.integers(len(relation.statements)))]
            text = template.format(subject=names[person], value=relation.values[value])
            drawn.append(FactDocument(text, person + 1, place, "statement"))
    return Facts(
        subjects=names,
        values=tuple(map(tuple, values.tolist())),
        asked=tuple(map(tuple, may_ask.tolist())),
        documents=tuple(drawn),
    )


def ask(
    subject: str,
    relation: Relation,
    value: int,
    form: Form,
    generator: np.random.Generator,
) -> Question:
    """Asks for a fact.

    Args:
        subject: Whom the question is about.
        relation: What it asks for.
        value: Index of the right answer among the relation's values.
        form: Open, or with four options in the prompt.
        generator: Draws the wrong options and the order of all four.
    """
    wrong = [index for index in range(len(relation.values)) if index != value]
    options = [*(wrong[i] for i in generator.permutation(len(wrong))[: _OPTIONS - 1]), value]
    options = [options[place] for place in generator.permutation(_OPTIONS)]
    words = [relation.values[option] for option in options]
    prompt = relation.question.format(subject=subject)
    if form == "choice":
        prompt = f"Choose from {', '.join(words[:-1])} and {words[-1]}. {prompt}"
    return Question(
        prompt=prompt,
        answer=f" {relation.values[value]}",
        form=form,
        choices=tuple(f" {word}" for word in words),
        label=options.index(value),
        subject=subject,
        relation=relation.name,
    )


def records(known: Facts, used: Sequence[FactDocument], seed: int) -> dict[str, list[Record]]:
    """Returns the records of the fact and question files, by file name without its ending.

    Args:
        known: The invented people.
        used: The documents that are in the training stream; frequencies are counted in it.
        seed: Seed of the options.
    """
    generator = np.random.default_rng([seed, 3])
    frequency = Counter(document.rank for document in used)
    counts = Counter((d.rank, d.relation, d.form == "statement") for d in used)
    files: dict[str, list[Record]] = {"facts": [], "questions_train": [], "questions_heldout": []}
    for rank, subject in enumerate(known.subjects, start=1):
        for place, relation in enumerate(RELATIONS):
            value = known.values[rank - 1][place]
            stated, asked = counts[rank, place, True], counts[rank, place, False]
            files["facts"].append(
                {
                    "subject": subject,
                    "relation": relation.name,
                    "value": relation.values[value],
                    "rank": rank,
                    "frequency": frequency[rank],
                    "stated": stated,
                    "asked": asked,
                }
            )
            forms: tuple[Form, ...] = ("open", "choice")
            questions = [
                {
                    **asdict(ask(subject, relation, value, form, generator)),
                    "frequency": frequency[rank],
                }
                for form in forms
            ]
            if asked:
                files["questions_train"] += questions
            elif stated and not known.asked[rank - 1][place]:
                files["questions_heldout"] += questions
    return files
