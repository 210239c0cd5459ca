"""Checkpoints as a hub lists them: names, sizes and hashes, without any weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.cells import Checkpoint
from jobs.frozen import Stage
from jobs.sources import HubFile, HubFolder
from workers.audit import Audit

TOKENIZER = HubFolder("org/model", "0" * 40, ())
Files = Mapping[str, object]


def sha(content: object) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


def checkpoint_of(step: int | None, files: Files, **labels: Any) -> Checkpoint:
    """Makes a checkpoint of weight files with some content, beside a config of its own."""
    config = {} if "config.json" in files else {"config.json": f"config of {step}"}
    source = HubFolder(
        labels.pop("repository", "org/model"),
        sha(step)[:40],
        tuple(
            HubFile(path, 10**6 if path.endswith(("tensors", "bin")) else 9, "o", sha(content))
            for path, content in sorted({**config, **files}.items())
            if content is not None
        ),
    )
    about: dict[str, Any] = {"revision": f"step{step}", "model": "model", "stage": "pretrain"}
    about |= labels
    return Checkpoint(
        suite="suite", step=step, tokens=None, source=source, tokenizer=TOKENIZER, **about
    )


def whole(content: object) -> Files:
    return {"model.safetensors": content}


def sharded(*contents: object) -> Files:
    count = len(contents)
    shards = {f"model-{n:05}-of-{count:05}.safetensors": c for n, c in enumerate(contents, start=1)}
    return {**shards, "model.safetensors.index.json": "the same everywhere"}


def series_of(contents: Mapping[int, Files]) -> list[Checkpoint]:
    return [checkpoint_of(step, files) for step, files in contents.items()]


def verdicts(found: Audit) -> dict[object, str]:
    """Returns the verdict on each checkpoint that is refused, by step or revision."""
    return {c.revision if c.step is None else c.step: f.verdict for c, f in found.refused}


@dataclass(frozen=True)
class Absent:
    """A step that was expected."""

    step: int
    model: str = "model"
    stage: Stage = "pretrain"
    repository: str = "org/model"
    revision: str = "step?"
