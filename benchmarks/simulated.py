"""What the simulator says before a run, beside that run; and full studies beside their bound.

The runs are of cells that sleep, with and without much to transfer, on four nodes within this
machine. The papers' studies are planned against a hub that is made up (`invented_hub`), since only
sizes count, and simulated on 64 GPUs.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.invented_hub import InventedHub
from benchmarks.limits import Figure, median_of
from benchmarks.sleepers import BYTES_PER_SECOND, Times, checkpoint_cells, nodes, run, varied
from jobs.place import Place
from jobs.study import load_study
from orchestrator.estimate import estimate_plan
from orchestrator.hardware import gpu_machines
from orchestrator.plan import make_plan
from orchestrator.simulate import simulate
from orchestrator.simulated_nodes import SimulatedCluster
from orchestrator.simulated_plan import least_seconds, simulate_plan
from orchestrator.status import todo
from orchestrator.store import Store

_NODES, _CHECKPOINTS, _ROUNDS = 4, 40, 2
_SECONDS: Mapping[str, tuple[float, float]] = {
    "compute-bound": (0.2, 0.8),
    "transfer-bound": (0.8, 0.4),
}
_GPUS, _GPU_TYPE = 64, "h100"
_STUDIES = ("norms", "tracing", "other-families", "overtraining", "tulu")


def figures() -> list[Figure]:
    """Errors of predictions, and how far makespans are above what no run could be faster than."""
    return [*_predictions(), *(_above_bound(name) for name in _STUDIES)]


def _predictions() -> list[Figure]:
    studies = {name: varied(_CHECKPOINTS, *seconds) for name, seconds in _SECONDS.items()}
    said = {name: _predicted(times) for name, times in studies.items()}
    found = []
    with nodes(_NODES) as address:
        for name, times in studies.items():
            took = [run(address, _NODES, times).makespan for _ in range(_ROUNDS)]
            errors = [100 * abs(said[name] / real - 1) for real in took]
            what = f"{name}, {_CHECKPOINTS} cells, {_NODES} nodes: error of the prediction"
            told = f"{said[name]:.3g} s predicted; {', '.join(f'{real:.3g}' for real in took)} s"
            found.append(median_of(what, errors, "%", "≤ 15", told))
    return found


def _predicted(times: Times) -> float:
    cells = checkpoint_cells(times)
    takes = {cell.id: compute for cell, (_, compute) in zip(cells, times, strict=True)}
    cluster = SimulatedCluster(_NODES, workers_per_node=1, bandwidth=BYTES_PER_SECOND)
    expected = sum(takes.values()) / _NODES
    return simulate(cells, lambda task: [takes[c.id] for c in task], cluster, expected).seconds


def _above_bound(name: str) -> Figure:
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        study = load_study(name)
        plan = make_plan(study, InventedHub(study, Path(folder) / "hub"))
        place = Place(Path(folder) / "results")
        ledger = Store(place, write=False).ledger(plan.cells)
        left = todo(plan, ledger)
        machines = gpu_machines(_GPUS, _GPU_TYPE)
        expected = estimate_plan(plan, place, ledger, left, machines)
        found = simulate_plan(plan, place, ledger, left, expected, None, 0.0)
    least, reason = least_seconds(expected)
    return Figure(
        f"study {name}, {len(plan.cells):,} cells on {_GPUS} GPUs: makespan above the bound",
        *(100 * (found.seconds / least - 1), "%", "≤ 10"),
        beside=f"{found.seconds / 3600:.3g} h against {least / 3600:.3g} h: {reason}",
    )
