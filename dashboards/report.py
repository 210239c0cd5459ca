"""One page that says what the results show: every word of it is computed from their numbers."""

import functools
import re
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
from markupsafe import Markup

from dashboards import query
from dashboards.about import PAGE, About
from dashboards.advisor import advise
from dashboards.advisor_words import advisor_section
from dashboards.all_figures import all_figures
from dashboards.audit import audit_table
from dashboards.capabilities import capability_sentences, generation_table
from dashboards.crystallization import crystallization_sentence
from dashboards.finetune_section import section
from dashboards.finetune_tables import read_finetuned
from dashboards.numbers import count, plain, with_error
from dashboards.page_data import packed
from dashboards.paper_section import paper_section
from dashboards.phase_table import phase_table, toy_table
from dashboards.posttrain_read import read_posttrained
from dashboards.posttrain_section import posttrain_section
from dashboards.provenance import provenance_table
from dashboards.summary import summary
from dashboards.tables import Measured, checkpoint_table, last_layer, read
from dashboards.toy_figures import toy_figures
from jobs.place import Place


def render(
    results: str | Path | Place,
    study_name: str,
    out: Path | None = None,
    digest: str = "",
    about: About | None = None,
) -> str:
    """Writes the report: one HTML file that needs no network.

    Args:
        results: Folder or URL of the results.
        study_name: Name of the study, for the title.
        out: The file; `report.html` within the results where it is left out. Replaced at once.
        digest: Names the state of the results; `existing_digest` gives it back.
        about: What the study asks for, where it is known.

    Returns:
        The file's path or URL.

    Raises:
        StoreError: The results cannot be read, or the report cannot be written.
    """
    page = draw(contents(results, study_name, about), digest)
    return write(page, Place(results)) if out is None else write(page, Place(out.parent), out.name)


def write(page: str, folder: Place, name: str = PAGE) -> str:
    """Writes a page, which is replaced at once.

    Returns:
        The file's path or URL.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        folder.write(name, page.encode())
    except (OSError, pa.ArrowException) as error:
        remedy = "make room or mend the permissions, and run the same command again"
        raise folder.failure("cannot write", error, remedy, name) from error
    return folder.at(name)


def draw(shown: dict[str, Any], digest: str = "", live: bool = False) -> str:
    """Fills the page's template.

    Args:
        shown: What `contents` gave.
        digest: Names the state of the results.
        live: The page is served by `dashboards.serve`, and loads itself anew when that has a
            newer one.
    """
    return _template().render(**shown, digest=digest, live=live)


def contents(
    results: str | Path | Place, study_name: str, about: About | None = None
) -> dict[str, Any]:
    """Reads the results and makes what the template shows.

    Raises:
        StoreError: The results cannot be read.
    """
    with query.read_once():
        return _contents(results, study_name, about)


def _contents(results: str | Path | Place, study_name: str, about: About | None) -> dict[str, Any]:
    measured = read(results)
    found = query.load("phases", results).to_pylist()
    toys = toy_figures(results)
    finetuned = read_finetuned(results)
    posttrained = read_posttrained(measured)
    advice = advise(results)
    trained = section(finetuned) if finetuned else None
    tuned = posttrain_section(posttrained) if posttrained else None
    advised = advisor_section(advice) if advice else None
    drawn = all_figures(measured, found, finetuned, posttrained, toys)
    toy, said = toy_table(results), generation_table(measured)
    elsewhere = [
        *(f"title-{figure.key}" for figure in drawn),
        *(table.key for part in (trained, tuned) if part for table in part.tables),
        *(["toy"] if toy[1] else []),
        *(["generations"] if said else []),
    ]
    return {
        "study": study_name,
        "about": about,
        "summaries": summary(measured),
        "missing": missing_parts(measured) if measured.checkpoints or not toys else [],
        "phases": phase_table(found),
        "crystallization": crystallization_sentence(measured),
        "toy": toy,
        "finetuned": trained,
        "advised": advised,
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
