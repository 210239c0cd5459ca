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
from typing import Protocol

from jobs.errors import DataError
from jobs.sources import Produced, TextFiles
from jobs.winrate_spec import EndpointJudge
from jobs.winrate_work import JudgeCheckpoint, WinrateWork
from workers import artifacts
from workers.artifacts import ROWS, Files
from workers.hub import load_checkpoint, take_chat_template
from workers.judge import EndpointClient, Verdict
from workers.local_judge import LikelihoodJudge
from workers.measure import Rows
from workers.respond import answers
from workers.tally import phase
from workers.winrate_rows import Key, judgement_row, winrate_row

_JUDGED = "judged.jsonl"


class Judge(Protocol):
    """Whoever judges."""

    def ask(self, instruction: str, first: str, second: str) -> Verdict:
        """Returns which of two answers is preferred."""


@phase("grade")
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
    if files.artifact(cell_id, ROWS) is None:
        baseline, compared = (answers(files, response) for response in work.responses)
        if [row["prompt"] for row in baseline] != [row["prompt"] for row in compared]:
            raise DataError("the answers are to different instructions", "`retry` the answers")
        difficulties = _difficulties(work.difficulties, len(baseline), files)
        with artifacts.resumable_artifact(files, cell_id) as folder:
            verdicts, spent = _judged(work, baseline, compared, files, device, folder, report)
            judgements = [
                judgement_row(place, first, second, verdicts)
                for place, (first, second) in enumerate(zip(baseline, compared, strict=True))
            ]
            rows = [winrate_row(work, judgements, verdicts, difficulties, spent)]
            tables = {"judgements": judgements, work.table: rows}
            (folder / ROWS).write_text(json.dumps(tables), encoding="utf-8")
    found: dict[str, Rows] = artifacts.published_rows(files, cell_id)
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
        loaded = load_checkpoint(weights, tokenizer, judge.dtype, device)
        if isinstance(judge.source, Produced):
            take_chat_template(loaded.tokenizer, weights)
        yield LikelihoodJudge(loaded)


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
