"""What each stage does to geometry, head, loss and answers: start, end and their difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dashboards.charts import Z95
from dashboards.correlation_statistics import Estimate, estimate
from dashboards.numbers import with_error
from dashboards.posttrain_chains import METHODS, Chain, Stage
from dashboards.posttrain_read import Posttrained, Setting, Text
from dashboards.summary import Difference
from dashboards.tables import Row


@dataclass(frozen=True)
class Change:
    """The change of a metric over one stage of one run.

    Attributes:
        model: The run's model.
        start: The row of `geometry` at the start.
        end: The same at the end.
        rankme: Change of rankme.
        alpha_req: Change of alpha_req; None where it has no value.
        steps: Changes of rankme from each measured checkpoint of the stage to the next.
    """

    model: str
    start: Row
    end: Row
    rankme: Difference
    alpha_req: Difference | None
    steps: tuple[float, ...]


def changes(found: Posttrained, chain: Chain, place: int, text: Text) -> list[Change]:
    """Returns the change of each run over the stage at a place of a chain, where it is known."""
    told = []
    for run, stage in chain.stages(place):
        if stage.start is None or stage.end is None:
            continue
        start, end = (found.geometry.get(p.key, {}).get(text) for p in (stage.start, stage.end))
        if start is None or end is None:
            continue
        rows = [found.geometry.get(p.key, {}).get(text) for p in (stage.start, *stage.kept)]
        values = [row["rankme"] for row in rows if row is not None]
        known = start["alpha_req"] is not None and end["alpha_req"] is not None
        told.append(
            Change(
                run.model,
                start,
                end,
                found.change(start, end, "rankme"),
                found.change(start, end, "alpha_req") if known else None,
                tuple(after - before for before, after in pairwise(values)),
            )
        )
    return told


def pooled(told: Sequence[Difference]) -> Estimate:
    """Returns the mean change over runs with the 95 % interval over sequences.

    Runs share their sequences, so that their errors don't average out: the error of the mean is at
    most the mean of the errors, which is taken.

    Args:
        told: The change of each run; at least one.
    """
    mean = sum(change.value for change in told) / len(told)
    errors = [change.se for change in told if change.se is not None]
    if len(errors) < len(told):
        return Estimate(mean, None, None, None, len(told))
    half = Z95 * sum(errors) / len(errors)
    return Estimate(mean, mean - half, mean + half, None, len(told))


def over_seeds(told: Sequence[Difference]) -> Estimate | None:
    """Returns the mean change with its t-interval over runs; None for fewer than two."""
    return estimate([change.value for change in told]) if len(told) > 1 else None


def signed(change: Difference) -> str:
    """Formats a change with its sign, to the digits that its standard error leaves."""
    sign = "−" if change.value < 0 else "+"
    return sign + with_error(abs(change.value), change.se)


def stage_rows(found: Posttrained) -> list[Row]:
    """Returns a row for each stage, run and text: geometry, head and loss at start and end."""
    rows: list[Row] = []
    for chain in found.chains:
        for run in chain.runs:
            for stage in run.stages:
                texts = found.texts([stage.start, *stage.kept])
                asked: list[Text | None] = [*texts]
                for text in asked or [None]:
                    name = "–" if text is None else found.named(text, texts)
                    rows.append({**_identity(chain, run.seed, stage), "text": name})
                    rows[-1].update(_measures(found, stage, text))
    return rows


def answer_rows(found: Posttrained) -> list[Row]:
    """Returns a row for each stage, run and setting of samples: answers at start and end."""
    rows: list[Row] = []
    for chain in found.chains:
        for run in chain.runs:
            for stage in run.stages:
                sides = [
                    {} if point is None else found.sampled.get(point.key, {})
                    for point in (stage.start, stage.end)
                ]
                settings = sorted(set(sides[0]) | set(sides[1]), key=str)
                identity = _identity(chain, run.seed, stage)
                rows += [
                    {**identity, **_answers(setting, *(side.get(setting, {}) for side in sides))}
                    for setting in settings
                ]
    return rows


def _identity(chain: Chain, seed: int | None, stage: Stage) -> Row:
    steps = [point.step for point in (stage.start, stage.end) if point is not None]
    return {
        "chain": chain.label,
        "seed": seed,
        "stage": METHODS[stage.method] + (" (start unknown)" if stage.partial else ""),
        "steps": " → ".join(f"{step:,}" for step in steps),
    }


def _measures(found: Posttrained, stage: Stage, text: Text | None) -> Row:
    row: Row = {"difference": None}
    geometry: list[Row | None] = []
    for side, point in (("start", stage.start), ("end", stage.end)):
        key = point.key if point else ("", "", "", "")
        measured = None if text is None else found.geometry.get(key, {}).get(text)
        losses = found.losses.get(key, {})
        # Without features, whatever text the loss was measured on.
        task = text.dataset if text is not None else next(iter(losses), "")
        geometry.append(measured)
        row |= {
            f"geometry_{side}": measured,
            f"norm_cv_{side}": found.heads.get(key, {}).get("norm_cv"),
            f"loss_{side}": losses.get(task, {}).get("value"),
        }
    if geometry[0] is not None and geometry[1] is not None:
        row["difference"] = found.change(geometry[0], geometry[1], "rankme")
    return row


def _answers(setting: Setting, start: dict[int, Row], end: dict[int, Row]) -> Row:
    tries = sorted(set(start) & set(end)) or sorted(set(start) | set(end))
    row: Row = {
        "problems": setting.problems,
        "sampling": f"N = {setting.n_samples}, temperature {setting.temperature:g}",
        "least": tries[0],
        "most": tries[-1],
    }
    for side, rows in (("start", start), ("end", end)):
        for name, k in (("least", tries[0]), ("most", tries[-1])):
            row[f"{name}_{side}"] = rows.get(k, {}).get("pass_at_k")
            row[f"{name}_guessing_{side}"] = rows.get(k, {}).get("guessing")
        row[f"well_formed_{side}"] = next(iter(rows.values()), {}).get("well_formed")
    return row
