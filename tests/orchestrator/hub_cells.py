"""Cells of checkpoints on the hub, known by their files alone."""

from jobs.cells import Cell, Checkpoint
from jobs.frozen import DType
from jobs.sources import HubFile, HubFolder, TextFiles
from jobs.text_spec import LocalText
from jobs.work import CheckpointWork, GeometryWork, HeadWork, LossWork, SequencesWork

TOKENIZER = HubFolder("org/model", "0" * 40, (HubFile("tokenizer.json", 2_000, "tokenizer"),))
"""The tokenizer of every checkpoint."""

_TEXT = TextFiles((("/text.txt", "0" * 64),), "text", "\n\n")


def drawing(sequences: int = 100, length: int = 50) -> Cell:
    """Returns the cell that draws the sequences."""
    draw = LocalText(paths=("/text.txt",), sequences=sequences, sequence_length=length)
    return Cell(SequencesWork("words", _TEXT, draw, TOKENIZER), suite="suite")


def checkpoint(
    step: int, weights: int = 2_000_000_000, content: str = "", model: str = "model-1b"
) -> Checkpoint:
    """Returns a checkpoint with weights of so many bytes; equal contents are one file."""
    sha256 = content or f"{model} {step}"
    files = (
        HubFile("config.json", 1_000, "config"),
        HubFile("model.safetensors", weights, sha256, sha256),
    )
    return Checkpoint(
        suite="suite",
        model=model,
        revision=f"step{step}",
        step=step,
        tokens=None,
        stage="pretrain",
        source=HubFolder("org/model", f"{step:040}", files),
        tokenizer=TOKENIZER,
    )


def measured(about: Checkpoint, drawn: Cell, dtype: DType = "bfloat16") -> list[Cell]:
    """Returns every measurement of a checkpoint."""
    needs = (drawn.id,)
    return [
        Cell(CheckpointWork(), (), about),
        Cell(HeadWork(None, None, 20, drop_zero_rows=False), (), about),
        Cell(GeometryWork("words", drawn.id, "last", dtype), needs, about),
        Cell(LossWork("words", drawn.id, dtype), needs, about),
    ]


def series(count: int, weights: int = 2_000_000_000) -> list[Cell]:
    """Returns the cells of a series of checkpoints on one text."""
    drawn = drawing()
    return [
        drawn,
        *(c for step in range(count) for c in measured(checkpoint(step, weights), drawn)),
    ]
