"""Suites whose checkpoints exist are audited while their study is planned, without any load.

What a cell records of an audit is known with the plan, so it is part of the cell's identity: a
suite that changes is recorded anew.
"""

import re

from jobs.cells import Cell
from jobs.hub_spec import HubSuite
from jobs.identity import FileHashes
from jobs.spec import LocalSuite
from jobs.work import CheckpointWork
from orchestrator.hub_index import HubIndex
from orchestrator.hub_suites import hub_checkpoints
from orchestrator.suites import local_checkpoints, step_of
from workers.audit import Audit, audit, refusal


def audit_suite(suite: LocalSuite | HubSuite, hashes: FileHashes, index: HubIndex) -> Audit:
    """Looks at the checkpoints of a suite, by their names and hashes alone.

    Raises:
        StudyError: The suite's checkpoints cannot be listed.
    """
    if isinstance(suite, LocalSuite):
        checkpoints, damage = local_checkpoints(suite, hashes)
        return audit(checkpoints, damage=damage, measure_duplicates=suite.measure_duplicates)
    checkpoints, missing = hub_checkpoints(suite, index)
    return audit(
        checkpoints,
        missing=missing,
        scheduled={series.repository for series in (suite, *suite.more) if series.schedule},
        last_steps=_last_steps(suite, index),
        allow_bin=suite.allow_bin,
        measure_duplicates=suite.measure_duplicates,
    )


def audit_cells(suite: str, audit: Audit) -> list[Cell]:
    """Returns the cell that records an audit, and one for each checkpoint that it refused."""
    return [
        Cell(audit.work, suite=suite),
        *(
            Cell(CheckpointWork(refusal(checkpoint, finding)), suite=suite, model=checkpoint.model)
            for checkpoint, finding in audit.refused
        ),
    ]


def _last_steps(suite: HubSuite, index: HubIndex) -> dict[str, int]:
    """Returns the last step of each model that the hub has, whether or not the study wants it."""
    found: dict[str, int] = {}
    for series in (suite, *suite.more):
        model = series.model or suite.model or suite.name
        for name in index.refs(series.repository):
            if series.pattern is None:
                step = step_of(name)
            else:
                parts = (
                    re.escape(series.pattern).replace(r"\*", ".*").replace(r"\{step\}", r"(\d+)")
                )
                match = re.fullmatch(parts, name)
                step = None if match is None else int(match[1])
            if step is not None:
                found[model] = max(found.get(model, 0), series.first_step + step)
    return found
