"""What others published, by name: what a study takes with `use`.

A file of `jobs/suites/` is a family of checkpoints: `[family]` holds what its suites share,
`[suites.NAME]` the rest. `jobs/presets/` holds data and stages of post-training. What a study says
beside `use` wins over all of them.
"""

import copy
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal

from jobs.errors import StudyError, nearest

What = Literal["suite", "training data", "stage"]

_PLACES = ("repository", "revision", "config", "split", "files")
_WAYS_TO_CHOOSE: Mapping[What, Mapping[str, tuple[str, ...]]] = {
    "suite": {
        "revisions": ("pattern", "schedule", "steps"),
        "pattern": ("revisions", "steps"),
    },
    # Another part of a data set has another number of records; another data set, other parts.
    "training data": {
        "repository": (*_PLACES[1:], "where", "limit", "records"),
        "revision": ("limit", "records"),
        "config": ("files", "limit", "records"),
        "split": ("files", "limit", "records"),
        "files": ("config", "split", "limit", "records"),
        "where": ("limit", "records"),
        "records": ("limit",),
    },
    "stage": {"steps": ("epochs",), "epochs": ("steps",)},
}
"""A field that a study gives, and those that it puts out of force."""


def published_suites() -> tuple[str, ...]:
    """Returns the names of the suites that ship with Eigentrace, family by family."""
    return tuple(_suites())


def published_data() -> tuple[str, ...]:
    """Returns the names of the training data that ship with Eigentrace."""
    return tuple(_presets("training"))


def published_stages() -> tuple[str, ...]:
    """Returns the names of the stages of post-training that ship with Eigentrace."""
    return tuple(_presets("stages"))


def expand(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a study's document with every `use` replaced by what it stands for.

    What isn't of the right form is left as it is, for whoever validates the document.

    Raises:
        StudyError: Nothing of that name ships.
    """
    found = dict(document)
    if isinstance(suites := document.get("suites"), list):
        found["suites"] = [_expanded("suite", suite) for suite in suites]
    if isinstance(training := document.get("training"), dict):
        found["training"] = {
            name: _expanded("training data", data) for name, data in training.items()
        }
    if isinstance(chains := document.get("posttrain"), list):
        found["posttrain"] = [_with_stages(chain) for chain in chains]
    return found


def schema_with_use(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON Schema of a study in which `use` is known.

    Args:
        schema: The schema of a study without any `use`.
    """
    found = copy.deepcopy(dict(schema))
    definitions = found["$defs"]
    chain = definitions["Chain"]["properties"]
    places: tuple[tuple[What, str, dict[str, Any], str], ...] = (
        ("suite", "HubSuite", found["properties"]["suites"], "items"),
        ("training data", "HubExamples", found["properties"]["training"], "additionalProperties"),
        ("stage", "TrainingStage", chain["stages"], "items"),
    )
    for what, model, parent, key in places:
        name = model.replace("Hub", "Published").replace("Training", "Published")
        use = {
            "enum": list(_shipped(what)),
            "description": f"Name of a {what} that ships; every other key here wins over its own.",
            "title": "Use",
        }
        definitions[name] = {
            **definitions[model],
            "title": name,
            "description": f"A {what} that ships with Eigentrace, changed where the study says so.",
            "properties": {"use": use, **definitions[model]["properties"]},
            "required": ["use"],
        }
        parent[key] = {"anyOf": [parent[key], {"$ref": f"#/$defs/{name}"}]}
    return found


def _shipped(what: What) -> dict[str, dict[str, Any]]:
    """Returns the fields of everything that ships of a kind, by name."""
    match what:
        case "suite":
            return _suites()
        case "training data":
            return _presets("training")
        case "stage":
            return _presets("stages")


@cache
def _suites() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for family in _documents("jobs.suites"):
        for name, own in family["suites"].items():
            found[name] = {"kind": "hub", "name": name, **family.get("family", {}), **own}
    return found


@cache
def _presets(table: Literal["training", "stages"]) -> dict[str, dict[str, Any]]:
    kind = {"kind": "hub"} if table == "training" else {}
    return {
        name: {**kind, **own}
        for document in _documents("jobs.presets")
        for name, own in document.get(table, {}).items()
    }


def _documents(package: str) -> Iterator[dict[str, Any]]:
    """Yields the TOML files of a package, in the order of their names."""
    for file in sorted(resources.files(package).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            yield tomllib.loads(file.read_text("utf-8"))


def _with_stages(chain: Any) -> Any:
    stages = chain.get("stages") if isinstance(chain, dict) else None
    if not isinstance(stages, list):
        return chain
    return {**chain, "stages": [_expanded("stage", stage) for stage in stages]}


def _expanded(what: What, given: Any) -> Any:
    if not isinstance(given, dict) or "use" not in given:
        return given
    own = {key: value for key, value in given.items() if key != "use"}
    name, shipped = str(given["use"]), _shipped(what)
    if name not in shipped:
        raise StudyError(
            f"no {what} '{name}' ships{nearest(name, tuple(shipped))}",
            f"use one of {', '.join(shipped)}, or write the {what} down",
        )
    idle = {field for key in own for field in _WAYS_TO_CHOOSE[what].get(key, ())} - own.keys()
    inherited = {
        key: value for key, value in copy.deepcopy(shipped[name]).items() if key not in idle
    }
    return inherited | own
