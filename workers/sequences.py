"""Sequences: a text drawn, tokenized and ordered once, shared by all checkpoints of a tokenizer.

They are stored as one flat run of token ids and the length of each sequence.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from jobs.errors import DataError
from jobs.sources import TOKENIZER_FILES, TextFiles
from jobs.streams import HubStream
from jobs.text_spec import Sequences
from workers.documents import read_documents
from workers.hub import load_tokenizer
from workers.tally import phase

_BATCH = 512


@dataclass(frozen=True)
class TokenSequences:
    """Token sequences of various lengths.

    Attributes:
        ids: All token ids, one sequence after the other, (total,) int64.
        lengths: Length of each sequence, (M,) int64.
        seq_len: Longest allowed length L.
        fingerprint: SHA-256 of ids and lengths, and of the answers where there are some.
        answers: Whether each token is part of an answer, whose loss alone counts, (total,) bool;
            None where every token counts.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    seq_len: int
    fingerprint: str
    answers: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def share_full_length(self) -> float:
        """Share of the sequences that have length L."""
        return float((self.lengths == self.seq_len).double().mean())

    def first(self, count: int) -> "TokenSequences":
        """Returns the first sequences, with the fingerprint of all; all where there are no more."""
        lengths = self.lengths[:count]
        total = int(lengths.sum())
        answers = None if self.answers is None else self.answers[:total]
        return TokenSequences(self.ids[:total], lengths, self.seq_len, self.fingerprint, answers)

    @property
    def predicted(self) -> torch.Tensor:
        """How many tokens of each sequence are predicted and count, (M,): never the first one."""
        if self.answers is None:
            return self.lengths - 1
        counted = self.answers.clone()
        counted[self._starts] = False
        owners = torch.arange(len(self)).repeat_interleave(self.lengths)
        return torch.zeros(len(self), dtype=torch.int64).index_add_(0, owners, counted.long())

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yields (places (B,), ids (B, T) padded on the right with 0, lengths (B,)).

        Sequences of like length share a batch, longest first, so that little is padded and
        memory that doesn't suffice shows at once.
        """
        order = torch.argsort(self.lengths, descending=True, stable=True)
        for places in order.split(size):
            yield places, self._padded(self.ids, places), self.lengths[places]

    def counted(self, places: torch.Tensor) -> torch.Tensor:
        """Returns which tokens of a batch count: all real ones, or those of answers, (B, T)."""
        if self.answers is not None:
            return self._padded(self.answers, places)
        lengths = self.lengths[places]
        return torch.arange(int(lengths.max())) < lengths[:, None]

    @property
    def _starts(self) -> torch.Tensor:
        return self.lengths.cumsum(0) - self.lengths

    def _padded(self, values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Returns what belongs to the tokens of some sequences, padded on the right with 0."""
        starts, lengths = self._starts[places], self.lengths[places]
        padded = torch.zeros(len(places), int(lengths.max()), dtype=values.dtype)
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            padded[row, :length] = values[start : start + length]
        return padded


def load_sequences(folder: Path) -> TokenSequences:
    """Reads what `save_sequences` wrote."""
    tensors = load_file(folder / "sequences.safetensors")
    about = json.loads((folder / "sequences.json").read_text())
    return TokenSequences(
        tensors["ids"].long(),
        tensors["lengths"].long(),
        about["seq_len"],
        about["fingerprint"],
        tensors.get("answers"),
    )


def save_sequences(sequences: TokenSequences, folder: Path) -> None:
    """Writes sequences into an existing folder."""
    tensors = {"ids": sequences.ids.int(), "lengths": sequences.lengths.int()}
    if sequences.answers is not None:
        tensors["answers"] = sequences.answers
    save_file(tensors, folder / "sequences.safetensors")
    about = {"seq_len": sequences.seq_len, "fingerprint": sequences.fingerprint}
    (folder / "sequences.json").write_text(json.dumps(about))


