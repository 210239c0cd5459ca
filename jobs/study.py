"""Studies: a TOML file, found by name or path, with `--set path=value` overrides on top."""

import copy
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from jobs.errors import StudyError, nearest, shortened
from jobs.published import expand, schema_with_use
from jobs.spec import Study


def shipped_studies() -> tuple[str, ...]:
    """Returns the names of the studies that ship with Eigentrace."""
    folder = resources.files("jobs.studies")
    return tuple(
        sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))
    )


def load_study(name_or_path: str, overrides: Sequence[str] = ()) -> Study:
    """Reads a study and applies overrides.

    Args:
        name_or_path: A shipped study's name, or the path of a TOML file.
        overrides: `path=value`, as in `geometry.layers=all` or `datasets.heldout.sequences=200`;
            a member of a list of named tables is addressed by its name or place.

    Raises:
        StudyError: No such study, malformed TOML, an unknown key, a suite that doesn't ship, or a
            value out of range.
    """
    document = _parse(name_or_path)
    for override in overrides:
        _apply(document, override, _defaults(document))
    document = expand(document)
    try:
        return Study.model_validate(document)
    except ValidationError as error:
        raise _explain(error, name_or_path, document) from None


def schema() -> dict[str, Any]:
    """Returns the JSON Schema of a study file."""
    return schema_with_use(Study.model_json_schema())


def _parse(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    if name_or_path in shipped_studies():
        text = (resources.files("jobs.studies") / f"{name_or_path}.toml").read_text("utf-8")
    elif path.suffix == ".toml" or len(path.parts) > 1:
        try:
            text = path.read_text(encoding="utf-8-sig")  # Some editors begin with a mark.
        except UnicodeDecodeError as error:
            raise StudyError(
                f"cannot read the study {path}, which is not UTF-8: {error}", "save it so"
            ) from error
        except (OSError, ValueError) as error:
            raise StudyError(f"cannot read the study {path}: {error}", "check the path") from error
    else:
        raise StudyError(
            f"unknown study '{name_or_path}'{nearest(name_or_path, shipped_studies())}",
            f"use one of {', '.join(shipped_studies())}, or the path of a .toml file",
        )
    try:
        return _toml(text)
    except ValueError as error:
        raise StudyError(f"{name_or_path} is not valid TOML: {error}", "mend the line") from error


def _toml(text: str) -> dict[str, Any]:
    """Reads TOML.

    Raises:
        ValueError: It isn't TOML, holds an integer beyond the 64 bits that TOML has, or lies too
            deep within itself.
    """
    try:
        document = tomllib.loads(text)
        _check_integers(document)
    except RecursionError:
        raise ValueError("lists or tables lie too deep within each other") from None
    return document


def _check_integers(value: Any) -> None:
    """Raises ValueError for an integer that Python could not even show."""
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            _check_integers(member)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"an integer has {value.bit_length()} bits, and TOML's have 64")


def _defaults(document: dict[str, Any]) -> Any:
    """Returns the document with everything that it leaves out; None while it is not valid."""
    try:
        return Study.model_validate(expand(document)).model_dump(mode="json")
    except (ValidationError, StudyError):
        return None


def _apply(document: dict[str, Any], override: str, defaults: Any) -> None:
    """Sets one `path=value` in the document, in place.

    A list that the document leaves out is taken from the defaults, so that a member of it can be
    addressed; any other table starts empty, and keeps its defaults by leaving them out.
    """
    path, equals, text = override.partition("=")
    shown = shortened(path)
    try:
        override.encode()
    except UnicodeEncodeError:  # Bytes that are no text arrive as lone surrogates.
        # Neither is the value shown nor the error, which has it.
        raise StudyError(f"--set {shown!r} is not UTF-8", "write it in UTF-8") from None
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise StudyError(
            f"--set '{shortened(override)}' is not of the form path=value",
            "as in geometry.layers=all",
        )
    target: Any = document
    while True:
        place: Any
        if isinstance(target, list):
            place, keys = _place(target, keys, path)
        else:
            place, *keys = keys
        if not keys:
            target[place] = _value(text)
            return
        if isinstance(target, list):
            target = target[place]
            defaults = defaults[place] if isinstance(defaults, list) else None
        else:
            defaults = defaults.get(place) if isinstance(defaults, dict) else None
            left_out = copy.deepcopy(defaults) if isinstance(defaults, list) else {}
            target = target.setdefault(place, left_out)
        if not isinstance(target, dict | list):
            raise StudyError(
                f"--set '{shown}': '{shortened(str(place))}' is a value, not a table",
                "shorten the path",
            )


