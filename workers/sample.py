"""What is sampled from one checkpoint: graded answers to problems, and pass@k from their counts."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from jobs.cells import Cell
from jobs.errors import DataError
from jobs.events import Progress, Started
from jobs.posttrain_work import PassKWork, Records, SampleWork
from jobs.sources import Produced
from workers import artifacts
from workers.artifacts import ROWS, Files
from workers.engines import Asked, ModelFolder, holding, read_folder
from workers.generate import text_after
from workers.grade import Grade, Grader, grader
from workers.hub import take_chat_template
from workers.kernels import passk
from workers.measure import Rows
from workers.problems import Problem, has_template, load_problems, problem_ids
from workers.tally import phase
from workers.telling import Clock, Report, Task, finished, reporting_failure
from workers.weight_files import are_pickled

_COUNTS = "counts.json"


@dataclass(frozen=True)
class _Problems:
    """Problems, the tokens of their prompts, and what grades answers to them."""

    problems: list[Problem]
    ids: list[list[int]]
    grade: Grader


_Known = dict[tuple[Records, float], _Problems]
"""What was read already, by the records and the time limit; it is shared by runs of problems."""


def sample_checkpoint(task: Task, files: Files, report: Report) -> None:
    """Runs the cells of a task, all of one checkpoint: first what is sampled, then pass@k of it."""
    clock = Clock()
    new = [
        cell
        for cell in task.cells
        if isinstance(cell.work, SampleWork) and files.artifact(cell.id, ROWS) is None
    ]
    if new:
        _sample(new, task, files, report, clock)
    for cell in task.cells:
        if cell in new:
            continue
        with reporting_failure([cell], report):
            report(Started(cell.id))
            match cell.work:
                case SampleWork():
                    rows = artifacts.published_rows(files, cell.id)
                case PassKWork() as work:
                    rows = passk_rows(work, files)
                case work:
                    raise ValueError(f"a cell of kind {work.kind} samples nothing")
            report(finished(cell, {cell.work.table: rows}, task, clock.lap()))


def _sample(cells: Sequence[Cell], task: Task, files: Files, report: Report, clock: Clock) -> None:
    """Samples, from one load of the checkpoint."""
    checkpoint = cells[0].checkpoint
    if checkpoint is None:
        raise ValueError("nothing can be sampled without a checkpoint")

    def fetched(done: int, total: int) -> None:
        report(Progress(cells[0].id, done, total))

    with (
        reporting_failure(cells, report),
        artifacts.held(files, checkpoint.source, fetched) as weights,
        artifacts.held(files, checkpoint.tokenizer, fetched) as tokenizer,
        ExitStack() as stack,
    ):
        folder = read_folder(weights, tokenizer, checkpoint.digest, are_pickled(checkpoint.source))
        if isinstance(checkpoint.source, Produced):
            take_chat_template(folder.tokenizer, weights)
        known: _Known = {}
        for cell in cells:
            with reporting_failure([cell], report):
                report(Started(cell.id))
                _sample_one(cell, folder, known, stack, task.device, files, report)
                rows = artifacts.published_rows(files, cell.id)
                report(finished(cell, {cell.work.table: rows}, task, clock.lap()))


def _sample_one(
    cell: Cell,
    folder: ModelFolder,
    known: _Known,
    stack: ExitStack,
    device: str,
    files: Files,
    report: Report,
) -> None:
    """Samples and grades the answers of a cell, and publishes them.

    A kill between publication and the rows' commit then costs no second sampling.
    """
    work = cell.work
    assert isinstance(work, SampleWork)
    read = _read(work, files, folder, known, stack)
    problems, ids = read.problems, read.ids
    places = range(work.first, min(work.first + work.count, len(problems)))
    if not places:
        raise DataError(
            f"problems '{work.records.name}' are {len(problems)}, and the run from "
            f"{work.first} on is empty",
            f"set training.{work.records.name}.limit to {len(problems)} at most",
        )
    # Of all problems: another run of them then needs no other engine.
    length = max(map(len, ids)) + work.sampling.new_tokens
    asked = [Asked(place, ids[place]) for place in places]

    def progress(done: int, total: int) -> None:
        report(Progress(cell.id, done * work.sampling.samples, total * work.sampling.samples))

    with holding(folder, work.sampling, device, length) as engine, phase("sample"):
        name, sampled = engine.name, engine.sample(asked, work.sampling, progress)
    texts = [
        _texts(folder.tokenizer, each.ids, tokens)
        for each, tokens in zip(asked, sampled, strict=True)
    ]
    # All at once, so that one that is slow to grade holds up no other.
    chosen = [problems[place] for place in places for _ in range(work.sampling.samples)]
    with phase("grade"):
        grades = read.grade(
            [problem.prompt for problem in chosen],
            [problem.reference for problem in chosen],
            [text for of_problem in texts for text in of_problem],
        )
    rows = [
        _row(
            work,
            place,
            problems[place],
            texts[row],
            [len(tokens) for tokens in sampled[row]],
            grades[row * work.sampling.samples : (row + 1) * work.sampling.samples],
            name,
        )
        for row, place in enumerate(places)
    ]
    with artifacts.fresh_artifact(files, cell.id) as made:
        (made / ROWS).write_text(json.dumps(rows))
        (made / _COUNTS).write_text(json.dumps(_counts(rows)))


def _read(
    work: SampleWork, files: Files, folder: ModelFolder, known: _Known, stack: ExitStack
) -> _Problems:
    """Returns the problems of a cell, and what grades them until the stack is closed."""
    records, limit = work.records, work.sampling.time_limit
    if (records, limit) not in known:
        problems = load_problems(records, files, folder.tokenizer)
        template = has_template(records, folder.tokenizer)
        ids = [problem_ids(problem, template, folder.tokenizer) for problem in problems]
        known[records, limit] = _Problems(
            problems, ids, stack.enter_context(grader(records, limit))
        )
    return known[records, limit]


def _texts(tokenizer: Any, prompt: list[int], sampled: Sequence[list[int]]) -> list[str]:
    """Returns the texts of a problem's samples; equal ones are decoded once."""
    texts = {
        tokens: text_after(tokenizer, prompt, list(tokens))
        for tokens in dict.fromkeys(map(tuple, sampled))
    }
    return [texts[tuple(tokens)] for tokens in sampled]


