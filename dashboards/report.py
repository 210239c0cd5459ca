"""One page that says what the results show: every word of it is computed from their numbers."""

import functools
import html
import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from dashboards.figures import figures, replace_text
from dashboards.summary import summary
from dashboards.tables import (
    Measured,
    checkpoint_table,
    count,
    last_layer,
    plain,
    provenance_table,
    read,
    with_error,
)


def render(results: str | Path, study_name: str, out: Path | None = None, digest: str = "") -> Path:
    """Writes the report: one HTML file that needs no network.

    Args:
        results: Folder of the results.
        study_name: Name of the study, for the title.
        out: The file; `<results>/report.html` where it is left out. Replaced at once.
        digest: Names the state of the results; `existing_digest` gives it back.

    Returns:
        The file.

    Raises:
        StoreError: The folder cannot be read.
    """
    measured = read(results)
    drawn = figures(measured)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, plain=plain, with_error=with_error)
    page = environment.get_template("report.html.j2").render(
        study=study_name,
        digest=digest,
        summaries=summary(measured),
        missing=missing_parts(measured),
        figures=drawn,
        axes=[axis for axis in ("step", "tokens") if any(axis in f.specs for f in drawn)],
        drawings={f.key: {"rows": f.rows, "specs": f.specs} for f in drawn},
        checkpoints=checkpoint_table(measured),
        failures=measured.failures,
        provenance=provenance_table(results),
        libraries=_libraries() if drawn else "",
    )
    path = Path(results) / "report.html" if out is None else out
    replace_text(path, page)
    return path


def existing_digest(path: Path) -> str | None:
    """Reads the digest that a report was rendered with.

    Args:
        path: A report.

    Returns:
        The digest; None where there is no such file, or none was given.
    """
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(4096)
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    found = re.search(r'<meta name="eigentrace-digest" content="([^"]*)">', head)
    return html.unescape(found[1]) or None if found else None


def missing_parts(measured: Measured) -> list[str]:
    """Says which parts of the page are missing, and why."""
    parts = {
        "checkpoint": (measured.checkpoints, "the hashes of the weights are not known"),
        "geometry": (last_layer(measured), "RankMe and α-ReQ are not shown"),
        "head": (measured.head, "norm CV and overlap are not shown"),
        "loss": (measured.loss, "the held-out loss is not shown"),
    }
    return [f"No {name} rows yet: {effect}." for name, (rows, effect) in parts.items() if not rows]


@functools.cache
def _libraries() -> Markup:
    # The only slow import of a report.
    import vl_convert

    bundle = vl_convert.javascript_bundle(snippet="window.vegaEmbed=vegaEmbed;")
    # No </script> may end the element early; in a string or a regular expression the backslash
    # changes nothing.
    return Markup(re.sub("</(?=script)", r"<\\/", bundle, flags=re.IGNORECASE))  # noqa: S704
