"""Small corpora in the tokens of a tokenizer that knows whole words, and their indexes."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from jobs.capability_work import IndexWork
from jobs.sources import Folder, Produced, TextFiles
from tests.workers.models import silent
from workers.artifacts import SharedFiles
from workers.corpus import END_OF_TEXT, write_tokenizer
from workers.corpus_index import build_index

ANYWHERE = Folder("", ())
Tokens = list[list[int]]


def words_tokenizer(folder: Path, size: int) -> Path:
    """A tokenizer of `size` ids: the end of text, then the words w1, w2 …"""
    vocabulary = {END_OF_TEXT: 0} | {f"w{place}": place for place in range(1, size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END_OF_TEXT))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    write_tokenizer(tokenizer, folder)
    return folder


def documents_of(seed: int, count: int, ids: Sequence[int]) -> Tokens:
    """Documents of 1 to 60 tokens that repeat themselves and each other."""
    generator = random.Random(seed)
    phrases = [generator.choices(ids, k=generator.randint(1, 9)) for _ in range(12)]
    found = []
    for _ in range(count):
        document: list[int] = []
        length = generator.randint(1, 60)
        while len(document) < length:
            document += generator.choice(phrases)
            document += generator.choices(ids, k=generator.randint(0, 2))
        found.append(document[:length])
    return found


def text_of_words(path: Path, documents: Tokens) -> TextFiles:
    path.write_text("\n\n".join(" ".join(f"w{token}" for token in d) for d in documents))
    return TextFiles(((str(path), hashlib.sha256(path.read_bytes()).hexdigest()),), "text", "\n\n")


def build(
    corpus: TextFiles | Produced, results: Path, tokenizer: Path, folder: Path
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return build_index(IndexWork(corpus, ANYWHERE), SharedFiles(results), tokenizer, folder, silent)


def pico_corpus(results: Path, cell: str, stream: Sequence[int], size: int) -> Produced:
    """What a corpus cell leaves of its training stream."""
    folder = results / "artifacts" / cell
    folder.mkdir(parents=True)
    words_tokenizer(folder / "tokenizer", size)
    save_file({"tokens": np.asarray(stream, dtype=np.uint16)}, folder / "train.safetensors")
    return Produced(cell, "train.safetensors")
