"""How many workers of each kind are held: as many as there is work for now, within what there is.

What is asked of Ray is what its autoscaler sees: it brings machines for workers that wait, and lets
machines go that hold none.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.placement import Seat

IDLE_SECONDS = 30.0
"""How long a worker is kept that has nothing to do: another one takes seconds to start."""

_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Held:
    """A worker that was asked for.

    Attributes:
        seat: Name of its kind.
        ready: Whether it runs; else it waits for a place.
        since: Since when it has waited for a place, or for work; None while it works.
    """

    seat: str
    ready: bool
    since: float | None


@dataclass(frozen=True)
class Changes:
    """What is to be done.

    Attributes:
        ask: Names of kinds of which one more worker is asked for; one for each.
        close: Workers that are given back.
    """

    ask: tuple[str, ...]
    close: tuple[str, ...]


def changes(
    held: Mapping[str, Held],
    seats: Mapping[str, Seat],
    demand: Mapping[str, int],
    most: int,
    now: float,
) -> Changes:
    """Returns how many workers to ask for, and which to give back.

    A worker that waits for a place is given back as soon as there is no work for it; an idle one
    after a while, or at once where a worker of another kind waits for a place.

    Args:
        held: The workers that there are, oldest first; those that go anyway left out.
        seats: The kinds, by name.
        demand: How many workers of each kind have or could have work now.
        most: Most workers in all.
        now: The time that `since` is told in.
    """
    counts = Counter(worker.seat for worker in held.values())
    wanted = {name: min(demand.get(name, 0), seat.most) for name, seat in seats.items()}
    close: list[str] = []
    for name in reversed(list(held)):
        worker = held[name]
        if not worker.ready and counts[worker.seat] > wanted[worker.seat]:
            counts[worker.seat] -= 1
            close.append(name)
    short = {name: wanted[name] - counts[name] for name in wanted if wanted[name] > counts[name]}
    full = sum(counts.values()) >= most
    starved = {
        worker.seat
        for name, worker in held.items()
        if name not in close
        and not worker.ready
        and worker.since is not None
        and now - worker.since >= _PATIENCE_SECONDS
    } | (set(short) if full else set())
    for name, worker in held.items():
        if not worker.ready or worker.since is None or counts[worker.seat] <= wanted[worker.seat]:
            continue
        if now - worker.since >= IDLE_SECONDS or starved - {worker.seat}:
            counts[worker.seat] -= 1
            close.append(name)
    room = most - sum(counts.values())
    ask = [name for name, missing in short.items() for _ in range(missing)][: max(0, room)]
    return Changes(tuple(ask), tuple(close))
