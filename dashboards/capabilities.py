"""What checkpoints can do, for the report: accuracies beside chance."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import altair as alt

from dashboards.charts import Trajectory
from dashboards.figures import Figure, draw
from dashboards.numbers import count
from dashboards.tables import Measured, Row, checkpoint_key, natural

_LEVEL = 0.05
_QUESTIONS = "Band: ± 1.96 standard errors over the questions."


def capability_figures(measured: Measured) -> list[Figure]:
    """Draws the accuracy of each task, memorization, and what ablation leaves at the end.

    Args:
        measured: The rows of the results.
    """
    drawn = [_accuracy(task, rows, n) for n, (task, rows) in enumerate(_by_task(measured.tasks))]
    drawn += [
        _memorization(task, rows, n)
        for n, (task, rows) in enumerate(_by_task(measured.memorization))
    ]
    drawn += [
        _ablation(task, rows, n) for n, (task, rows) in enumerate(_by_task(measured.ablation))
    ]
    return [figure for figure in drawn if figure is not None]


def capability_sentences(measured: Measured) -> list[tuple[str, list[str]]]:
    """Says in words how each model does at each task, and whether that is more than chance.

    Args:
        measured: The rows of the results.

    Returns:
        The name of each model and its sentences.
    """
    told: dict[str, list[str]] = defaultdict(list)
    for task, rows in _by_task(measured.tasks):
        for label, series in _by_label(r for r in rows if r["subset"] == "all"):
            told[label].append(_accuracy_sentence(task, series, rows))
    for task, rows in _by_task(measured.ablation):
        for label, series in _by_label(rows):
            told[label].append(_ablation_sentence(task, _last(series)))
    return [(label, told[label]) for label in sorted(told, key=natural)]


def generation_table(measured: Measured) -> list[Row]:
    """Pairs what the first and the last checkpoint of each model say to each prompt.

    Args:
        measured: The rows of the results.

    Returns:
        Rows with `label`, `prompt`, and `first` and `last`: rows of `generations`.
    """
    found = []
    for label, rows in _by_label(measured.generations):
        for prompt in dict.fromkeys(row["prompt"] for row in rows):
            said = [row for row in rows if row["prompt"] == prompt]
            found.append({"label": label, "prompt": prompt, "first": said[0], "last": said[-1]})
    return found


def _accuracy(task: str, rows: Sequence[Row], number: int) -> Figure | None:
    chances = {row["chance"] for row in rows if row["chance"] is not None}
    # Two tasks of one name, or a subset of other questions, may have other chances.
    chance = chances.pop() if len(chances) == 1 else None
    metric = rows[0]["metric"]
    quantity = Trajectory(
        f"task-{number}",
        "tasks",
        "value",
        f"Accuracy on {task}",
        f"{_QUESTIONS} {_SCORED[metric]}",
        se="stderr",
        rule=chance,
        rule_label="chance" if chance is not None else "",
    )
    several = {row["subset"] for row in rows} > {"all"}
    halves = (
        " Frequent and rare: facts about the half of the asked people that training speaks of "
        "more, and less, often."
        if several
        else ""
    )
    whole = [row for row in rows if row["subset"] == "all"]
    numbers = sorted({row["n"] for row in whole})
    cut = max((row["n_truncated"] or 0 for row in whole), default=0)
    truncated = f" Up to {count(cut)} prompts were cut to fit the context." if cut else ""
    shots = sorted({row["shots"] for row in whole if row["shots"] is not None})
    described = (
        f"{task}: {' or '.join(map(count, numbers))} questions, "
        f"{' or '.join(map(str, shots)) or 'an unknown number of'} solved examples before each."
        f"{halves}{truncated}"
    )
    return draw(
        [_named(row, row["subset"] if several else "") for row in rows], quantity, described
    )


_SCORED = {
    "acc_tie": "An option counts as chosen if no other is likelier; tied ones share the credit.",
    "exact_match": "A free answer counts if it is the right one to the letter.",
    "acc": "An answer counts if each of its tokens is the likeliest.",
}


def _memorization(task: str, rows: Sequence[Row], number: int) -> Figure | None:
    quantity = Trajectory(
        f"memorization-{number}",
        "memorization",
        "memorization",
        f"Memorization on {task}",
        "Spearman correlation of answer log-likelihoods of the model and of the ∞-gram model of "
        "its corpus; answer tokens of ∞-gram probability 0 are left out of both.",
        rule=0.0,
        rule_label="no relation",
    )
    examples = sorted({row["n_examples"] for row in rows})
    luck = NormalDist().inv_cdf(1 - _LEVEL / 2) / math.sqrt(max(min(examples) - 1, 1))
    described = (
        f"{task}: {' or '.join(map(count, examples))} answers, so that unrelated likelihoods would "
        f"stay within ± {luck:.2f} at 19 of 20 checkpoints."
    )
    return draw([_named(row, "") for row in rows], quantity, described)


def _ablation(task: str, rows: Sequence[Row], number: int) -> Figure | None:
    points = tuple(
        {
            "label": row["label"],
            "mode": row["mode"],
            "rank": row["rank"],
            "value": row["acc_tie"],
            "checkpoint": f"{row['label']} {row['revision']}",
            "variance": row["variance_share"],
        }
        for _, series in _by_label(rows)
        for row in _last(series)
        if row["rank"] is not None
    )
    if not points:
        return None
    whole = {
        label: next(row for row in _last(series) if row["mode"] == "none")
        for label, series in _by_label(rows)
    }
    untouched = "; ".join(f"{label} {row['acc_tie']:.3f}" for label, row in whole.items())
    words = "; ".join(f"{p['label']}, {p['mode']} {p['rank']}: {p['value']:.3f}" for p in points)
    spec = _ablation_spec(points, whole.values())
    return Figure(
        key=f"ablation-{number}",
        title=f"Accuracy on {task} without, and with only, the top eigenvectors",
        caption=(
            f"The last checkpoint of each model. Untouched: {untouched}. Eigenvectors of the "
            f"features' covariance on {rows[0]['dataset']}, at every position before the head; "
            "the features' mean "
            f"{'stays' if rows[0]['ablation_mean'] == 'keep' else 'is projected as well'}. "
            "Dashed line: chance."
        ),
        alternative=f"Line chart of accuracy against the number of eigenvectors. {words}.",
        rows=points,
        specs={"step": spec, "tokens": spec},
    )


def _ablation_spec(points: Sequence[Row], whole: Iterable[Row]) -> dict[str, Any]:
    ranks = sorted({point["rank"] for point in points})
    labels = sorted({point["label"] for point in points}, key=natural)
    colour = alt.Color("label:N", title=None, scale=alt.Scale(domain=labels))
    kinds = alt.Scale(domain=["removed", "retained"])
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X(
            "rank:Q",
            title="eigenvectors (log scale; linear below 1)",
            scale=alt.Scale(type="symlog", constant=1),
            axis=alt.Axis(values=ranks, labelOverlap="greedy", grid=False),
        ),
        y=alt.Y("value:Q", title="accuracy, ties shared", scale=alt.Scale(zero=False, nice=True)),
        color=colour,
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("mode:N"),
            alt.Tooltip("rank:Q"),
            alt.Tooltip("value:Q", title="accuracy", format=".3f"),
            alt.Tooltip("variance:Q", title="share of the variance", format=".3f"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.8).encode(
        strokeDash=alt.StrokeDash("mode:N", title=None, scale=kinds)
    )
    marks = base.mark_point(size=34, filled=True, opacity=1).encode(
        shape=alt.Shape("mode:N", title=None, scale=kinds)
    )
    chances = [{"at": row["chance"], "name": "chance"} for row in list(whole)[:1]]
    rule = alt.Chart(alt.InlineData(chances)).mark_rule(strokeDash=[6, 4], opacity=0.7)
    layers = [rule.encode(y="at:Q"), lines, marks]
    with alt.data_transformers.enable(consolidate_datasets=False):
        spec = alt.layer(*layers).properties(width="container", height=300).to_dict()
    spec.pop("config", None)
    return spec


def _accuracy_sentence(task: str, series: Sequence[Row], rows: Iterable[Row]) -> str:
    last = series[-1]
    best = max(series, key=lambda row: row["value"])
    told = f"On {task} it is right in {_share(last)} of {count(last['n'])} questions at the end"
    told += f" (best {_share(best)} at {_place(best)})" if best is not last else ""
    if last["chance"] is not None:
        told += f", chance {last['chance']:.3f}: {_against_chance(last)}"
    halves = {
        row["subset"]: row
        for row in rows
        if checkpoint_key(row) == checkpoint_key(last) and row["subset"] in ("frequent", "rare")
    }
    if len(halves) == 2:
        told += f"; frequent facts {_share(halves['frequent'])}, rare ones {_share(halves['rare'])}"
    return f"{told}."


def _against_chance(row: Row) -> str:
    """Judges an accuracy by a two-sided normal test with the error that chance would have."""
    chance, n = row["chance"], row["n"]
    beyond = NormalDist().inv_cdf(1 - _LEVEL / 2) * math.sqrt(chance * (1 - chance) / n)
    if abs(row["value"] - chance) <= beyond:
        return "no more than chance"
    return "more than chance" if row["value"] > chance else "less than chance"


def _ablation_sentence(task: str, rows: Sequence[Row]) -> str:
    whole = next(row for row in rows if row["mode"] == "none")
    parts = [
        f"{row['acc_tie']:.3f} {'without' if row['mode'] == 'removed' else 'with only'} the top "
        f"{row['rank']}"
        for row in rows
        if row["rank"] is not None and row["rank"] in (10, 50)
    ]
    told = f"Ablated at the end, {task} goes from {whole['acc_tie']:.3f} to {', '.join(parts)}"
    return f"{told} (chance {whole['chance']:.3f})." if parts else f"{task} was not ablated at 10."


def _by_task(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["task"]].append(row)
    return [(task, groups[task]) for task in sorted(groups, key=natural)]


def _by_label(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["label"]].append(row)
    return [(label, groups[label]) for label in sorted(groups, key=natural)]


def _last(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of the last checkpoint."""
    return [row for row in rows if checkpoint_key(row) == checkpoint_key(rows[-1])]


def _named(row: Mapping[str, Any], variant: str) -> Row:
    label = row["label"]
    return {**row, "variant": variant, "series": f"{label}, {variant}" if variant else label}


def _share(row: Row) -> str:
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.3f}"
    return f"{row['value']:.3f}{error}"


def _place(row: Row) -> str:
    return f"revision {row['revision']}" if row["step"] is None else f"step {row['step']:,}"
