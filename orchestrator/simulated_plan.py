"""What a plan would take on a simulated cluster, beside what no run could do it faster than."""

from collections.abc import Iterator, Sequence
from typing import Any

from jobs.cells import Cell
from jobs.place import Place
from orchestrator.costs import Costs
from orchestrator.estimate import Estimate, corrected
from orchestrator.hardware import Processor
from orchestrator.measured import Rates, measured_rates, recorded_sizes
from orchestrator.model_sizes import ModelSizes
from orchestrator.plan import Plan
from orchestrator.progress import duration
from orchestrator.simulate import Simulation, TaskSeconds, simulate
from orchestrator.simulated_nodes import SimulatedCluster
from orchestrator.store import Ledger


def simulate_plan(
    plan: Plan,
    place: Place,
    ledger: Ledger,
    left: Sequence[Cell],
    expected: Estimate,
    boot_seconds: float | None,
    losses_per_hour: float,
) -> Simulation:
    """Computes the run of what is left of a plan, from what its estimate rests on.

    Args:
        plan: The plan.
        place: The results, whose finished cells tell what others take.
        ledger: What is done.
        left: What is left.
        expected: The estimate: its machines and their lines to the hub are simulated.
        boot_seconds: What a node takes to come; None where all are there from the beginning.
        losses_per_hour: How often a node is taken away, in each hour that it is there.

    Raises:
        StoreError: The results cannot be read.
    """
    machines = expected.machines
    sizes = ModelSizes(plan.cells, recorded_sizes(place, plan.cells, ledger.done))
    costs = Costs(plan.cells, sizes, plan.study.forward.batch_size)
    rates = measured_rates(place, plan.cells, ledger.done, costs, machines.processor)
    cluster = SimulatedCluster(
        nodes=machines.nodes,
        workers_per_node=machines.workers_per_node,
        bandwidth=expected.bandwidth,
        startup_seconds=machines.startup_seconds,
        boot_seconds=boot_seconds,
        losses_per_hour=losses_per_hour,
    )
    seconds = task_seconds(costs, rates, machines.processor)
    return simulate(left, seconds, cluster, expected.seconds, expected.chains)


def task_seconds(costs: Costs, rates: Rates, processor: Processor) -> TaskSeconds:
    """Returns what gives the seconds of a task's cells; what they share counts in the first."""

    def of_task(cells: Sequence[Cell]) -> Iterator[float]:
        shared: set[str] = set()
        for cell in cells:
            whole = 0.0
            for part in costs.parts(cell, processor):
                if part.shared is not None:
                    if part.shared in shared:
                        continue
                    shared.add(part.shared)
                whole += corrected(part, rates)[0]
            yield whole

    return of_task


def least_seconds(expected: Estimate) -> tuple[float, str]:
    """Returns what no run could be faster than, and what it comes of."""
    shared_out = expected.work_seconds / expected.machines.workers
    bounds = {
        "all work, shared out evenly": shared_out,
        "the longest chain of work": expected.longest_seconds,
        "all bytes through all lines": expected.transfer_seconds,
    }
    name = max(bounds, key=lambda bound: bounds[bound])
    return bounds[name], name


def simulation_lines(found: Simulation, expected: Estimate, price: float | None) -> list[str]:
    """Returns a simulation line by line."""
    least, reason = least_seconds(expected)
    above = f" ({100 * (found.seconds / least - 1):.1f} % above)" if least else ""
    taken = f", of which {found.losses} were taken away" if found.losses else ""
    plural = "node" if found.most_nodes == 1 else "nodes"
    lines = [
        f"simulated: {duration(found.seconds)} on the clock; none could be faster than "
        f"{duration(least)}{above}: {reason}",
        f"  {100 * found.utilization:.1f} % of what is held computes; at most {found.most_nodes} "
        f"{plural} at a time{taken}",
    ]
    if price is not None:
        lines.append(f"  cost of what is held: {price * found.held_seconds / 3600:.2f}")
    return lines


def simulation_json(found: Simulation, expected: Estimate, price: float | None) -> dict[str, Any]:
    """Returns a simulation for tools."""
    least, reason = least_seconds(expected)
    return {
        "seconds": round(found.seconds, 1),
        "least_seconds": round(least, 1),
        "least_because_of": reason,
        "utilization": round(found.utilization, 4),
        "worker_hours_held": round(found.held_seconds / 3600, 4),
        "cost_held": None if price is None else round(price * found.held_seconds / 3600, 2),
        "most_nodes": found.most_nodes,
        "losses": found.losses,
        "cells": found.cells,
    }
