"""Studies that are mutated, and their mutants."""

import json
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jobs.spec import Study
from jobs.study import load_study, shipped_studies
from tests.fuzz.mutations import TEXTS, like, mutate_bytes, mutate_tree, some_value
from tests.fuzz.sandbox import Sandbox, call
from tests.fuzz.study_texts import HAND_MADE
from tests.fuzz.toml import to_toml


@dataclass(frozen=True)
class Base:
    """A study that is mutated.

    Attributes:
        name: Its name.
        text: Its file.
        resolved: Every field with its value; None before it was planned.
        cells: Ids of its cells.
    """

    name: str
    text: str
    resolved: Any = None
    cells: frozenset[str] = frozenset()

    def as_json(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return {**vars(self), "cells": sorted(self.cells)}

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> "Base":
        """Returns what `as_json` gave."""
        return cls(**{**found, "cells": frozenset(found["cells"])})


def bases() -> Iterator[Base]:
    """Yields every study that ships, the template, and those that use what no other does."""
    folder = resources.files("jobs")
    for name in shipped_studies():
        yield Base(name, (folder / "studies" / f"{name}.toml").read_text("utf-8"))
    yield Base("template", (folder / "template.toml").read_text("utf-8"))
    for name, text in HAND_MADE.items():
        yield Base(name, text)


def planned(base: Base, sandbox: Sandbox) -> Base:
    """Returns a study with what planning it unchanged gives."""
    path = sandbox.studies / f"{base.name}.toml"
    path.write_text(base.text)
    called = call(("plan", "--json", "--study", str(path)))
    assert called.code == 0, f"{base.name}: {called.error}"
    [plan] = called.plans
    return Base(base.name, base.text, resolved(plan.study), frozenset(c.id for c in plan.cells))


def study_of(base: Base, folder: Path) -> Study:
    """Returns a study, having written its file into a folder."""
    path = folder / f"{base.name}.toml"
    path.write_text(base.text)
    return load_study(str(path))


def resolved(study: Study) -> Any:
    """Returns every field of a study with its value, as JSON knows it."""
    return json.loads(study.model_dump_json())


@dataclass(frozen=True)
class Mutant:
    """A case.

    Attributes:
        base: The study that was mutated.
        content: Bytes of the study's file.
        overrides: What `--set` is given.
    """

    base: Base
    content: bytes
    overrides: tuple[str, ...] = ()


def mutant(case: int, among: tuple[Base, ...]) -> Mutant:
    """Returns a case; the same for the same number and studies."""
    chance = random.Random(f"study {case}")
    # Large plans take seconds, so they are rarer.
    [base] = chance.choices(among, [1 / (100 + len(base.cells)) for base in among])
    kind = chance.random()
    if kind < 0.35:
        return Mutant(base, mutate_bytes(base.text.encode(), chance))
    if kind < 0.7:
        tree = mutate_tree(tomllib.loads(base.text), chance)
        return Mutant(base, to_toml(tree).encode("utf-8", "surrogatepass"))
    overrides = tuple(_override(base.resolved, chance) for _ in range(chance.choice((1, 1, 2))))
    return Mutant(base, base.text.encode(), overrides)


def _override(document: Any, chance: random.Random) -> str:
    keys: list[str] = []
    here = document
    while isinstance(here, dict | list) and here and (not keys or chance.random() < 0.9):
        if isinstance(here, dict):
            key: Any = chance.choice(list(here))
            keys.append(key)
        else:
            key = chance.randrange(len(here))
            name = here[key].get("name") if isinstance(here[key], dict) else None
            keys.append(name if name and chance.random() < 0.7 else str(key))
        here = here[key]
    if chance.random() < 0.1:
        keys[chance.randrange(len(keys))] = chance.choice(TEXTS)
    if chance.random() < 0.05:
        keys.append(chance.choice(TEXTS))
    path = ".".join(keys)
    value = like(here, chance) if chance.random() < 0.75 else some_value(chance)
    text = value if isinstance(value, str) else to_toml({"x": value}).partition("=")[2].strip()
    if chance.random() < 0.1:
        text = mutate_bytes(text.encode("utf-8", "surrogatepass"), chance).decode(
            "utf-8", "surrogateescape"
        )
    return f"{path}={text}".replace("\0", "")[: 2**17]
