"""Questions about a pico corpus's invented facts, in lm-eval's terms.

Three forms, as of SciQ, TriviaQA and LAMBADA: the likeliest of four options (chance 1/4), a free
answer (chance 1/16: a relation has so many values), and the last word of a statement (likewise).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from jobs.errors import DataError
from jobs.questions import PicoQuestions
from workers.facts import RELATIONS

_ANSWER_TOKENS = 16
_RELATIONS = {relation.name: relation for relation in RELATIONS}


def pico_config(questions: PicoQuestions, corpus: Path) -> dict[str, Any]:
    """Returns the configuration of an lm-eval task, with its records.

    Args:
        questions: What is asked for.
        corpus: The corpus's artifact.

    Raises:
        DataError: The corpus has no such questions.
    """
    records = [_record(q) for q in _chosen(questions, corpus)]
    dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(records)})
    asked = "statement" if questions.form == "last_word" else "prompt"
    config: dict[str, Any] = {
        "custom_dataset": lambda **_: dataset,
        "test_split": "test",
        "doc_to_text": f"{{{{{asked}}}}}",
        "metadata": {"version": 1},
    }
    match questions.form:
        case "choice":
            return config | {
                "output_type": "multiple_choice",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{label}}",
                "target_delimiter": "",
                "metric_list": [_mean("acc"), _mean("acc_norm")],
            }
        case "open":
            return config | {
                "output_type": "generate_until",
                "doc_to_target": "{{answer}}",
                "generation_kwargs": {
                    "until": ["\n"],
                    "do_sample": False,
                    "temperature": 0.0,
                    "max_gen_toks": _ANSWER_TOKENS,
                },
                "filter_list": [
                    {
                        "name": "answer",
                        "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}],
                    }
                ],
                "metric_list": [_mean("exact_match")],
            }
        case "last_word":
            return config | {
                "output_type": "loglikelihood",
                "doc_to_target": "{{' ' + answer}}",
                "metric_list": [_mean("acc")],
            }


def chance_level(questions: PicoQuestions, records: Sequence[Mapping[str, Any]]) -> float:
    """Returns what guessing among all possible answers gives, over the records asked."""
    if questions.form == "choice":
        possible = [len(record["choices"]) for record in records]
    else:
        possible = [len(_RELATIONS[record["relation"]].values) for record in records]
    return sum(1 / count for count in possible) / len(possible)


def _chosen(questions: PicoQuestions, corpus: Path) -> list[dict[str, Any]]:
    path = corpus / f"questions_{questions.questions}.jsonl"
    with path.open(encoding="utf-8") as lines:
        found = [q for q in map(json.loads, lines) if q["form"] == "open"]
    if not found:
        raise DataError(
            f"the corpus has no {questions.questions} questions",
            "give its suite more `subjects` or `training_tokens`",
        )
    if questions.limit is None or questions.limit >= len(found):
        return found
    # They are ordered by how often training speaks of their subject: the middle of each of `limit`
    # equal parts, so that every frequency has its share.
    limit = questions.limit
    return [found[(2 * place + 1) * len(found) // (2 * limit)] for place in range(limit)]


def _record(question: dict[str, Any]) -> dict[str, Any]:
    """Returns an lm-eval record: options and answer without the space that leads them."""
    before, _ = _RELATIONS[question["relation"]].statements[0].split(" {value}")
    return {
        "prompt": question["prompt"],
        "statement": before.format(subject=question["subject"]),
        "choices": question["choices"],
        "label": question["label"],
        "answer": question["answer"].strip(),
        "relation": question["relation"],
        "frequency": question["frequency"],
    }


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}
