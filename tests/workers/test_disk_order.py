"""Any order of events keeps a folder within its budget, and what is pinned in it."""

import fcntl
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jobs.errors import DataError
from tests.workers.holders import (
    BUDGET,
    SIZES,
    bytes_in_cache,
    files_in_cache,
    put,
    size_of,
)
from workers.disk import INCOMPLETE, LEDGER, Disk
from workers.holders import Holder


class WouldWaitError(Exception):
    pass


def stop_waiting() -> None:
    raise WouldWaitError


def keys_in(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in files_in_cache(root)}


@dataclass
class Held:
    """A holder of the machine, with what it pins."""

    holder: Holder
    stack: ExitStack
    pins: set[str] = field(default_factory=set)


class DiskMachine(RuleBasedStateMachine):
    """Any order of events, beside a plain account of what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.disk = Disk(self.root, BUDGET)
        self.held: list[Held] = []
        self.dead: list[Held] = []
        self.there: set[str] = set()
        self.ahead: set[str] = set()
        self.count = 0

    def teardown(self) -> None:
        for held in (*self.held, *self.dead):
            held.stack.close()
        shutil.rmtree(self.root)

    @property
    def pinned(self) -> set[str]:
        return {key for held in self.held for key in held.pins}

    @rule()
    def arrive(self) -> None:
        stack = ExitStack()
        holder = stack.enter_context(self.disk.holder())
        self.count += 1
        # A thread of its own, as far as others can tell.
        holder.claim = replace(holder.claim, strand=str(self.count))
        holder.say({})
        self.held.append(Held(holder, stack))

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        keys=st.sets(st.sampled_from(sorted(SIZES)), min_size=1, max_size=4),
        voluntary=st.booleans(),
    )
    def reserve(self, data: st.DataObject, keys: set[str], voluntary: bool) -> None:
        held = data.draw(st.sampled_from(self.held))
        wanted = {key: SIZES[key] for key in keys}
        before = keys_in(self.root)
        own = sum(SIZES[key] for key in held.pins | keys)
        fits = sum(SIZES[key] for key in self.pinned | keys) <= BUDGET
        try:
            done = self.disk.reserve(wanted, held.holder, voluntary=voluntary, waiting=stop_waiting)
        except DataError:
            assert own > BUDGET
            done = False
        except WouldWaitError:
            assert not voluntary
            assert not fits
            done = False
        else:
            assert own <= BUDGET
            assert fits or not done
            assert done or voluntary
        if done:
            held.pins |= keys
            self.ahead = self.ahead | keys if voluntary else self.ahead - keys
        gone = {name.removesuffix(INCOMPLETE) for name in before - keys_in(self.root)}
        if not done:
            assert not gone
        if voluntary:
            assert not gone & self.ahead
        self.ahead -= gone

    @precondition(lambda self: self.pinned)
    @rule(data=st.data(), share=st.floats(0, 1))
    def write(self, data: st.DataObject, share: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.pinned)))
        if not (self.root / key).exists():
            put(self.root, key + INCOMPLETE, int(SIZES[key] * share))

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.pinned)))
        if not (self.root / key).exists():
            put(self.root, key + INCOMPLETE, SIZES[key]).rename(self.root / key)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), killed=st.booleans())
    def leave(self, data: st.DataObject, killed: bool) -> None:
        held = data.draw(st.sampled_from(self.held))
        if killed:
            # All that the kernel does for a dead process: the lock goes, the file stays.
            fcntl.flock(held.holder._file, fcntl.LOCK_UN)
            self.dead.append(held)
        else:
            held.stack.close()
        self.held.remove(held)

    @rule(junk=st.sampled_from([None, b"", b"no database" * 100]))
    def lose_database(self, junk: bytes | None) -> None:
        path = self.root / LEDGER / "entries.sqlite"
        path.unlink(missing_ok=True)
        if junk is not None and path.parent.exists():
            path.write_bytes(junk)
        self.ahead = set()

    @rule(data=st.data())
    def user_deletes(self, data: st.DataObject) -> None:
        loose = {n for n in keys_in(self.root) if n.removesuffix(INCOMPLETE) not in self.pinned}
        if loose:
            (self.root / data.draw(st.sampled_from(sorted(loose)))).unlink()

    @rule()
    def another_process_opens_it(self) -> None:
        self.disk = Disk(self.root, BUDGET)

    def reserved(self) -> int:
        """Bytes that pins allow to be written beyond what is there."""
        return sum(
            SIZES[key] - size_of(self.root / key) - size_of(self.root / (key + INCOMPLETE))
            for key in self.pinned
        )

    @invariant()
    def budget_holds(self) -> None:
        assert bytes_in_cache(self.root) + self.reserved() <= BUDGET

    @invariant()
    def pinned_stays(self) -> None:
        here = {name.removesuffix(INCOMPLETE) for name in keys_in(self.root)} & self.pinned
        assert self.there & self.pinned <= here
        self.there = here


DiskMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30)
test_any_order_of_events = DiskMachine.TestCase
