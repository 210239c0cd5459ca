"""Win rates: the answers of two checkpoints before a judge, in both orders.

Judgements are written down as they come, so that an attempt that is killed, stopped by its cost or
refused is not paid for twice.
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from jobs.errors import DataError
from jobs.identity import digest
from jobs.sources import TextFiles
from jobs.winrate_spec import EndpointJudge
from jobs.winrate_work import JudgeCheckpoint, WinrateWork
from workers import artifacts
from workers.artifacts import Files
from workers.hub import load_checkpoint
from workers.judge import EndpointClient, Verdict
from workers.kernels.win_rate import length_controlled, win_rate
from workers.local_judge import LikelihoodJudge
from workers.measure import Rows
from workers.respond import answers

_ROWS = "rows.json"
_JUDGED = "judged.jsonl"
_NO_DIFFICULTIES = "the study names no difficulties of the instructions"

Key = tuple[int, bool]
"""Place of an instruction, and whether the baseline's answer stands first."""


class Judge(Protocol):
    """Whoever judges."""

    def ask(self, instruction: str, first: str, second: str) -> Verdict:
        """Returns which of two answers is preferred."""


def winrate_tables(
    cell_id: str,
    work: WinrateWork,
    files: Files,
    device: str,
    report: Callable[[int, int], None],
) -> dict[str, Rows]:
    """Returns the rows of a comparison by table, side tables first.

    Raises:
        DataError: Answers to different instructions, difficulties of others, a judge that names
            neither answer to any of them, or that would cost more than it may.
        CellError: The judge refuses.
        OSError: The judge can't be reached.
    """
    if files.artifact(cell_id, _ROWS) is None:
        baseline, compared = (answers(files, response) for response in work.responses)
        if [row["prompt"] for row in baseline] != [row["prompt"] for row in compared]:
            raise DataError("the answers are to different instructions", "`retry` the answers")
        difficulties = _difficulties(work.difficulties, len(baseline), files)
        with artifacts.resumable_artifact(files, cell_id) as folder:
            verdicts, spent = _judged(work, baseline, compared, files, device, folder, report)
            judgements = [
                _judgement(place, first, second, verdicts)
                for place, (first, second) in enumerate(zip(baseline, compared, strict=True))
            ]
            rows = [_summary(work, judgements, verdicts, difficulties, spent)]
            tables = {"judgements": judgements, work.table: rows}
            (folder / _ROWS).write_text(json.dumps(tables), encoding="utf-8")
    path = artifacts.whole(files, cell_id, (_ROWS,)) / _ROWS
    found: dict[str, Rows] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _judged(
    work: WinrateWork,
    baseline: Rows,
    compared: Rows,
    files: Files,
    device: str,
    folder: Path,
    report: Callable[[int, int], None],
) -> tuple[dict[Key, Verdict], float]:
    """Returns all verdicts, those of earlier attempts too, and what all of them cost."""
    questions: dict[Key, tuple[str, str, str]] = {}
    for place, (one, other) in enumerate(zip(baseline, compared, strict=True)):
        first, second = one["output"], other["output"]
        # Of equal answers none can be better, whatever a judge's love of one place.
        if first is not None and second is not None and first != second:
            questions[place, True] = (one["prompt"], first, second)
            questions[place, False] = (one["prompt"], second, first)
    known, spent = _kept(folder / _JUDGED)
    left = {key: asked for key, asked in questions.items() if key not in known}
    if not left:
        return known, spent
    with (folder / _JUDGED).open("a", encoding="utf-8") as kept:

        def keep(entry: Mapping[str, object]) -> None:
            # The line break comes first: an attempt that was killed may have left half a line.
            kept.write("\n" + json.dumps(entry))
            kept.flush()

        def take(key: Key, verdict: Verdict) -> None:
            known[key] = verdict
            keep({"key": key, **asdict(verdict)})
            report(len(known), len(questions))

        if isinstance(work.judge, EndpointJudge):
            client = EndpointClient(work.judge, spent)
            try:
                _ask_all(client, work.judge.concurrency, left, take)
            finally:
                keep({"spent": client.spent})
                client.close()
            return known, client.spent
        with _local(work.judge, files, device) as judge:
            for key, asked in left.items():
                take(key, judge.ask(*asked))
    return known, spent


def _ask_all(
    client: EndpointClient,
    concurrency: int,
    questions: Mapping[Key, tuple[str, str, str]],
    take: Callable[[Key, Verdict], None],
) -> None:
    """Asks all questions, a few at a time; where one fails, what was under way is still taken."""
    with ThreadPoolExecutor(concurrency, thread_name_prefix="judge") as pool:
        asked: dict[Future[Verdict], Key] = {
            pool.submit(client.ask, *question): key for key, question in questions.items()
        }
        try:
            for future in as_completed(asked):
                verdict = future.result()
                take(asked.pop(future), verdict)
        except BaseException:
            client.stop()
            pool.shutdown(cancel_futures=True)
            for future, key in asked.items():
                if not future.cancelled() and future.exception() is None:
                    take(key, future.result())
            raise


