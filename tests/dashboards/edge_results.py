"""Results that are poor, or hold text that would like to be more than text."""

from collections.abc import Callable
from pathlib import Path

from tests.dashboards import synthetic

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
STEPS = (0, 1, 8, 32, 128, 512)
FALL = (43.0, 42.0, 30.0, 10.0, 25.0, 44.0)


def nothing(_results: Path) -> None:
    """No table at all."""


def one_checkpoint(results: Path) -> None:
    """One model at one step, measured in two ways."""
    synthetic.geometry(results, "pico-64", 512, 20.0)
    synthetic.head(results, "pico-64", 512, 0.2)


def one_without_step(results: Path) -> None:
    """One checkpoint of which neither step nor tokens are known."""
    synthetic.geometry(results, "pico-64", None, 20.0)


def only_failures(results: Path) -> None:
    """Nothing but cells that failed."""
    failure = {**synthetic.keys("head", "pico-64", 1), "message": "y" * 300, "kind": "head"}
    synthetic.write(results, "failures", [failure])


def only_toy(results: Path) -> None:
    """Nothing but the tractable model."""
    synthetic.toy(results, "figure-5", [[1.0, 1.6, 1.2, 1.7]] * 3)


def only_refusals(results: Path) -> None:
    """Nothing but checkpoints that the audit refused."""
    key = synthetic.keys("checkpoints", "pico-64", 2)
    finding = "it serves the weights of step 4"
    synthetic.write(results, "checkpoints", [{**key, "refused": True, "finding": finding}])


def hostile(results: Path) -> None:
    """Markup wherever text comes from outside: names, generations, messages, provenance."""
    synthetic.trajectory(results, FALL, model=HOSTILE, steps=STEPS)
    key = synthetic.keys("generations", HOSTILE, 512)
    said = {**key, "prompt": HOSTILE, "text": HOSTILE, "distinct_2": 0.5}
    synthetic.write(results, "generations", [said])
    failure = {**synthetic.keys("head", HOSTILE, 1), "message": HOSTILE, "remedy": HOSTILE}
    synthetic.write(results, "failures", [failure], provenance={HOSTILE: HOSTILE})
    refusal = {**synthetic.keys("checkpoints", HOSTILE, 3), "refused": True, "finding": HOSTILE}
    synthetic.write(results, "checkpoints", [refusal])


EDGES: tuple[tuple[Callable[[Path], None], str], ...] = (
    (nothing, "Nothing was measured yet"),
    (one_checkpoint, "the only checkpoint that was measured"),
    (one_without_step, "the only checkpoint that was measured"),
    (only_failures, "1 cell failed"),
    (only_toy, "Tractable model"),
    (only_refusals, "1 checkpoint was refused"),
    (hostile, HOSTILE),
)
"""What makes each of them, and what its page must say."""