def _row(
    work: SampleWork,
    place: int,
    problem: Problem,
    texts: list[str],
    lengths: list[int],
    grades: Sequence[Grade],
    engine: str,
) -> dict[str, Any]:
    return {
        "problems": work.records.name,
        "problem": place,
        "prompt": problem.prompt,
        "reference": problem.reference,
        "texts": texts,
        "answers": [each.answer for each in grades],
        "correct": [each.correct for each in grades],
        "well_formed": [each.well_formed for each in grades],
        "tokens_sampled": lengths,
        "n": len(texts),
        "n_correct": sum(each.correct for each in grades),
        "n_timeouts": sum(each.timed_out for each in grades),
        "temperature": work.sampling.temperature,
        "top_p": work.sampling.top_p,
        "seed": work.sampling.seed,
        "engine": engine,
    }


def _counts(rows: Rows) -> dict[str, Any]:
    """Returns what pass@k needs of some rows of `samples`."""
    pooled = Counter(
        normalized(answer) for row in rows for answer in row["answers"] if answer is not None
    )
    first = rows[0]
    return {
        "n": [row["n"] for row in rows],
        "correct": [row["n_correct"] for row in rows],
        "well_formed": sum(sum(row["well_formed"]) for row in rows),
        "problems": [[row["prompt"], row["reference"]] for row in rows],
        "fingerprint": fingerprint([(row["prompt"], row["reference"]) for row in rows]),
        "answers": pooled,
        **{name: first[name] for name in ("temperature", "top_p", "seed", "engine")},
    }


def passk_rows(work: PassKWork, files: Files) -> Rows:
    """Returns the rows of table `passk`, one for each k, from the counts of sample cells.

    A guess is right where the answers are equal as `normalized` writes them. For sums that is
    exact; mathematical answers that are equal but written otherwise are missed.

    Raises:
        DataError: Samples are gone, or a problem has fewer of them than k.
    """
    counts: list[Mapping[str, Any]] = [
        json.loads((artifacts.whole(files, cell, (_COUNTS,)) / _COUNTS).read_text())
        for cell in work.samples
    ]
    n = [each for part in counts for each in part["n"]]
    correct = [each for part in counts for each in part["correct"]]
    problems = [(prompt, answer) for part in counts for prompt, answer in part["problems"]]
    if max(work.k) > min(n):
        raise DataError(
            f"pass@{max(work.k)} of '{work.problems}' needs as many samples of each problem, and "
            f"one has {min(n)}",
            "raise passk.samples, or lower passk.k",
        )
    pooled: Counter[str] = Counter()
    for part in counts:
        pooled.update(part["answers"])
    guessed = passk.guessing(
        [pooled[normalized(answer)] / sum(n) for _, answer in problems], work.k
    )
    of_problems = passk.curves(n, correct, work.k)
    found = passk.means(of_problems, counts[0]["seed"])
    return [
        {
            "problems": work.problems,
            "k": k,
            "pass_at_k": float(found.mean[place]),
            "stderr": float(found.stderr[place]),
            "low": float(found.low[place]),
            "high": float(found.high[place]),
            "guessing": float(guessed[place]),
            "n_problems": len(n),
            "n_samples": min(n),
            "well_formed": sum(part["well_formed"] for part in counts) / sum(n),
            "problem_pass_at_k": of_problems[:, place].tolist(),
            "correct_counts": correct,
            **{name: counts[0][name] for name in ("temperature", "top_p", "engine")},
            "template_fingerprint": fingerprint(problems),
        }
        for place, k in enumerate(work.k)
    ]


def normalized(answer: str) -> str:
    """Returns an answer without spaces and dollar signs, and with one kind of fraction."""
    bare = "".join(answer.split()).replace("$", "")
    return bare.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")


def fingerprint(problems: Sequence[tuple[str, str]]) -> str:
    """Returns the SHA-256 of prompts and right answers, in order."""
    return hashlib.sha256(json.dumps(problems, ensure_ascii=False).encode()).hexdigest()