@contextmanager
def _local(judge: JudgeCheckpoint, files: Files, device: str) -> Iterator[Judge]:
    def unheard(_done: int, _total: int) -> None:
        """The judge lies on this node or is fetched while the study's checkpoints are."""

    with (
        artifacts.held(files, judge.source, unheard) as weights,
        artifacts.held(files, judge.tokenizer, unheard) as tokenizer,
    ):
        yield LikelihoodJudge(load_checkpoint(weights, tokenizer, judge.dtype, device))


def _kept(path: Path) -> tuple[dict[Key, Verdict], float]:
    """Returns what earlier attempts have written down: verdicts, and what they cost."""
    verdicts: dict[Key, Verdict] = {}
    spent = 0.0
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:  # An empty line, or half of one that a kill has left.
            continue
        if "spent" in entry:
            spent = max(spent, float(entry["spent"]))
        else:
            place, straight = entry.pop("key")
            verdicts[place, straight] = Verdict(**entry)
    return verdicts, spent


def _judgement(
    place: int,
    baseline: Mapping[str, Any],
    compared: Mapping[str, Any],
    verdicts: Mapping[Key, Verdict],
) -> dict[str, Any]:
    """Returns the row of one instruction; both orders are on the same scale."""
    first, second = baseline["output"], compared["output"]
    identical = first is not None and first == second
    straight, swapped = (verdicts.get((place, order)) for order in (True, False))
    orders = [
        None if straight is None else straight.preference,
        None if swapped is None or swapped.preference is None else 3 - swapped.preference,
    ]
    mean = None if None in orders else sum(p for p in orders if p is not None) / 2
    told = [v for v in (straight, swapped) if v is not None]
    return {
        "instruction": place,
        "preference": 1.5 if identical else mean,
        "baseline_first": orders[0],
        "baseline_second": orders[1],
        "weighted": len(told) == 2 and all(v.weighted for v in told),
        "identical": identical,
        "n_nonsense": sum(v.nonsense for v in told),
        "baseline_length": None if first is None else len(first),
        "length": None if second is None else len(second),
    }


def _summary(
    work: WinrateWork,
    judgements: Rows,
    verdicts: Mapping[Key, Verdict],
    difficulties: list[float] | None,
    spent: float,
) -> dict[str, Any]:
    """Returns the row of the comparison."""
    preferences = [row["preference"] for row in judgements]
    rate = win_rate(preferences)
    if not rate.n:
        raise DataError(
            f"none of {rate.n_null} pairs of answers has a preference: the judge's replies name "
            "neither m nor M, or a checkpoint has no answers",
            "look at the judge's prompt and answer_tokens, and at table `responses`",
        )
    lengths = [(row["baseline_length"], row["length"]) for row in judgements]
    differences = [math.nan if None in pair else pair[0] - pair[1] for pair in lengths]
    minimal = length_controlled(preferences, differences)
    controlled = (
        None if difficulties is None else length_controlled(preferences, differences, difficulties)
    )
    baseline, compared = work.sides
    given = [v.preference for v in verdicts.values() if v.preference is not None]
    weighted = [v.weighted for v in verdicts.values() if v.preference is not None]
    return {
        "revision": compared.revision,
        "step": compared.step,
        "stage": compared.stage,
        "comparison": work.comparison,
        "instructions": work.instructions,
        "start_step": compared.start,
        "baseline_suite": baseline.suite,
        "baseline_model": baseline.model,
        "baseline_revision": baseline.revision,
        "baseline_start_step": baseline.start,
        "judge": _name(work),
        "judge_kind": "endpoint" if isinstance(work.judge, EndpointJudge) else "local",
        "win_rate": rate.rate,
        "stderr": rate.stderr if rate.n > 1 else None,
        "n": rate.n,
        "n_null": rate.n_null,
        "n_wins": rate.wins,
        "n_losses": rate.losses,
        "n_draws": rate.draws,
        "first_rate": 100 * (2 - sum(given) / len(given)) if given else None,
        "weighted": sum(weighted) / len(weighted) if weighted else None,
        "length_controlled": controlled,
        "length_controlled_reason": None if controlled is not None else _NO_DIFFICULTIES,
        "length_minimal": minimal,
        "baseline_length": _mean([first for first, _ in lengths]),
        "length": _mean([second for _, second in lengths]),
        "n_nonsense": sum(row["n_nonsense"] for row in judgements),
        "cost": spent,
    }


def _name(work: WinrateWork) -> str:
    match work.judge:
        case EndpointJudge(model=model):
            return model
        case JudgeCheckpoint(source):
            return digest(source.identity)


def _mean(values: list[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _difficulties(given: TextFiles | None, count: int, files: Files) -> list[float] | None:
    """Returns the difficulty of each instruction, where the study names them."""
    if given is None:
        return None
    ((name, sha256),) = files.text(given).files
    content = Path(name).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{name} changed since it was planned", "run the command again")
    try:
        lines = csv.DictReader(io.StringIO(content.decode()))
        found = [float(line["instruction_difficulty"]) for line in lines]
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{name} has no numbers in a column `instruction_difficulty`: {error!r}",
            "name a CSV that has",
        ) from error
    if len(found) < count or not all(map(math.isfinite, found)):
        raise DataError(
            f"{name} holds {len(found)} difficulties, for {count} instructions",
            "give a finite number for each instruction, in the order of the instructions",
        )
    return found[:count]
