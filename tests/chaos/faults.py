"""What can befall a run: each fault tells what it did, or None if there was nothing to befall."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from tests.chaos.world import World
from tests.orchestrator.nodes import give_notice, kill

Fault = Callable[[World, random.Random], str | None]

_AWAY_SECONDS = 75.0
_FULL_SECONDS = 5.0
_NOTICE_SECONDS = 5.0
_HEADROOM_BYTES = 2 * 2**30
_PAGE = 64 * 2**20
_TRIAL = "ray::TaskTrial"
_BUSY = "ray::Worker.run"


def worker_killed(world: World, chance: random.Random) -> str | None:
    """Kills a worker that is busy, as the kernel does when memory is short."""
    return _one(world, chance, _BUSY, signal.SIGKILL)


def worker_hung(world: World, chance: random.Random) -> str | None:
    """Stops a worker that is busy, which then neither works nor speaks nor dies."""
    return _one(world, chance, _BUSY, signal.SIGSTOP)


def trial_killed(world: World, chance: random.Random) -> str | None:
    """Kills a process of Ray Tune that fine-tunes or post-trains."""
    return _one(world, chance, _TRIAL, signal.SIGKILL)


def trial_hung(world: World, chance: random.Random) -> str | None:
    """Stops such a process."""
    return _one(world, chance, _TRIAL, signal.SIGSTOP)


def learner_killed(world: World, chance: random.Random) -> str | None:
    """Kills what runs a stage of reinforcement learning."""
    return _working_on(world, "posttrain rlvr")


def sampler_killed(world: World, chance: random.Random) -> str | None:
    """Kills a worker that samples, with the vLLM engine in it."""
    return _working_on(world, "sample ")


def node_died(world: World, chance: random.Random) -> str | None:
    """Takes a node away without a word; another one comes."""
    kill(world.cluster, node := chance.choice(world.workers))
    world.add_node()
    return f"node {node.node_id[:8]} is gone"


def node_drained(world: World, chance: random.Random) -> str | None:
    """Gives a node notice, as clouds do of spot machines, and takes it away soon."""
    node = chance.choice(world.workers)
    give_notice(world.cluster, node)
    world.add_node()
    time.sleep(_NOTICE_SECONDS)
    kill(world.cluster, node)
    return f"node {node.node_id[:8]} had notice and is gone"


def objects_lost(world: World, chance: random.Random) -> str | None:
    """Kills a node's raylet alone: the object store in it is lost, its workers find out."""
    node = chance.choice(world.workers)
    raylet = node.all_processes["raylet"][0].process
    raylet.kill()
    raylet.wait()
    time.sleep(3)
    kill(world.cluster, node)
    world.add_node()
    return f"the object store of node {node.node_id[:8]} is lost"


def memory_short(world: World, chance: random.Random) -> str | None:
    """Fills the memory beside a node that minds, until Ray kills a worker there for it."""
    memory = psutil.virtual_memory()
    if memory.available < 3 * _HEADROOM_BYTES:
        return None
    threshold = (memory.total - memory.available + _HEADROOM_BYTES) / memory.total
    kill(world.cluster, chance.choice(world.workers))
    minding = world.add_node(
        RAY_memory_usage_threshold=f"{threshold:.3f}", RAY_memory_monitor_refresh_ms="100"
    )
    raylet = psutil.Process(minding.all_processes["raylet"][0].process.pid)

    def workers() -> set[int]:
        return {
            child.pid
            for child in raylet.children(recursive=True)
            if (title := _title(child)).startswith("ray::") and "Agent" not in title
        }

    if not _within(40, workers):
        world.add_node()
        kill(world.cluster, minding)
        return None
    before = workers()
    script = f"held = [b'x' * {_PAGE} for _ in range({2 * _HEADROOM_BYTES // _PAGE})]; input()"
    balloon = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    try:
        killed = _within(20, lambda: before - workers())
    finally:
        balloon.kill()
        balloon.communicate()
    world.add_node()
    kill(world.cluster, minding)
    if not killed:
        return None
    return f"memory ran short on node {minding.node_id[:8]}, {len(killed)} workers killed"


