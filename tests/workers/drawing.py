"""Draws of sequences from files, and the documents in the order of the draw."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from jobs.sources import TextFiles
from jobs.streams import HubStream
from jobs.text_spec import Sequences
from tests.workers.models import silent
from workers.sequences import TokenSequences, draw_sequences, load_sequences


def files(*paths: Path, field: str = "text", separator: str = "\n\n") -> TextFiles:
    found = tuple((str(p), hashlib.sha256(p.read_bytes()).hexdigest()) for p in paths)
    return TextFiles(found, field, separator)


def drawn_from(
    text: TextFiles | Path | HubStream, draw: Sequences, tokenizer: Path, folder: Path
) -> tuple[dict[str, Any], TokenSequences]:
    folder.mkdir(parents=True, exist_ok=True)
    columns = draw_sequences(text, draw, tokenizer, folder, silent)
    return columns, load_sequences(folder)


def lists(sequences: TokenSequences) -> list[list[int]]:
    return [part.tolist() for part in sequences.ids.split(sequences.lengths.tolist())]


def shuffled(documents: tuple[str, ...], seed: int) -> list[str]:
    return [documents[i] for i in np.random.default_rng(seed).permutation(len(documents))]
