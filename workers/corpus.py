"""The text of the pico suite: Python's own English and a generated curriculum.

Invariant: the same interpreter and the same parameters give the same bytes, and nothing held out
occurs in the training stream.

Files of a built corpus, all JSONL records with sorted keys:

- `tokenizer/`: a byte-level BPE in which every digit is a token, for `AutoTokenizer`;
- `train.safetensors`: `tokens`, uint16, shape `(training tokens,)`; every document is ended by
  `<|endoftext|>`;
- `heldout.jsonl`: `{"text"}`, English documents that no model trains on;
- `arithmetic_train.jsonl`, `arithmetic_heldout.jsonl`, `facts.jsonl`, `questions_train.jsonl`,
  `questions_heldout.jsonl`: see `workers.curriculum` and `workers.facts`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.errors import DataError
from jobs.pico_spec import PicoCorpus
from workers import curriculum, facts
from workers.english import documents, source_fingerprint, split
from workers.tally import phase

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
__all__ = ["END_OF_TEXT", "build", "source_fingerprint", "train_tokenizer", "write_tokenizer"]


def train_tokenizer(texts: list[str], size: int) -> "Tokenizer":
    """Trains a byte-level BPE whose digits stay alone.

    Args:
        texts: Training documents.
        size: Vocabulary size, end-of-text included; smaller if the text has fewer merges.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def _encode(tokenizer: "Tokenizer", texts: Iterable[str]) -> list[list[int]]:
    """Returns the token ids of documents, each with its end."""
    end = tokenizer.get_vocab()[END_OF_TEXT]
    return [[*encoding.ids, end] for encoding in tokenizer.encode_batch_fast(list(texts))]


def _fill(lengths: list[int], budget: int) -> int:
    """Returns how many of the first documents fit into a budget of tokens."""
    return int(np.searchsorted(np.cumsum(lengths), budget, side="right"))


def _write_records(path: Path, records: Iterable[facts.Record]) -> None:
    lines = [json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


@phase("make")
def build(
    parameters: PicoCorpus, source: str, folder: Path, report: Callable[[int, int], None]
) -> dict[str, object]:
    """Builds the corpus: tokenizer, training stream, held-out text and the curriculum's files.

    Args:
        parameters: What the corpus holds.
        source: The `source_fingerprint` that the plan saw.
        folder: An existing, empty folder.
        report: Called with (done, total); reading, tokenizer and encoding are a third each.

    Returns:
        The own columns of table `corpora`.

    Raises:
        DataError: The source is not the one that the plan saw, or holds too little text.
    """
    from safetensors.numpy import save_file

    found = source_fingerprint()
    if found != source:
        raise DataError(
            f"the standard library's text has fingerprint {found[:12]}, the plan saw {source[:12]}",
            "run the same release of Python on every node, or plan again",
        )
    texts = documents(lambda done, files: report(done, 3 * files))
    train, held = split(texts, parameters.heldout_share, parameters.seed)
    if not train or not held:
        raise DataError(
            f"no English for training or to hold out: {len(train)} and {len(held)} documents",
            "run a Python that has its standard library's .py files",
        )
    arithmetic_budget = int(parameters.training_tokens * parameters.arithmetic_share)
    english_budget = int(parameters.training_tokens * parameters.english_share)
    fact_budget = parameters.training_tokens - arithmetic_budget - english_budget
    sums = curriculum.arithmetic(
        arithmetic_budget,
        parameters.training_problems,
        parameters.heldout_problems,
        parameters.seed,
    )
    people = facts.invent(
        fact_budget // facts.LEAST_MEAN_LENGTH, parameters.subjects, parameters.seed
    )
    said = [document.text for document in people.documents]
    tokenizer = train_tokenizer([*train, *sums.documents, *said], parameters.vocabulary_size)
    report(2, 3)

    english = _encode(tokenizer, train)
    generator = np.random.default_rng([parameters.seed, 4])
    order: list[int] = []
    epochs = 1 + english_budget // sum(map(len, english))
    for _ in range(epochs):
        order += generator.permutation(len(english)).tolist()
    order = order[: _fill([len(english[place]) for place in order], english_budget)]
    spoken = _encode(tokenizer, said)
    spoken = spoken[: _fill([len(ids) for ids in spoken], fact_budget)]
    parts = {
        "english_tokens": [english[place] for place in order],
        "arithmetic_tokens": _encode(tokenizer, sums.documents),
        "fact_tokens": spoken,
    }
    everything = [document for part in parts.values() for document in part]
    stream = np.fromiter(
        (
            token
            for place in generator.permutation(len(everything)).tolist()
            for token in everything[place]
        ),
        dtype=np.uint16,
    )

    write_tokenizer(tokenizer, folder / "tokenizer")
    save_file({"tokens": stream}, folder / "train.safetensors")
    _write_records(folder / "heldout.jsonl", ({"text": text} for text in held))
    for name, problems in (("train", sums.train), ("heldout", sums.heldout)):
        _write_records(
            folder / f"arithmetic_{name}.jsonl",
            ({"problem": problem, "answer": answer} for problem, answer in problems),
        )
    used = people.documents[: len(spoken)]
    for name, records in facts.records(people, used, parameters.seed).items():
        _write_records(folder / f"{name}.jsonl", records)
    return {
        "source_fingerprint": found,
        "training_fingerprint": hashlib.sha256(stream.astype("<u2").tobytes()).hexdigest(),
        "tokenizer_fingerprint": hashlib.sha256(
            (folder / "tokenizer" / "tokenizer.json").read_bytes()
        ).hexdigest(),
        "vocabulary_size": tokenizer.get_vocab_size(),
        "training_tokens": len(stream),
        **{name: sum(map(len, part)) for name, part in parts.items()},
        "english_documents": len(train),
        "heldout_documents": len(held),
        "heldout_tokens": sum(map(len, _encode(tokenizer, held))),
    }


def write_tokenizer(tokenizer: "Tokenizer", folder: Path) -> None:
    """Writes a tokenizer folder as `AutoTokenizer` reads it."""
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        # The generic class: one of a named architecture would put its own pre-tokenizer in place.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