@phase("make")
def draw_sequences(
    text: TextFiles | Path | HubStream,
    draw: Sequences,
    tokenizer_folder: Path,
    folder: Path,
    report: Callable[[int, int], None],
) -> dict[str, Any]:
    """Draws M sequences of at most L tokens and writes them into a folder.

    Documents are taken in a seeded random order, so a smaller M is a prefix of a larger one.

    Args:
        text: Files of the user's, a JSONL file of ours with the field `text`, or a dataset on the
            hub.
        draw: M, L, mode, special tokens, minimum length, seed.
        tokenizer_folder: Folder of the tokenizer.
        folder: Where to write.
        report: Called with (sequences so far, M); before, of a dataset on the hub, with (documents
            so far, all documents).

    Returns:
        The own columns of table `sequences`, but the dataset's name.

    Raises:
        DataError: Too little text, files that cannot be read or changed since they were planned,
            a dataset on the hub that isn't as the study says, or a tokenizer that cannot be loaded.
        OSError: The hub cannot be reached.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    documents = [d for d in read_documents(text, report) if d.strip()]
    drawn = cut_sequences(documents, draw, tokenizer, report)
    save_sequences(drawn, folder)
    return {
        "sequences_fingerprint": drawn.fingerprint,
        "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer_folder),
        "n_sequences": len(drawn),
        "seq_len": draw.sequence_length,
        "mode": draw.mode,
        "special_tokens": draw.special_tokens,
        "minimum_length": draw.minimum_length,
        "seed": draw.seed,
        "total_tokens": int(drawn.lengths.sum()),
        "share_full_length": drawn.share_full_length,
        "documents": len(documents),
    }


def cut_sequences(
    documents: Sequence[str],
    draw: Sequences,
    tokenizer: Any,
    report: Callable[[int, int], None],
) -> TokenSequences:
    """Draws M sequences of at most L tokens from documents that aren't blank.

    Args:
        documents: The documents.
        draw: As in `draw_sequences`.
        tokenizer: The tokenizer; it is left cutting documents at their end.
        report: Called with (sequences so far, M).

    Raises:
        DataError: Too little text, or no room beside the special tokens.
    """
    # Whatever the tokenizer's own files say: a document is cut at its end.
    tokenizer.truncation_side = "right"
    added = tokenizer.num_special_tokens_to_add() if draw.special_tokens else 0
    if draw.mode == "document" and draw.sequence_length <= added:
        raise DataError(
            f"sequence_length {draw.sequence_length} leaves no room beside the tokenizer's {added} "
            "special tokens",
            "raise the dataset's `sequence_length`, or set special_tokens = false",
        )
    order = np.random.default_rng(draw.seed).permutation(len(documents))
    shuffled = [documents[i] for i in order]
    cut = _packed if draw.mode == "packed" else _truncated
    sequences: list[list[int]] = []
    for sequence in cut(shuffled, draw, tokenizer):
        sequences.append(sequence)
        if len(sequences) == draw.sequences:
            break
        if len(sequences) % _BATCH == 0:
            report(len(sequences), draw.sequences)
    if len(sequences) < draw.sequences:
        raise DataError(
            f"the text gives only {len(sequences)} of {draw.sequences} sequences ({len(documents)} "
            f"documents, mode {draw.mode}, minimum length {draw.minimum_length})",
            "lower the dataset's `sequences`, or add text",
        )
    ids = np.concatenate([np.asarray(s, dtype=np.int32) for s in sequences])
    lengths = np.asarray([len(s) for s in sequences], dtype=np.int32)
    fingerprint = hashlib.sha256(ids.tobytes() + lengths.tobytes()).hexdigest()
    return TokenSequences(
        torch.from_numpy(ids).long(),
        torch.from_numpy(lengths).long(),
        draw.sequence_length,
        fingerprint,
    )


def _truncated(documents: Sequence[str], draw: Sequences, tokenizer: Any) -> Iterator[list[int]]:
    """Yields one sequence per document that is long enough, cut at L."""
    for ids in tokenized(documents, tokenizer, draw.special_tokens, draw.sequence_length):
        if len(ids) >= draw.minimum_length:
            yield ids


def _packed(documents: Sequence[str], draw: Sequences, tokenizer: Any) -> Iterator[list[int]]:
    """Yields pieces of exactly L tokens of all documents that are long enough, joined."""
    end, length = tokenizer.eos_token_id, draw.sequence_length
    between = [end] if draw.special_tokens and end is not None else []
    rest: list[int] = []
    for ids in tokenized(documents, tokenizer, False, None):
        if len(ids) < draw.minimum_length:
            continue
        rest += ids + between
        whole = len(rest) - len(rest) % length
        for start in range(0, whole, length):
            yield rest[start : start + length]
        rest = rest[whole:]


def tokenized(
    documents: Sequence[str], tokenizer: Any, special_tokens: bool, longest: int | None
) -> Iterator[list[int]]:
    """Yields the token ids of documents.

    Args:
        documents: The documents.
        tokenizer: The tokenizer.
        special_tokens: Whether it adds its special tokens.
        longest: Where a document is cut, in tokens; None for nowhere.
    """
    for start in range(0, len(documents), _BATCH):
        yield from tokenizer(
            list(documents[start : start + _BATCH]),
            add_special_tokens=special_tokens,
            truncation=longest is not None,
            max_length=longest,
            verbose=False,
        )["input_ids"]


def tokenizer_fingerprint(folder: Path) -> str:
    """Returns the SHA-256 of the names and contents of a tokenizer's files."""
    sha256 = hashlib.sha256()
    for file in (folder / name for name in TOKENIZER_FILES if (folder / name).is_file()):
        sha256.update(file.name.encode() + b"\0" + file.read_bytes())
    return sha256.hexdigest()
