"""The section that maps both papers onto the page, and holds their tables."""

from collections.abc import Collection
from dataclasses import dataclass

from dashboards.finetune_layout import Table
from dashboards.finetune_tables import Finetuned
from dashboards.norm_paper_tables import norm_paper_tables
from dashboards.paper_index import Placed, paper_index
from dashboards.published import papers_models
from dashboards.settings_table import settings_table
from dashboards.tables import Measured
from dashboards.tracing_paper_tables import tracing_paper_tables

_SMALL = 10**9
"""Parameters below which a model is of the tracing paper's Figure 11."""


@dataclass(frozen=True)
class PaperSection:
    """What the section shows.

    Attributes:
        index: Every table and figure of both papers.
        tables: Those tables that stand in this section.
        models: The papers' models that this study holds, in words.
    """

    index: list[Placed]
    tables: list[Table]
    models: str


def paper_section(
    measured: Measured, finetuned: Finetuned | None, elsewhere: Collection[str]
) -> PaperSection:
    """Puts the section together.

    Args:
        measured: The rows of the results.
        finetuned: What was fine-tuned, if anything.
        elsewhere: Ids of the elements that stand elsewhere on the page.

    Returns:
        The index, and tables that have rows.

    Raises:
        StoreError: The place cannot be read.
    """
    models = papers_models(measured.checkpoints)
    tables = [
        *norm_paper_tables(measured, finetuned, models),
        *tracing_paper_tables(measured, models),
        settings_table(measured),
    ]
    tables = [table for table in tables if table.rows]
    sizes = [row["n_parameters"] for row in measured.checkpoints]
    small = any(size is not None and size < _SMALL for size in sizes)
    names = sorted({f"{model.name} ({model.repository})" for model in models.values()})
    return PaperSection(
        paper_index([*elsewhere, *(table.key for table in tables)], small),
        tables,
        ", ".join(names),
    )