def _place(members: list[Any], keys: list[str], path: str) -> tuple[int, list[str]]:
    """Returns the index of a list's member by its name or its number, and the keys behind it.

    A name may hold dots, as in `pythia-1.4b`: it is the longest beginning of the keys that fits.
    """
    names = [_name(member) if isinstance(member, dict) else "" for member in members]
    longest = 1 + max((name.count(".") for name in names), default=0)
    for length in range(min(longest, len(keys)), 0, -1):
        if ".".join(keys[:length]) in names:
            return names.index(".".join(keys[:length])), keys[length:]
    key = keys[0]
    if key in map(str, range(len(members))):
        return int(key), keys[1:]
    raise StudyError(
        f"--set '{shortened(path)}': no member '{shortened(key)}'{nearest(key, names)}",
        f"use one of {', '.join(n for n in names if n)}, or a number below {len(members)}",
    )


def _name(member: dict[str, Any]) -> str:
    """Returns what a member of a list of tables goes by."""
    return str(next((member[key] for key in ("name", "use", "kind") if key in member), None))


def _value(text: str) -> Any:
    """Reads a TOML value; what isn't one is a string."""
    try:
        return _toml(f"value = {text}")["value"]
    except ValueError:
        return text.strip()


def _explain(error: ValidationError, study: str, document: dict[str, Any]) -> StudyError:
    """Turns pydantic's findings into one line that names the key, the value and the remedy."""
    found = error.errors(include_url=False)
    # A refused member also makes its list too short: say only the cause.
    inner = [f for f in found if not any(_inside(g["loc"], f["loc"]) for g in found)]
    first = inner[0]
    location = _path(first["loc"], document)
    where = ".".join(location)
    context = first.get("ctx", {})
    more = f" (and {len(inner) - 1} more)" if len(inner) > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            names = sorted(_keys_beside(first["loc"]))
            return StudyError(
                f"unknown key '{where}' in study {study}{nearest(location[-1], names)}{more}",
                f"valid keys there: {', '.join(names)}",
            )
        case "missing":
            return StudyError(f"study {study} lacks '{where}'{more}", "add it")
        case "union_tag_not_found":
            return StudyError(f"study {study} lacks '{where}.kind'{more}", "add it")
        case "union_tag_invalid":
            kinds = re.findall(r"'([^']*)'", context["expected_tags"])
            return StudyError(
                f"'{where}.kind' in study {study} is '{context['tag']}'"
                f"{nearest(context['tag'], kinds)}{more}",
                f"use one of {', '.join(kinds)}",
            )
        case "literal_error":
            words = re.findall(r"'([^']*)'", context["expected"])
            return StudyError(
                f"'{where}' in study {study} is {_shown(first['input'])}"
                f"{nearest(str(first['input']), words)}{more}",
                f"use one of {', '.join(words)}",
            )
        case _:
            # A whole table is no value to show.
            given = first["input"]
            value = "" if isinstance(given, dict) else f" is {_shown(given)}"
            return StudyError(
                f"'{where}' in study {study}{value}: "
                f"{first['msg'].removeprefix('Value error, ')}{more}",
                "correct the value",
            )


def _shown(value: Any) -> str:
    return shortened(json.dumps(value, default=str))


def _path(location: tuple[int | str, ...], document: dict[str, Any]) -> list[str]:
    """Returns pydantic's location as a path in the document, without the tags of its unions."""
    path = []
    here: Any = document
    for depth, part in enumerate(location, start=1):
        if isinstance(here, dict):
            known = part in here
        else:
            known = isinstance(here, list) and isinstance(part, int) and part < len(here)
        tag = isinstance(here, dict) and here.get("kind") == part
        if known or (depth == len(location) and not tag):
            path.append(str(part))
            here = here[part] if known else None
    return path


def _inside(inner: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _keys_beside(location: tuple[int | str, ...]) -> set[str]:
    """Returns the valid keys of the table that holds an unknown key."""
    models: list[type[BaseModel]] = [Study]
    for part in location[:-1]:
        deeper = [
            model
            for parent in models
            if isinstance(part, str) and part in parent.model_fields
            for model in _models_in(parent.model_fields[part].annotation)
        ]
        if deeper:
            models = deeper
        elif isinstance(part, str):  # The tag of a union, such as the suite's kind.
            tagged = [
                m
                for m in models
                if "kind" in m.model_fields and m.model_fields["kind"].default == part
            ]
            models = tagged or models
    return {name for model in models for name in model.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields the models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_args(annotation):
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)
