"""Rows of evaluations: lm-eval's own accuracies, and what a degenerate model scores."""

import copy
import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.metrics import mean_stderr

from jobs.capability_work import EvalWork
from jobs.errors import DataError
from jobs.questions import HarnessQuestions, Questions
from jobs.records import rows_table
from tests.workers.drawing import files
from tests.workers.measured import own
from tests.workers.models import silent
from tests.workers.test_harness import of_config, of_sciq, sciq
from tests.workers.test_pico_tasks import asked, with_corpus
from workers import harness
from workers.artifacts import SharedFiles
from workers.evaluate import eval_rows
from workers.facts import invent
from workers.hub import LoadedCheckpoint, load_checkpoint
from workers.measure import Rows

DATA = Path(__file__).parents[3] / "shared" / "data"
MODEL, QA = DATA / "models" / "stories260K", DATA / "qa"
LIMIT, BATCH = 100, 16
CHOICE = {"acc", "acc_norm", "acc_tie"}
OWN = {
    "hellaswag": """
output_type: multiple_choice
test_split: test
doc_to_text: "{{query}}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "lambada": """
output_type: loglikelihood
test_split: test
doc_to_text: "{{context}}"
doc_to_target: "{{' ' + continuation}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "triviaqa": """
output_type: generate_until
test_split: test
doc_to_text: "{{context}}"
doc_to_target: aliases
generation_kwargs: {until: ["\\n", "."], do_sample: false, max_gen_toks: 8}
metric_list: [{metric: exact_match, ignore_case: true}]
""",
}
FILES = {
    "sciq": "sciq_validation.jsonl",
    "arc_easy": "arc_easy_validation.jsonl",
    "hellaswag": "hellaswag_val1000_docs.jsonl",
    "lambada": "lambada_openai.jsonl",
    "triviaqa": "triviaqa_sm_sub.jsonl",
}


def rows_of(
    questions: Questions, checkpoint: LoadedCheckpoint, folder: Path, batch_size: int = BATCH
) -> tuple[Rows, Rows]:
    work = EvalWork(questions, "float32")
    rows, outcomes = eval_rows(work, checkpoint, SharedFiles(folder), batch_size, silent)
    assert rows_table("evals", rows).num_rows == len(rows)
    assert rows_table("outcomes", outcomes).num_rows == len(outcomes)
    return rows, outcomes


def by_metric(rows: Rows, subset: str = "all") -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in rows if row["subset"] == subset}


def constant(checkpoint: LoadedCheckpoint, weight: float = 0) -> LoadedCheckpoint:
    model = copy.deepcopy(checkpoint.model)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(weight)
    return replace(checkpoint, model=model)


@pytest.mark.slow
@pytest.mark.skipif(
    not MODEL.is_dir(), reason="the trained model of ../shared/data is not beside the repository"
)
def test_the_command_line_of_lm_eval_gives_the_same_numbers(tmp_path: Path) -> None:
    results, samples = _command_line(tmp_path)
    checkpoint = load_checkpoint(MODEL, MODEL, "float32", "cpu")
    for name, file in FILES.items():
        config = files(tmp_path / f"own_{name}.yaml") if name in OWN else None
        task, data = None if config else name, files(QA / file)
        questions = HarnessQuestions(name, task, config, data, 0, LIMIT)
        rows, outcomes = rows_of(questions, checkpoint, tmp_path)
        assert name != "sciq" or any(outcome["truncated"] for outcome in outcomes)
        found, theirs = by_metric(rows), results[f"local_{name}"]
        metrics = found.keys() - {"acc_tie"}
        told = {f"{metric}{error},none" for metric in metrics for error in ("", "_stderr")}
        assert told == {key for key in theirs if key.endswith(",none")}
        for metric in metrics:
            value, stderr = theirs[f"{metric},none"], theirs[f"{metric}_stderr,none"]
            if metric == "perplexity":  # The command line's error is the bootstrap's, of its tail.
                assert found[metric]["value"] == pytest.approx(value, rel=1e-5)
            else:
                assert (found[metric]["value"], found[metric]["stderr"]) == (value, stderr)
        for outcome, sample in zip(outcomes, samples[f"local_{name}"], strict=True):
            assert outcome["example"] == sample["doc_id"]
            said = [given[0] for given in sample["resps"]]
            if name == "triviaqa":
                assert outcome["response"] == said[0]
            else:
                expected = [float(value) for value, _ in said]
                np.testing.assert_allclose(outcome["log_likelihoods"], expected, atol=1e-4, rtol=0)
            for metric in {"acc", "acc_norm"} & metrics:
                assert outcome[metric] == sample[metric]


def _command_line(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the results and the samples of each task, in the order of the examples."""
    included = folder / "included"
    included.mkdir()
    for name, file in FILES.items():
        config = folder / f"own_{name}.yaml" if name in OWN else harness._shipped(name)
        if name in OWN:
            config.write_text(OWN[name])
        fields: dict[str, Any] = {
            "include": str(config),
            "task": f"local_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(QA / file)}},
            **dict.fromkeys(("dataset_name", "training_split", "validation_split")),
        }
        (included / f"{name}.yaml").write_text(json.dumps(fields))
    names = [f"local_{name}" for name in FILES]
    command = f"""-m lm_eval run --model hf --model_args pretrained={MODEL},dtype=float32
        --tasks {",".join(names)} --include_path {included} --output_path {folder / "out"}
        --log_samples --limit {LIMIT} --batch_size {BATCH} --device cpu"""
    environment = {**os.environ, "HF_HOME": str(folder / "home")}
    arguments = [sys.executable, *command.split()]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("out/*/results_*.json")
    samples = {}
    for name in names:
        (lines,) = path.parent.glob(f"samples_{name}_*.jsonl")
        read = map(json.loads, lines.read_text().splitlines())
        samples[name] = sorted(read, key=lambda sample: sample["doc_id"])
    return json.loads(path.read_text())["results"], samples


def test_a_constant_model_scores_chance_by_acc_tie(
    checkpoint: LoadedCheckpoint, tmp_path: Path
) -> None:
    rows, outcomes = rows_of(of_sciq(tmp_path, sciq(5)), constant(checkpoint), tmp_path)
    found = by_metric(rows)
    # SciQ's right option is the last one, and ties go to the first.
    assert (found["acc"]["value"], found["acc_tie"]["value"]) == (0, 0.25)
    assert all(row["chance"] == 0.25 for row in rows)
    assert all(len({*outcome["log_likelihoods"]}) == 1 for outcome in outcomes)
    assert [outcome["acc_tie"] for outcome in outcomes] == [0.25] * 5


def test_rows_are_the_means_of_their_outcomes(checkpoint: LoadedCheckpoint, tmp_path: Path) -> None:
    rows, outcomes = rows_of(of_sciq(tmp_path, sciq(30), limit=20), checkpoint, tmp_path)
    assert [outcome["example"] for outcome in outcomes] == list(range(20))
    assert {*by_metric(rows)} == CHOICE
    for row in rows:
        values = [outcome[row["metric"]] for outcome in outcomes]
        assert row["value"] == pytest.approx(statistics.fmean(values), rel=1e-12)
        assert row["stderr"] == pytest.approx(statistics.stdev(values) / 20**0.5, rel=1e-12)
        assert (row["n"], row["n_truncated"], row["shots"]) == (20, 0, 0)
        assert (row["task"], row["forward_dtype"]) == ("mine", "float32")
        assert row.keys() <= own("evals")
    for outcome in outcomes:
        likelihoods = outcome["log_likelihoods"]
        assert outcome["label"] == 3
        assert outcome["acc"] == (max(likelihoods) == likelihoods[3])
        assert outcome.keys() == own("outcomes")
    assert len({row["template_fingerprint"] for row in rows}) == 1
    single, _ = rows_of(of_sciq(tmp_path, sciq(30), limit=1), checkpoint, tmp_path)
    assert {(row["n"], row["stderr"]) for row in single} == {(1, None)}


def test_cut_examples_are_counted_and_flagged(checkpoint: LoadedCheckpoint, tmp_path: Path) -> None:
    questions = sciq(6)
    questions[1]["support"] = questions[4]["support"] = "the river moves " * 60
    rows, outcomes = rows_of(of_sciq(tmp_path, questions), checkpoint, tmp_path)
    assert {row["n_truncated"] for row in rows} == {2}
    assert [o["example"] for o in outcomes if o["truncated"]] == [1, 4]


def test_perplexity_has_the_error_of_the_delta_method(
    checkpoint: LoadedCheckpoint, tmp_path: Path
) -> None:
    said = [{"context": "the river", "continuation": word} for word in ("moves", "sings", "falls")]
    rows, outcomes = rows_of(of_config(tmp_path, said, OWN["lambada"]), checkpoint, tmp_path)
    found = by_metric(rows)
    likelihoods = [outcome["log_likelihoods"][0] for outcome in outcomes]
    value = np.exp(-np.mean(likelihoods))
    assert found["perplexity"]["value"] == pytest.approx(value, rel=1e-12)
    assert found["perplexity"]["stderr"] == pytest.approx(value * mean_stderr(likelihoods))
    assert {row["chance"] for row in rows} == {None}
    assert {outcome["label"] for outcome in outcomes} == {None}
    assert "acc_tie" not in found


def test_the_first_of_several_filters_counts(checkpoint: LoadedCheckpoint, tmp_path: Path) -> None:
    config = (
        OWN["triviaqa"]
        + """
filter_list:
  - {name: never, filter: [{function: regex, regex_pattern: "(unheard)"}, {function: take_first}]}
  - {name: plain, filter: [{function: take_first}]}
"""
    )
    said = [{"context": "the river", "aliases": ["[invalid]"]}] * 2
    rows, outcomes = rows_of(of_config(tmp_path, said, config), checkpoint, tmp_path)
    (row,) = rows
    assert (row["metric"], row["value"], row["n"]) == ("exact_match", 1.0, 2)
    assert all(isinstance(o["response"], str) and o["acc"] == 1 for o in outcomes)
    assert {outcome["log_likelihoods"] for outcome in outcomes} == {None}


def test_checkpoints_share_questions_and_no_answers(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = of_sciq(tmp_path, sciq(), shots=1)
    folders = [tiny_series / f"step{step}" for step in (0, 100)]
    loaded = [load_checkpoint(folder, folder, "float32", "cpu") for folder in folders]
    alone = []
    for checkpoint in loaded:
        monkeypatch.setattr(harness, "_tasks", {})
        alone.append(rows_of(questions, checkpoint, tmp_path))
    first, second = ([o["log_likelihoods"] for o in outcomes] for _, outcomes in alone)
    assert first != second
    for place in (0, 1, 0, 0):
        assert rows_of(questions, loaded[place], tmp_path) == alone[place]
    assert len(harness._tasks) == 1
    assert len({row["template_fingerprint"] for rows, _ in alone for row in rows}) == 1


@pytest.mark.parametrize(
    ("form", "metrics", "chance"),
    [("choice", CHOICE, 1 / 4), ("open", {"exact_match"}, 1 / 16), ("last_word", {"acc"}, 1 / 16)],
)
def test_pico_questions_are_also_told_apart_by_frequency(
    checkpoint: LoadedCheckpoint, tmp_path: Path, form: Any, metrics: set[str], chance: float
) -> None:
    results = with_corpus(tmp_path, invent(documents=600, subjects=12, seed=1), "twelve")
    rows, outcomes = rows_of(asked(form, "train", 9, "twelve"), checkpoint, results)
    middle = sorted(outcome["frequency"] for outcome in outcomes)[4]
    frequent = [outcome for outcome in outcomes if outcome["frequency"] > middle]
    rare = [outcome for outcome in outcomes if outcome["frequency"] <= middle]
    parts = {"all": outcomes, "frequent": frequent, "rare": rare}
    assert frequent
    assert len(rows) == 3 * len(metrics)
    for row in rows:
        among = parts[row["subset"]]
        column = "acc" if row["metric"] == "exact_match" else row["metric"]
        assert row["value"] == pytest.approx(statistics.fmean(o[column] for o in among))
        assert (row["n"], row["chance"]) == (len(among), pytest.approx(chance))
        assert row["metric"] in metrics


def test_equal_frequencies_have_no_halves(checkpoint: LoadedCheckpoint, tmp_path: Path) -> None:
    results = with_corpus(tmp_path, invent(documents=60, subjects=1, seed=1), "one")
    rows, _ = rows_of(asked("choice", "train", cell_id="one"), checkpoint, results)
    assert {row["subset"] for row in rows} == {"all"}


def test_a_model_without_numbers_has_no_accuracy(
    checkpoint: LoadedCheckpoint, tmp_path: Path
) -> None:
    broken = constant(checkpoint, torch.nan)
    with pytest.raises(DataError, match=r'not finite → try forward.dtype = "float32"'):
        rows_of(of_sciq(tmp_path, sciq()), broken, tmp_path)


def test_nothing_but_progress_is_told(
    checkpoint: LoadedCheckpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []
    work, store = EvalWork(of_sciq(tmp_path, sciq(10), shots=1), "float32"), SharedFiles(tmp_path)
    eval_rows(work, checkpoint, store, 4, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {40}
    assert seen[-1] == (40, 40)
    assert len(seen) >= 4
    assert capfd.readouterr() == ("", "")
