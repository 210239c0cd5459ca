"""Series of checkpoints that their makers published, by name: what a study takes with `use`.

A file of `jobs/suites/` is a family: `[family]` holds what its suites share, `[suites.NAME]` the
rest. What a study says beside `use` wins over both.
"""

import copy
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jobs.errors import StudyError, nearest

_WAYS_TO_CHOOSE: Mapping[str, tuple[str, ...]] = {
    "revisions": ("pattern", "schedule", "steps"),
    "pattern": ("revisions", "steps"),
}
"""A field that a study gives, and those that it puts out of force."""


def published_suites() -> tuple[str, ...]:
    """Returns the names of the suites that ship with Eigentrace, family by family."""
    return tuple(_definitions())


def expand(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a study's document with every `use` replaced by what it stands for.

    Raises:
        StudyError: No suite of that name ships.
    """
    suites = document.get("suites")
    if not isinstance(suites, list):  # Refused by whoever validates the document.
        return dict(document)
    return {**document, "suites": [_expanded(suite) for suite in suites]}


def schema_with_use(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON Schema of a study in which a suite may also be taken with `use`.

    Args:
        schema: The schema of a study without any `use`.
    """
    found = copy.deepcopy(dict(schema))
    hub = found["$defs"]["HubSuite"]
    use = {
        "enum": list(published_suites()),
        "description": "Name of a suite that ships; every other key here wins over its own.",
        "title": "Use",
    }
    found["$defs"]["PublishedSuite"] = {
        **hub,
        "title": "PublishedSuite",
        "description": "A suite that ships with Eigentrace, changed where the study says so.",
        "properties": {"use": use, **hub["properties"]},
        "required": ["use"],
    }
    suites = found["properties"]["suites"]
    suites["items"] = {"anyOf": [suites["items"], {"$ref": "#/$defs/PublishedSuite"}]}
    return found


@cache
def _definitions() -> dict[str, dict[str, Any]]:
    """Returns the fields of every suite that ships, by name."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(resources.files("jobs.suites").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            family = tomllib.loads(file.read_text("utf-8"))
            for name, own in family["suites"].items():
                found[name] = {"kind": "hub", "name": name, **family.get("family", {}), **own}
    return found


def _expanded(suite: Any) -> Any:
    if not isinstance(suite, dict) or "use" not in suite:
        return suite
    own = {key: value for key, value in suite.items() if key != "use"}
    name = str(suite["use"])
    if name not in _definitions():
        raise StudyError(
            f"no suite '{name}' ships{nearest(name, published_suites())}",
            f"use one of {', '.join(published_suites())}, or write the suite down",
        )
    idle = {field for key in own for field in _WAYS_TO_CHOOSE.get(key, ())} - own.keys()
    inherited = {
        key: value for key, value in copy.deepcopy(_definitions()[name]).items() if key not in idle
    }
    return inherited | own
