"""What is known of chains of post-training and of pass@k, by checkpoint."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dashboards import query
from dashboards.posttrain_chains import Chain, Key, Point, find_chains
from dashboards.summary import Difference, Influences, difference
from dashboards.tables import Measured, Row, checkpoint_key, last_layer


class Text(NamedTuple):
    """What features were computed on; only equal ones are compared."""

    dataset: str
    n_sequences: int
    seq_len: int
    forward_dtype: str
    fingerprint: str


class Setting(NamedTuple):
    """How answers were sampled; only equal ones are compared."""

    problems: str
    fingerprint: str
    n_samples: int
    temperature: float
    top_p: float


@dataclass(frozen=True)
class Posttrained:
    """What is known.

    Attributes:
        chains: The chains.
        geometry: Rows of the last layer with finite rankme, by checkpoint and text.
        heads: Rows of the LM head by checkpoint.
        losses: Rows of held-out losses by checkpoint and task.
        sampled: Rows of `passk` by checkpoint, setting and k.
        influences: Influences of each sequence, by the metric.
        winrates: Rows of `winrates`.
    """

    chains: tuple[Chain, ...]
    geometry: dict[Key, dict[Text, Row]]
    heads: dict[Key, Row]
    losses: dict[Key, dict[str, Row]]
    sampled: dict[Key, dict[Setting, dict[int, Row]]]
    influences: dict[str, Influences]
    winrates: tuple[Row, ...] = ()

    def change(self, earlier: Row, later: Row, metric: str) -> Difference:
        """Compares `rankme` or `alpha_req` of two rows of `geometry`, paired where it can be."""
        names = {"rankme": metric, "rankme_se": f"{metric}_se"}
        first, second = (
            {**row, **{name: row[source] for name, source in names.items()}}
            for row in (earlier, later)
        )
        return difference(first, second, self.influences[metric])

    def texts(self, points: list[Point | None]) -> list[Text]:
        """Returns the texts that some of the checkpoints were measured on, in order."""
        texts = {text for p in points if p for text in self.geometry.get(p.key, {})}
        return sorted(texts, key=str)

    def named(self, text: Text, texts: list[Text]) -> str:
        """Names a text, with what sets it apart from others of its dataset."""
        if [other.dataset for other in texts].count(text.dataset) < 2:
            return text.dataset
        return (
            f"{text.dataset} (M = {text.n_sequences}, L = {text.seq_len}, {text.forward_dtype}, "
            f"draw {text.fingerprint[:8]})"
        )


def read_posttrained(measured: Measured) -> Posttrained | None:
    """Reads what is known.

    Args:
        measured: The rows of the report.

    Returns:
        All of it; None where there are no rows of `posttrain`, `passk` or `winrates`.

    Raises:
        StoreError: The place cannot be read.
    """
    log: list[Row] = query.load("posttrain", measured.results).to_pylist()
    passk: list[Row] = query.load("passk", measured.results).to_pylist()
    winrates: list[Row] = query.load("winrates", measured.results).to_pylist()
    if not (log or passk or winrates):
        return None
    geometry: dict[Key, dict[Text, Row]] = defaultdict(dict)
    for row in last_layer(measured):
        if row["rankme"] is not None and math.isfinite(row["rankme"]):
            names = ("dataset", "n_sequences", "seq_len", "forward_dtype", "sequences_fingerprint")
            text = Text(*(row[name] for name in names))
            geometry[checkpoint_key(row)].setdefault(text, row)
    losses: dict[Key, dict[str, Row]] = defaultdict(dict)
    for row in measured.loss:
        losses[checkpoint_key(row)].setdefault(row["task"], row)
    sampled: dict[Key, dict[Setting, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in passk:
        names = ("problems", "template_fingerprint", "n_samples", "temperature", "top_p")
        setting = Setting(*(row[name] for name in names))
        sampled[checkpoint_key(row)][setting].setdefault(row["k"], row)
    known = (*measured.checkpoints, *measured.geometry, *measured.head, *measured.loss)
    rows = (*known, *measured.answer_loss, *passk)
    chains = find_chains(log, rows)
    points = {
        point.key
        for chain in chains
        for run in chain.runs
        for stage in run.stages
        for point in (run.base, stage.start, *stage.kept)
        if point is not None
    }
    cells = {row["cell_id"] for key in points for row in geometry.get(key, {}).values()}
    return Posttrained(
        chains,
        dict(geometry),
        {checkpoint_key(row): row for row in measured.head},
        dict(losses),
        {key: dict(found) for key, found in sampled.items()},
        _influences(measured, cells),
        tuple(winrates),
    )


def _influences(measured: Measured, cells: set[str]) -> dict[str, Influences]:
    places = ["cell_id", "dataset", "layer"]
    columns = {"rankme": "influence_rankme", "alpha_req": "influence_alpha_req"}
    table = query.load("influences", measured.results, columns=[*places, *columns.values()])
    keys = list(zip(*(table.column(name).to_pylist() for name in places), strict=True))
    found: dict[str, Influences] = {}
    for metric, column in columns.items():
        known: dict[tuple[str, str, int], np.ndarray[Any, Any]] = {}
        for key, value in zip(keys, table.column(column), strict=True):
            if value.is_valid and key[0] in cells:
                numbers = value.values.to_numpy(zero_copy_only=False)
                known[key] = numbers.astype(np.float64)
        found[metric] = known
    return found
