"""Every figure of the results, in the page's order."""

from collections.abc import Sequence
from pathlib import Path

from dashboards import query
from dashboards.capabilities import capability_figures
from dashboards.figures import Figure, figures
from dashboards.finetune_figures import finetune_figures
from dashboards.finetune_tables import Finetuned, read_finetuned
from dashboards.layer_figures import layer_figures
from dashboards.phase_figures import comparisons, phase_strip
from dashboards.posttrain_figures import posttrain_figures
from dashboards.posttrain_read import Posttrained, read_posttrained
from dashboards.shading import shaded
from dashboards.start_figures import start_figures
from dashboards.sweep_figures import sweep_figures
from dashboards.tables import Measured, Row, read
from dashboards.text_figures import text_figures
from dashboards.toy_figures import toy_figures
from dashboards.training_figures import training_figures
from jobs.place import Place


def read_figures(results: str | Path | Place) -> list[Figure]:
    """Reads the results and draws every figure that they have rows for.

    Args:
        results: Folder or URL of the results.

    Raises:
        StoreError: The place cannot be read.
    """
    with query.read_once():
        measured = read(results)
        return all_figures(
            measured,
            query.load("phases", results).to_pylist(),
            read_finetuned(results),
            read_posttrained(measured),
            toy_figures(results),
        )


def all_figures(
    measured: Measured,
    phases: Sequence[Row],
    finetuned: Finetuned | None,
    posttrained: Posttrained | None,
    toys: Sequence[Figure],
) -> list[Figure]:
    """Draws every figure, but for those of the toy model, which come last.

    Args:
        measured: The rows of the results.
        phases: Rows of `phases`.
        finetuned: What fine-tuning gave, if anything.
        posttrained: What post-training gave, if anything.
        toys: The figures of the toy model.
    """
    strip = phase_strip(measured, phases)
    over_training = [
        *figures(measured),
        *training_figures(measured),
        *text_figures(measured),
        *sweep_figures(measured),
        *capability_figures(measured),
    ]
    return [
        *([strip] if strip else []),
        *shaded(over_training, measured, phases),
        *layer_figures(measured),
        *comparisons(measured, phases),
        *(finetune_figures(finetuned) if finetuned else []),
        *(posttrain_figures(posttrained) if posttrained else []),
        *(start_figures(measured, posttrained) if posttrained else []),
        *toys,
    ]
