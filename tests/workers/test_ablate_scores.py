"""Scores of ablated answers against lm-eval's own, and what is refused."""

import copy
from dataclasses import replace
from pathlib import Path

import lm_eval.evaluator
import numpy as np
import pytest
import torch
from torch import nn

from jobs.errors import DataError
from jobs.records import rows_table
from tests.conftest import Texts
from tests.workers.measured import SEQUENCES, own
from tests.workers.quiz import BATCH, Quiz, make_quiz, quiz_records
from workers.ablate import Question, score
from workers.artifacts import SharedFiles
from workers.features import ForwardPass
from workers.harness import load_task
from workers.hub import LoadedCheckpoint
from workers.scoring import LoadedModel

D = 32


@pytest.fixture
def quiz(tmp_path: Path, texts: Texts) -> Quiz:
    return make_quiz(tmp_path, texts)


def test_rows_say_what_was_asked(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz
) -> None:
    rows = quiz.rows(checkpoint, passed.features, (5, 2, 5, D + 1, 0))
    assert [(row["mode"], row["rank"]) for row in rows] == [
        ("none", None),
        *((mode, rank) for rank in (5, 2, 0) for mode in ("removed", "retained")),
    ]
    values = np.linalg.eigvalsh(np.cov(passed.features.double().numpy(), rowvar=False, ddof=0))
    for row in rows:
        assert set(row) == own("ablation")
        assert row["task"] == "quiz"
        assert row["dataset"] == "sample"
        assert row["sequences_fingerprint"] == SEQUENCES.fingerprint
        assert row["ablation_mean"] == "keep"
        assert row["chance"] == 0.25
        assert row["n"] == 12
        assert row["n_truncated"] == 0
        assert row["forward_dtype"] == "float32"
        assert len(row["log_likelihoods"]) == 48
        if row["rank"] is not None:
            share = values[::-1][: row["rank"]].sum() / values.sum()
            assert row["variance_share"] == pytest.approx(share, abs=1e-6)
    assert rows[0]["variance_share"] is None
    assert len({row["template_fingerprint"] for row in rows}) == 1
    assert rows_table("ablation", rows).num_rows == 7


@pytest.mark.parametrize("task", ["sciq", "arc_easy", "winogrande"])
def test_the_whole_model_is_scored_as_lm_eval_scores_it(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz, task: str
) -> None:
    questions = quiz.tasks[task]
    results = lm_eval.evaluator.evaluate(
        LoadedModel(checkpoint, BATCH),
        {"quiz": load_task(questions, SharedFiles(quiz.folder))},
        log_samples=True,
    )
    (row,) = quiz.rows(checkpoint, passed.features, (), task)
    theirs = results["results"]["quiz"]
    assert row["acc"] == theirs["acc,none"]
    assert row["acc_stderr"] == pytest.approx(theirs["acc_stderr,none"], rel=1e-12)
    if "acc_norm,none" in theirs:
        assert row["acc_norm"] == theirs["acc_norm,none"]
    samples = sorted(results["samples"]["quiz"], key=lambda sample: sample["doc_id"])
    likelihoods = [given[0] for sample in samples for given in sample["filtered_resps"]]
    np.testing.assert_allclose(row["log_likelihoods"], likelihoods, rtol=1e-5)
    assert row["n"] == len(samples)


def test_chance_is_that_of_each_question(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz
) -> None:
    (row,) = quiz.rows(checkpoint, passed.features, (), "arc_easy")
    assert row["chance"] == pytest.approx((5 / 3 + 5 / 4) / 10)


def test_a_constant_model_scores_chance(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz
) -> None:
    model = copy.deepcopy(checkpoint.model)
    model.get_output_embeddings().weight.zero_()
    # Every token has the same likelihood, so options tie that have as many of them.
    alike = ["the old bird", "old the bird", "bird the old", "the bird old"]
    records = [
        {
            "support": "",
            "question": f"{option} moves",
            "correct_answer": alike[i],
            **{f"distractor{j}": alike[(i + j) % 4] for j in (1, 2, 3)},
        }
        for i, option in enumerate(alike)
    ]
    rows = quiz.written("sciq", records).rows(
        replace(checkpoint, model=model), passed.features, (0, 3)
    )
    for row in rows:
        assert row["acc_tie"] == row["chance"] == 0.25
        # The first of equal options is taken, and the right one is the last in this task.
        assert row["acc"] == 0


def test_questions_that_do_not_fit_are_cut_from_the_left(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz, texts: Texts
) -> None:
    records = quiz_records(texts)["sciq"][:3]
    long = {**records[0], "support": " ".join(texts.documents)}
    (row,) = quiz.written("sciq", [long, *records]).rows(checkpoint, passed.features)
    assert row["n"] == 4
    assert row["n_truncated"] == 1
    assert row["acc_stderr"] is not None


def test_one_question_has_no_standard_error(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz
) -> None:
    one = replace(quiz.tasks["sciq"], limit=1)
    (row,) = quiz.rows(checkpoint, passed.features, questions=one)
    assert row["n"] == 1
    assert row["acc_stderr"] is None


def test_scores_of_given_likelihoods() -> None:
    questions = [
        Question((1, 4), frozenset({0})),
        Question((5, 5, 5), frozenset({2})),
        Question((2, 2), frozenset({0, 1})),
        Question((0, 3), frozenset({1})),
        Question((3, 3), frozenset()),
    ]
    given = [-2.0, -3.0, -1.0, -1.0 - 5e-7, -1.0, -4.0, -2.0, -1.0, -6.0, -1.0, -1.0 - 2e-6]
    scores = score(questions, np.array(given))
    assert scores.acc.tolist() == [1, 0, 1, 0, 0]
    assert scores.acc_norm.tolist() == [0, 0, 1, 1, 0]
    assert scores.acc_tie.tolist() == pytest.approx([1, 1 / 3, 1, 0, 0])


def test_tasks_without_options_are_refused(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz
) -> None:
    words = quiz.written("lambada_openai", [{"text": "the old bird sings"}])
    with pytest.raises(DataError, match="task 'quiz' is no multiple-choice task") as error:
        words.rows(checkpoint, passed.features, (), "lambada_openai")
    assert error.value.remedy


def test_what_cannot_be_ablated_is_refused(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz
) -> None:
    with pytest.raises(DataError, match="the same for every sequence"):
        quiz.rows(checkpoint, torch.ones(50, D))
    broken = copy.deepcopy(checkpoint.model)
    token = checkpoint.tokenizer(" bird")["input_ids"][-1]
    assert token > 1, "the check of the logits reads the first two"
    broken.get_input_embeddings().weight[token] = torch.nan
    with pytest.raises(DataError, match="of task 'quiz' are not finite") as error:
        quiz.rows(replace(checkpoint, model=broken), passed.features)
    assert error.value.remedy
    odd = copy.deepcopy(checkpoint.model)
    odd.lm_head = nn.Sequential(odd.lm_head)
    odd.lm_head.weight = odd.lm_head[0].weight
    with pytest.raises(DataError, match="the head of GPTNeoXForCausalLM is no linear map"):
        quiz.rows(replace(checkpoint, model=odd), passed.features)