def driver_killed(world: World, chance: random.Random) -> str | None:
    """Kills the driver."""
    if not world.running():
        return None
    driver = world.drivers[-1]
    driver.kill()
    driver.wait()
    return f"driver {driver.pid} killed"


def head_died(world: World, chance: random.Random) -> str | None:
    """Kills the head's control service, with which the cluster ends; another one is started."""
    assert world.cluster is not None
    head = world.cluster.head_node.all_processes["gcs_server"][0].process
    head.kill()
    head.wait()
    driver = world.drivers[-1]
    began = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        driver.wait(150)
    waited = time.monotonic() - began
    assert driver.poll() is not None, "a driver outlives its cluster's head by minutes"
    world.stop_cluster()
    world.start_cluster()
    return f"the head died; its driver ended after {waited:.0f} s; there is another cluster"


def disk_full(world: World, chance: random.Random) -> str | None:
    """Fills the disk on which the nodes have their caches, for a few seconds."""
    ballast = world.caches / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**20))
    time.sleep(_FULL_SECONDS)
    ballast.unlink()
    return f"the nodes' disk was full for {_FULL_SECONDS:.0f} s"


def store_away(world: World, chance: random.Random) -> str | None:
    """Has the object store answer nothing for more than a minute."""
    assert world.server is not None
    world.server.suspend()
    time.sleep(_AWAY_SECONDS)
    world.server.resume()
    return f"the object store was away for {_AWAY_SECONDS:.0f} s"


def artifact_cut(world: World, chance: random.Random) -> str | None:
    """Has the power fail on a node: it is back at once, with files of its cache cut short."""
    node = chance.choice(world.workers)
    cache = world.homes[node.node_id]
    files = [path for path in sorted(cache.glob("artifacts/*/*/**/*")) if path.is_file()]
    if not files:
        return None
    kill(world.cluster, node)
    for path in files:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
    world.add_node(cache)
    return f"{len(files)} files of artifacts cut to half on node {node.node_id[:8]}"


def clock_jumped(world: World, chance: random.Random) -> str | None:
    """Sets the wall clock of everybody by up to a day."""
    seconds = chance.uniform(-86_400, 86_400)
    world.clock.write_text(str(seconds))
    return f"the wall clock is off by {seconds:.0f} s"


def second_driver(world: World, chance: random.Random) -> str | None:
    """Runs the same command beside the one that runs, and kills it a little later."""
    first = world.drivers[-1]
    second = world.start_driver()
    with suppress(subprocess.TimeoutExpired):
        second.wait(15)
    second.kill()
    second.wait()
    # The first one stays the one that counts.
    world.drivers.remove(first)
    world.drivers.append(first)
    return f"a second driver was there for a while: {_last_line(world.log_of(second))}"


def is_possible(fault: Fault, world: World) -> bool:
    """Returns whether a world has what a fault needs: a small disk, or an object store."""
    if fault is disk_full:
        return world.caches.is_mount()
    return fault is not store_away or world.server is not None


def _one(world: World, chance: random.Random, title: str, number: signal.Signals) -> str | None:
    """Sends a signal to one of the processes of a title."""
    found = world.processes(title)
    while found:
        process = found.pop(chance.randrange(len(found)))
        with suppress(psutil.NoSuchProcess):
            # To be stopped once more is nothing.
            if number != signal.SIGSTOP or process.status() != psutil.STATUS_STOPPED:
                process.send_signal(number)
                return f"{number.name} to process {process.pid}, {title}"
    return None


def _working_on(world: World, label: str) -> str | None:
    """Kills what runs a cell whose label begins so."""
    for cell in world.running():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(cell.node.rpartition(" ")[2]))
            # What the driver said last may be of a process that is dead by now.
            if cell.label.startswith(label) and process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
                return f"SIGKILL to {cell.node}, at work on {cell.label}"
    return None


def _within(seconds: float, wanted: Callable[[], Any]) -> Any:
    """Returns what is wanted once it is there, or nothing after some seconds."""
    deadline = time.monotonic() + seconds
    while not (found := wanted()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:120]


CHOOSY = (learner_killed, sampler_killed, trial_killed, trial_hung)
"""Faults of what is there for seconds only, so that they can't wait; the choosiest goes first."""
