"""What the user sees while cells run: a live table on a terminal, plain lines in a log."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, get_args

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.cells import Cell
from jobs.events import Failed, Finished, Progress, Started
from jobs.work import StageName
from orchestrator.messages import SlotLost, SlotOpened

_LINE_EVERY_SECONDS = 10.0
_USUAL_GUESS_SECONDS = 2.0
_SHOWN_RUNNING = 8
_SHOWN_FAILURES = 20
_STAGES: tuple[StageName, ...] = get_args(StageName)


@dataclass(frozen=True)
class Running:
    """A cell at work.

    Attributes:
        cell_id: The cell.
        label: Its name for people.
        node: Where it runs.
        seconds: For how long.
        fraction: How much of it is done, where it tells.
    """

    cell_id: str
    label: str
    node: str
    seconds: float
    fraction: float | None


@dataclass(frozen=True)
class Snapshot:
    """What is known of a run at one moment.

    Attributes:
        state: `starting` until workers are asked for, `running`, or `draining` after an interrupt.
        stages: Stage, done, all and failed or blocked cells of each stage.
        running: The cells at work.
        failures: Cell id, label and message of the latest failures.
        workers_ready: How many workers are there.
        workers_wanted: How many there shall be.
        cells_per_minute: Finished cells per minute since the run began.
        remaining_seconds: Estimate of the time left.
        seconds: Since the run began.
    """

    state: str
    stages: tuple[tuple[str, int, int, int], ...]
    running: tuple[Running, ...]
    failures: tuple[tuple[str, str, str], ...]
    workers_ready: int
    workers_wanted: int
    cells_per_minute: float
    remaining_seconds: int
    seconds: float


class ProgressView:
    """Counts cells by stage, shows what runs, and tells the remaining time.

    Args:
        cells: The cells of the plan.
        done: Cells that are done already.
        console: Where to write.
        workers: How many workers are wanted, until the executor tells.
        publish: Takes what is known of the run, often.
        guesses: Seconds of a cell of each kind, until one has ended.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        done: frozenset[str],
        console: Console,
        workers: int,
        publish: Callable[[Callable[[], Snapshot]], None] = lambda _: None,
        guesses: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._cells = {cell.id: cell for cell in cells}
        self._states: Mapping[str, str] = {
            cell.id: "done" if cell.id in done else "waiting" for cell in cells
        }
        self._console = console
        self._ready, self._wanted = 0, workers
        self._publish, self._guesses = publish, guesses
        self._nodes: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self._failures: deque[tuple[str, str, str]] = deque(maxlen=_SHOWN_FAILURES)
        self._draining = False
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._started: dict[str, float] = {}
        self._fraction: dict[str, float] = {}
        self._finished_here = 0
        self._begin = self._last_line = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4)

    def __enter__(self) -> None:
        self._begin = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._live.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
        elif self._cells:
            self._console.print(self.line(), markup=False)

    def show(self, event: Any, states: Mapping[str, str], workers: tuple[int, int]) -> None:
        """Takes note of an event, of the cells' states, and of the workers there and wanted."""
        self._states = states
        self._ready, self._wanted = workers
        match event:
            case SlotOpened(slot, node):
                self._nodes[slot] = node
            case SlotLost(slot, cause, message):
                self._console.print(
                    f"lost a worker ({self._nodes.pop(slot, slot)}), {cause}: {message}",
                    markup=False,
                )
            case Started(cell_id):
                self._started[cell_id] = time.monotonic()
            case Progress(cell_id, done, total):
                self._fraction[cell_id] = done / max(1, total)
            case Finished(cell_id):
                self._finished_here += 1
                kind = self._cells[cell_id].work.kind
                self._seconds[kind].append(float(event.provenance.get("seconds", 0.0)))
                self._forget(cell_id)
            case Failed(cell_id):
                self._forget(cell_id)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            self._console.print(self.line(), markup=False)
        self._publish(self.snapshot)

    def placed(self, slot: str, cells: Sequence[Cell]) -> None:
        """Takes note of where cells run."""
        self._places.update(dict.fromkeys((cell.id for cell in cells), self._nodes.get(slot, slot)))

    def draining(self, seconds: float) -> None:
        """Says that the run ends early."""
        self._draining = True
        self._console.print(
            f"interrupted: nothing new is begun, and what is at work has {seconds:.0f} s to end; "
            "a second interrupt ends it now",
            markup=False,
        )

    def failed(self, cell: Cell, failure: Failed) -> None:
        """Says at once that a cell was given up."""
        self._failures.append((cell.id, cell.label, f"{failure.cause}: {failure.message}"))
        remedy = f" → {failure.remedy}" if failure.remedy else ""
        self._console.print(
            f"failed: {cell.label} ({failure.cause}): {failure.message}{remedy}", markup=False
        )

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._begin

    def line(self) -> str:
        """Returns the state in one line."""
        parts = [
            f"{stage} {done}/{total}" + (f" ({failed} failed)" if failed else "")
            for stage, done, total, failed in self._by_stage()
        ]
        done = sum(state == "done" for state in self._states.values())
        running = [
            f"{self._cells[c].label} {100 * self._fraction.get(c, 0):.0f} %"
            for c in self._in_progress()
        ]
        text = f"{done}/{len(self._states)} cells · {' · '.join(parts)} · {self._rate()}"
        return f"{text} · running: {', '.join(running[:3])}" if running else text

    def remaining_seconds(self) -> float:
        """Estimates the time that is left from the cells measured so far."""
        now = time.monotonic()
        rest, longest = 0.0, 0.0
        for cell_id, state in self._states.items():
            if state not in ("waiting", "running"):
                continue
            kind = self._cells[cell_id].work.kind
            seen = self._seconds[kind]
            guess = sum(seen) / len(seen) if seen else self._guesses.get(kind, _USUAL_GUESS_SECONDS)
            if state == "running" and cell_id in self._started:
                spent, share = now - self._started[cell_id], self._fraction.get(cell_id, 0.0)
                guess = spent * (1 - share) / share if share > 0.02 else max(guess - spent, 0.0)
            rest, longest = rest + guess, max(longest, guess)
        return max(rest / max(1, self._ready or self._wanted), longest)

    def snapshot(self) -> Snapshot:
        """Returns what is known of the run."""
        now = time.monotonic()
        return Snapshot(
            state="draining" if self._draining else "running",
            stages=tuple(self._by_stage()),
            running=tuple(
                Running(
                    cell_id,
                    self._cells[cell_id].label,
                    self._places.get(cell_id, ""),
                    round(now - self._started[cell_id], 1),
                    self._fraction.get(cell_id),
                )
                for cell_id in self._in_progress()
            ),
            failures=tuple(self._failures),
            workers_ready=self._ready,
            workers_wanted=self._wanted,
            cells_per_minute=round(self._per_minute(), 1),
            remaining_seconds=round(self.remaining_seconds()),
            seconds=round(self.seconds, 1),
        )

    def _in_progress(self) -> list[str]:
        """Returns the cells being worked on; those of a lost worker wait again."""
        return [c for c in self._started if self._states.get(c) == "running"]

    def _forget(self, cell_id: str) -> None:
        self._started.pop(cell_id, None)
        self._fraction.pop(cell_id, None)

    def _by_stage(self) -> list[tuple[str, int, int, int]]:
        """Returns (stage, done, total, failed or blocked) of each stage of the plan."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for cell_id, cell in self._cells.items():
            counts[cell.work.stage][self._states.get(cell_id, "waiting")] += 1
        return [
            (stage, c["done"], c.total(), c["failed"] + c["blocked"])
            for stage in _STAGES
            if (c := counts[stage]).total()
        ]

    def _rate(self) -> str:
        left = duration(self.remaining_seconds())
        waiting = (
            f" · {self._ready} of {self._wanted} workers" if self._ready < self._wanted else ""
        )
        return f"{self._per_minute():.0f} cells/min · about {left} left{waiting}"

    def _per_minute(self) -> float:
        return 60 * self._finished_here / max(self.seconds, 1e-9)

    def _table(self) -> Table:
        table = Table(title=f"eigentrace · {self._rate()}", title_justify="left", expand=False)
        for header in ("stage", "done", "of", "failed"):
            table.add_column(header, justify="left" if header == "stage" else "right")
        for stage, done, total, failed in self._by_stage():
            table.add_row(stage, str(done), str(total), str(failed) if failed else "")
        for cell_id in self._in_progress()[:_SHOWN_RUNNING]:
            share = self._fraction.get(cell_id)
            table.add_row(
                Text(f"  {self._cells[cell_id].label}"), "" if share is None else f"{share:.0%}"
            )
        return table


def duration(seconds: float) -> str:
    """Returns seconds for people: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
