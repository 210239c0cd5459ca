"""RankMe and α-ReQ text by text, where several texts were measured: do the phases depend on it?"""

from collections import defaultdict

from dashboards.charts import TRAJECTORIES
from dashboards.figures import Figure, draw, text_described
from dashboards.tables import Measured, Row, last_layer, natural

_METRICS = ("rankme", "alpha-req")


def text_figures(measured: Measured) -> list[Figure]:
    """Draws each text's models in a figure of their own.

    Args:
        measured: The rows of the results.

    Returns:
        Two figures for each text; none where there is but one.
    """
    texts: dict[str, list[Row]] = defaultdict(list)
    for row in last_layer(measured):
        texts[row["dataset"]].append(row)
    if len(texts) < 2:
        return []
    drawn = []
    for number, name in enumerate(sorted(texts, key=natural)):
        rows = texts[name]
        described = "; ".join(sorted({text_described(row) for row in rows}, key=natural))
        for quantity in TRAJECTORIES:
            if quantity.key in _METRICS:
                figure = draw(
                    rows,
                    quantity,
                    f"Last-token features after the final norm (layer −1), on {described}.",
                    key=f"text-{quantity.key}-{number}",
                    title=f"{quantity.title} on {name}",
                )
                drawn.append(figure)
    return [figure for figure in drawn if figure is not None]
