"""Single figures as files for a paper: white ground, of the width that a column has, in points.

Whoever draws them takes a pixel for a point, 1/72 inch; an SVG says its size in millimetres.
"""

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from markupsafe import escape

from dashboards.all_figures import read_figures
from dashboards.figures import Figure
from dashboards.page_data import packed, unpacked
from jobs.errors import StoreError, UsageError, nearest
from jobs.place import Place

Format = Literal["pdf", "png", "svg"]

COLUMN = 8.4
"""Width of one column, in cm."""

PAGE_WIDTH = 17.4
"""Width of two columns, in cm."""

_POINTS_PER_CM = 72 / 2.54
_MM_PER_POINT = 25.4 / 72
_PIXELS_PER_INCH = 300
_FLATTEST = 0.62
"""Height over width, at most."""
_SIZE = re.compile(r'width="([\d.]+)" height="([\d.]+)"')
_FINER = {"strokeWidth": 0.6, "size": 0.5}
"""How much finer the marks are than on the page."""
_COLOURS = ["#0072b2", "#c24e00", "#00805c", "#a8467f", "#806400", "#5b54c7"]
_INK = "#1b1f24"
_LINE = "#e1e5ea"


def save_figures(
    results: str | Path | Place,
    form: Format,
    out: Place,
    keys: Sequence[str] = (),
    width: float = COLUMN,
) -> list[str]:
    """Saves figures, each as a file that is named by the figure's key.

    Args:
        results: Folder or URL of the results.
        form: What kind of file.
        out: Where to; files of those names are replaced at once, never half written.
        keys: Which figures; all of them where it is left out.
        width: Their width, in cm.

    Returns:
        The files' paths or URLs.

    Raises:
        UsageError: There is no figure of such a key.
        StoreError: The results cannot be read or hold nothing to draw, or a file cannot be written.
    """
    found = {figure.key: figure for figure in read_figures(results)}
    if not found:
        raise StoreError(f"{results} holds nothing that can be drawn", "measure something first")
    for key in keys:
        if key not in found:
            raise UsageError(
                f"there is no figure '{key}'{nearest(key, list(found))}",
                f"use one of {', '.join(found)}",
            )
    saved = []
    for key in dict.fromkeys(keys or found):
        name = f"{key}.{form}"
        try:
            out.write(name, drawn(found[key], form, width))
        except (OSError, pa.ArrowException) as error:
            remedy = "make room or mend the permissions, and run the same command again"
            raise out.failure("cannot write", error, remedy, name) from error
        saved.append(out.at(name))
    return saved


def drawn(figure: Figure, form: Format, width: float = COLUMN) -> bytes:
    """Draws a figure against its first axis, without a browser.

    Args:
        figure: A figure.
        form: What kind of file.
        width: Its width, in cm.
    """
    import vl_convert

    spec = json.dumps(_printed(figure, width * _POINTS_PER_CM))
    match form:
        case "pdf":
            return bytes(vl_convert.vegalite_to_pdf(spec))
        case "png":
            return bytes(vl_convert.vegalite_to_png(spec, ppi=_PIXELS_PER_INCH))
        case "svg":
            return _in_millimetres(vl_convert.vegalite_to_svg(spec), figure.alternative).encode()


def _printed(figure: Figure, width: float) -> dict[str, Any]:
    """Returns a figure's specification with its data, size in points, and looks."""
    spec = copy.deepcopy(next(iter(figure.specs.values())))
    # As the page has them: numbers that are not finite are left out.
    spec |= {"datasets": {"rows": unpacked(packed(figure.rows))}}
    spec |= {"background": "white", "padding": 4, "config": _look(width)}
    _thin(spec)
    if "facet" in spec:
        _fit_panels(spec, figure, width)
    else:
        spec |= {"width": round(width), "autosize": {"type": "fit-x", "contains": "padding"}}
        spec["height"] = min(spec["height"], max(round(_FLATTEST * width), _lowest(spec)))
    return spec


def _fit_panels(spec: dict[str, Any], figure: Figure, width: float) -> None:
    """Sizes panels so that a row of them is as wide as is asked, in place; Vega-Lite fits none."""
    panels = len({row[spec["facet"]["field"]] for row in figure.rows})
    for columns in range(min(panels, 2 if _is_narrow(width) else 3), 0, -1):
        spec["columns"] = columns
        side, over = width / columns, 0.0
        # What the axes take is known only once it is drawn.
        for _ in range(3):
            side -= over / columns
            height = min(side, _FLATTEST * width)
            spec["spec"] |= {"width": int(side), "height": int(height)}
            over = _wide(spec) - width
        # Names of axes that are wider than their panels leave room for fewer of them.
        if over < 1:
            return


def _wide(spec: dict[str, Any]) -> float:
    import vl_convert

    found = _SIZE.search(vl_convert.vegalite_to_svg(json.dumps(spec)))
    return float(found[1]) if found else 0.0


def _is_narrow(width: float) -> bool:
    return width < 0.75 * PAGE_WIDTH * _POINTS_PER_CM


def _thin(spec: dict[str, Any]) -> None:
    """Makes lines and points, which are drawn for a screen, as fine as a column needs; in place."""
    for layer in (*spec.get("layer", ()), *(spec[n] for n in ("spec",) if n in spec)):
        _thin(layer)
    mark = spec.get("mark")
    if isinstance(mark, dict):
        for name, factor in _FINER.items():
            if name in mark:
                mark[name] *= factor


def _lowest(spec: dict[str, Any]) -> int:
    """Returns the height that rows of text need; what has no rows can be as low as one likes."""
    layers = spec.get("layer", [spec])
    rows = any(
        layer.get("encoding", {}).get("y", {}).get("type") in ("nominal", "ordinal")
        for layer in layers
    )
    return int(spec["height"]) if rows else 0


def _look(width: float) -> dict[str, Any]:
    narrow = _is_narrow(width)
    axis = {"labelFontSize": 7, "titleFontSize": 8, "titleFontWeight": "normal", "titlePadding": 4}
    colours = {"labelColor": _INK, "titleColor": _INK, "domainColor": _INK, "tickColor": _INK}
    return {
        "font": "Arial, Helvetica, Liberation Sans, sans-serif",
        "view": {"stroke": None},
        "range": {"category": _COLOURS},
        "axis": {**axis, **colours, "gridColor": _LINE, "tickSize": 3},
        "legend": {
            "orient": "top",
            "offset": 8,
            "layout": {"top": {"anchor": "start", "direction": "vertical", "margin": 2}},
            "columns": 2 if narrow else 3,
            "labelFontSize": 7,
            "titleFontSize": 7,
            "titleFontWeight": "normal",
            "gradientLength": round(width / 3),
            "gradientThickness": 6,
            "symbolSize": 30,
            "labelLimit": round(width / (2 if narrow else 3)) - 24,
            "columnPadding": 8,
            "rowPadding": 1,
        },
        "header": {"labelFontSize": 8},
        "text": {"color": _INK, "fontSize": 7},
        "rule": {"color": _INK},
    }


def _in_millimetres(svg: str, words: str) -> str:
    """Gives an SVG its size on paper, and its text alternative."""

    def size(match: re.Match[str]) -> str:
        wide, high = (float(match[n]) * _MM_PER_POINT for n in (1, 2))
        return f'width="{wide:.2f}mm" height="{high:.2f}mm" role="img" aria-label="{escape(words)}"'

    return _SIZE.sub(size, svg, count=1)
