"""The report: drawn as a page, as single figures, or served and drawn anew while a run goes on."""

import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from rich.console import Console

import jobs
from jobs.errors import StoreError, UsageError
from jobs.identity import digest
from jobs.place import Place
from jobs.spec import Study
from jobs.study import load_study
from orchestrator.options import USUAL
from orchestrator.store import Ledger, Store

if TYPE_CHECKING:
    from dashboards.about import About

_LEAST_SECONDS = 2.0
"""Between two looks at the results."""
_SHARE = 5
"""A look, and what is drawn after it, takes at most one part in so many and one of the time."""
_FOLDER = "figures"
_TOLD = ("name", "description", "suites", "datasets")
_FOR_FIGURES = ("figure", "out", "width")


def report(
    place: Place, study: Study, *, ledger: Ledger | None = None, force: bool = False
) -> dict[str, Any]:
    """Draws the report, unless one of these very results is there."""
    about = about_study(study)
    current = _digest(study.name, about, ledger or Store(place, write=False).ledger())
    # Imported here: `plan` draws nothing.
    from dashboards.about import PAGE, existing_digest

    page = place.at(PAGE)
    if force or existing_digest(place) != current:
        from dashboards.report import render

        page = render(place, study.name, digest=current, about=about)
    return {"code": 0, "report": page}


def run(place: Place, options: Namespace, console: Console) -> dict[str, Any]:
    """Draws what the command asks for.

    Raises:
        UsageError: Options that don't go together, an unknown figure, or a port that is taken.
        StoreError: The results cannot be read, or hold nothing that could be drawn.
    """
    _check(options)
    if options.format != "html":
        return _figures(place, options, console)
    from dashboards.about import existing_study

    name, about = existing_study(place)
    if options.study is not None:
        study = load_study(options.study, options.set)
        name, about = study.name, about_study(study)
    name = name or USUAL
    if options.watch:
        return _watch(place, name, about, options.port or 0, console)
    from dashboards.report import render

    current = _digest(name, about, Store(place, write=False).ledger())
    return {"code": 0, "report": render(place, name, digest=current, about=about)}


def about_study(study: Study) -> "About":
    """Says in plain words what a study asks for."""
    return {
        "name": study.name,
        "description": study.description.rstrip("."),
        "suites": [
            *((suite.name, suite.kind) for suite in study.suites),
            *((chain.name, "post-training") for chain in study.posttrain),
        ],
        "texts": [
            (name, text.kind, text.sequences, text.sequence_length)
            for name, text in study.datasets.items()
        ],
        "asked": [
            (name, (field.description or "").rstrip("."))
            for name, field in Study.model_fields.items()
            # What stands in every study says nothing of this one.
            if not field.default and getattr(study, name) and name not in _TOLD
        ],
    }


def _check(options: Namespace) -> None:
    html = options.format == "html"
    unused = [*(_FOR_FIGURES if html else ("watch",)), *(() if options.watch else ("port",))]
    if options.study is None and options.set:
        raise UsageError("--set overrides a study, and none is named", "name it with --study")
    if given := [name for name in unused if getattr(options, name)]:
        if given[0] == "port":
            raise UsageError("--port is for --watch alone", "add --watch, or leave it out")
        wanted = "pdf, png or svg" if html else "html"
        raise UsageError(
            f"--{given[0]} is nothing for --format {options.format}", f"use --format {wanted}"
        )


def _figures(place: Place, options: Namespace, console: Console) -> dict[str, Any]:
    """Saves figures, beside the report unless another folder is named."""
    from dashboards.figure_files import COLUMN, save_figures

    out = Place(options.out) if options.out else Place(place.at(_FOLDER))
    keys = options.figure or ()
    saved = save_figures(place, options.format, out, keys, options.width or COLUMN)
    console.print(f"{len(saved)} figures: {out}", markup=False)
    return {"code": 0, "figures": saved}


def _watch(
    place: Place, name: str, about: "About | None", port: int, console: Console
) -> dict[str, Any]:
    """Draws and serves the report, and does so anew whenever the results change, until Ctrl-C."""
    from dashboards.about import PAGE
    from dashboards.report import contents, draw, write
    from dashboards.serve import serving

    store = Store(place, write=False)

    def page(state: str) -> str:
        shown = contents(place, name, about)
        write(draw(shown, state), place)
        return draw(shown, state, live=True)

    current = _digest(name, about, store.ledger())
    try:
        with serving(page(current), current, port) as served:
            console.print(f"report: {served.url} (until Ctrl-C)", markup=False)
            pause = _LEAST_SECONDS
            while True:
                time.sleep(pause)
                begin = time.monotonic()
                try:
                    found = _digest(name, about, store.ledger())
                    if found != current:
                        served.page = page(found), found
                        current = found
                        console.print(f"drawn anew: {time.strftime('%H:%M:%S')}", markup=False)
                except StoreError as error:  # What can't be read now may be there at the next look.
                    console.print(f"not drawn anew: {error}", markup=False)
                pause = max(_LEAST_SECONDS, _SHARE * (time.monotonic() - begin))
    except KeyboardInterrupt:  # The watching ends, not the run.
        return {"code": 0, "report": place.at(PAGE)}


def _digest(name: str, about: "About | None", ledger: Ledger) -> str:
    asked = digest([about]) if about is not None else ""
    return digest([jobs.__version__, name, asked, sorted(ledger.done), sorted(ledger.failed)])
