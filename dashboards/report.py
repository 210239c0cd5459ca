"""One page that says what the results show: every word of it is computed from their numbers."""

import functools
import html
import re
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
from markupsafe import Markup

from dashboards import query
from dashboards.audit import audit_table
from dashboards.capabilities import (
    capability_figures,
    capability_sentences,
    generation_table,
)
from dashboards.crystallization import crystallization_sentence
from dashboards.figures import figures
from dashboards.finetune_figures import finetune_figures
from dashboards.finetune_section import section
from dashboards.finetune_tables import read_finetuned
from dashboards.layer_figures import layer_figures
from dashboards.numbers import count, plain, with_error
from dashboards.page_data import packed
from dashboards.paper_section import paper_section
from dashboards.phase_figures import comparisons, phase_strip
from dashboards.phase_table import phase_table, toy_table
from dashboards.posttrain_figures import posttrain_figures
from dashboards.posttrain_read import read_posttrained
from dashboards.posttrain_section import posttrain_section
from dashboards.provenance import provenance_table
from dashboards.shading import shaded
from dashboards.start_figures import start_figures
from dashboards.summary import summary
from dashboards.sweep_figures import sweep_figures
from dashboards.tables import Measured, checkpoint_table, last_layer, read
from dashboards.text_figures import text_figures
from dashboards.toy_figures import toy_figures
from dashboards.training_figures import training_figures
from jobs.place import Place

PAGE = "report.html"
"""The report's name within the results."""


def render(
    results: str | Path | Place, study_name: str, out: Path | None = None, digest: str = ""
) -> str:
    """Writes the report: one HTML file that needs no network.

    Args:
        results: Folder or URL of the results.
        study_name: Name of the study, for the title.
        out: The file; `report.html` within the results where it is left out. Replaced at once.
        digest: Names the state of the results; `existing_digest` gives it back.

    Returns:
        The file's path or URL.

    Raises:
        StoreError: The results cannot be read, or the report cannot be written.
    """
    with query.read_once():
        contents = _contents(results, study_name)
    page = _template().render(**contents, digest=digest)
    folder, name = (Place(results), PAGE) if out is None else (Place(out.parent), out.name)
    try:
        folder.write(name, page.encode())
    except (OSError, pa.ArrowException) as error:
        remedy = "make room or mend the permissions, and run the same command again"
        raise folder.failure("cannot write", error, remedy, name) from error
    return folder.at(name)


def _contents(results: str | Path | Place, study_name: str) -> dict[str, Any]:
    """Reads the results and makes what the template shows."""
    measured = read(results)
    found = query.load("phases", results).to_pylist()
    strip, toys = phase_strip(found), toy_figures(results)
    finetuned = read_finetuned(results)
    posttrained = read_posttrained(measured)
    trained = section(finetuned) if finetuned else None
    tuned = posttrain_section(posttrained) if posttrained else None
    over_training = [
        *figures(measured),
        *training_figures(measured),
        *text_figures(measured),
        *sweep_figures(measured),
        *capability_figures(measured),
    ]
    drawn = [
        *([strip] if strip else []),
        *shaded(over_training, measured, found),
        *layer_figures(measured),
        *comparisons(measured, found),
        *(finetune_figures(finetuned) if finetuned else []),
        *(posttrain_figures(posttrained) if posttrained else []),
        *(start_figures(measured, posttrained) if posttrained else []),
        *toys,
    ]
    toy, said = toy_table(results), generation_table(measured)
    elsewhere = [
        *(f"title-{figure.key}" for figure in drawn),
        *(table.key for part in (trained, tuned) if part for table in part.tables),
        *(["toy"] if toy[1] else []),
        *(["generations"] if said else []),
    ]
    return {
        "study": study_name,
        "summaries": summary(measured),
        "missing": missing_parts(measured) if measured.checkpoints or not toys else [],
        "phases": phase_table(found),
        "crystallization": crystallization_sentence(measured),
        "toy": toy,
        "finetuned": trained,
        "posttrained": tuned,
        "papers": paper_section(measured, finetuned, elsewhere),
        "figures": drawn,
        "axes": [axis for axis in ("step", "tokens") if any(axis in f.specs for f in drawn)],
        "drawings": {f.key: {"data": packed(f.rows), "specs": f.specs} for f in drawn},
        "checkpoints": checkpoint_table(measured),
        "audited": audit_table(measured),
        "capabilities": capability_sentences(measured),
        "generations": said,
        "failures": measured.failures,
        "provenance": provenance_table(results),
        "libraries": _libraries() if drawn else "",
    }


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, plain=plain, with_error=with_error)
    return environment.get_template("report.html.j2")


def existing_digest(results: str | Path | Place, name: str = PAGE) -> str | None:
    """Reads the digest that a report was rendered with.

    Args:
        results: Folder or URL of the results.
        name: The report's name there.

    Returns:
        The digest; None where there is no such file, or none was given.

    Raises:
        StoreError: The place cannot be read.
    """
    place = Place(results)
    try:
        if not place.exists(name):
            return None
        head = place.read(name)[:4096].decode(errors="replace")
    except (OSError, pa.ArrowException) as error:
        raise place.failure("cannot read", error, "mend its permissions", name) from error
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
