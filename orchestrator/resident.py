"""What lives in an actor: it runs tasks, and leaves word in its log of each cell it had.

A defect of the body becomes the failure of the cells that were at work; only a kill ends a worker.
What is fetched beside the task can neither hold it up nor end it.
"""

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from ray._private import worker as ray_worker

from jobs.cells import Cell
from jobs.events import Alive, Event, Failed, Finished, Started
from jobs.sources import HubFolder
from orchestrator.inline import Body
from orchestrator.metrics import tell_of_this_process
from orchestrator.prefetch import Prefetcher
from orchestrator.versions import versions
from workers.artifacts import Files
from workers.hub import is_out_of_memory
from workers.telling import Task

_LOG = logging.getLogger("eigentrace")


@dataclass(frozen=True)
class Home:
    """Where an actor lives.

    Attributes:
        actor: Ray's id of the actor.
        node: Ray's id of the node.
        address: The node's address, for people.
        pid: The process.
        log: Name of the file with what the process writes.
        versions: What must be equal to the driver's.
        gpus: Which of the node's GPUs it holds, or holds a part of.
    """

    actor: str
    node: str
    address: str
    pid: int
    log: str
    versions: dict[str, str]
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.address} pid {self.pid}"


class Worker:
    """An actor's body; Ray wraps it.

    Args:
        open_files: Called once; tells where artifacts lie.
        body: What runs a task.
    """

    def __init__(self, open_files: Callable[[], Files], body: Body) -> None:
        self._files, self._body = open_files(), body
        self._prefetcher = Prefetcher(self._files)
        self._home = find_home()
        log_to_stderr()
        tell_of_this_process(self._files)

    def ready(self) -> Home:
        """Answers once the actor runs."""
        return self._home

    def run(self, task: Task) -> Iterator[Event | Alive]:
        """Yields a task's events, and logs them so that a cell is found by its id."""
        self.begin(task.cells)
        yield from tell(task, self._files, self._body, self._home)

    def begin(self, cells: tuple[Cell, ...]) -> None:
        """Fetches no more what a task fetches by itself; Ray calls it where another runs that."""
        self._prefetcher.begin(cells)

    def prepare(self, sources: tuple[HubFolder, ...]) -> None:
        """Has sources fetched, and answers at once; Ray calls it while `run` is at work."""
        self._prefetcher.promise(sources)


def find_home() -> Home:
    """Returns where the actor lives that calls it."""
    context = ray.get_runtime_context()
    return Home(
        context.get_actor_id(),
        context.get_node_id(),
        ray.util.get_node_ip_address(),
        os.getpid(),
        Path(ray_worker.global_worker.get_err_file_path()).name,
        versions(),
        tuple(str(gpu) for gpu in ray.get_gpu_ids()),
    )


def log_to_stderr() -> None:
    """Has this process write what becomes of its cells into its log."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _LOG.handlers = [handler]
    _LOG.setLevel(logging.INFO)


def tell(task: Task, files: Files, body: Body, home: Home) -> Iterator[Event | Alive]:
    """Yields a task's events with where it ran, and logs them so that a cell is found by its id.

    Args:
        task: The task.
        files: Where artifacts lie.
        body: What runs it.
        home: Where it runs.
    """
    provenance = {"node": home.address, "pid": home.pid, "log": home.log}
    labels = {cell.id: f"{cell.id} {cell.label}" for cell in task.cells}
    at_work: dict[str, None] = {}
    try:
        for event in body(task, files):
            match event:
                case Started(cell_id):
                    at_work[cell_id] = None
                    _LOG.info("cell %s started", labels[cell_id])
                case Finished(cell_id):
                    at_work.pop(cell_id, None)
                    _LOG.info("cell %s finished", labels[cell_id])
                    event = replace(event, provenance=event.provenance | provenance)
                case Failed(cell_id):
                    at_work.pop(cell_id, None)
                    _log_failure(labels[cell_id], event)
                    event = replace(event, provenance=provenance)
            yield event
    except Exception as error:  # noqa: BLE001 - here a defect of the body becomes a row.
        for cell_id in at_work or labels:
            failure = replace(_failure(cell_id, error), provenance=provenance)
            _log_failure(labels[cell_id], failure)
            yield failure


def _failure(cell_id: str, error: Exception) -> Failed:
    return Failed(
        cell_id,
        "memory" if is_out_of_memory(error) else "user",
        f"{type(error).__name__}: {error}",
        "this is a defect of Eigentrace; see the traceback",
        "".join(traceback.format_exception(error)),
    )


def _log_failure(label: str, failure: Failed) -> None:
    _LOG.error("cell %s failed (%s): %s", label, failure.cause, failure.message)
    if failure.traceback:
        _LOG.error("cell %s\n%s", failure.cell_id, failure.traceback)
