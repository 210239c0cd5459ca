"""∞-gram indexes of corpora, in a model's own tokens.

Invariant: the same corpus gives the same bytes, whatever the threads, and an index that isn't
whole is never left behind.

Files of an index, as the infini-gram package writes and reads them, integers little-endian:

- `tokenized.0`: every document's tokens, led by a separator of all bits set;
- `offset.0`: where each document's separator begins, in bytes, uint64;
- `table.0`: the places of all suffixes, in bytes, in the order of the suffixes;
- `index.json`: the columns of table `indexes`.
"""

import hashlib
import importlib.util
import json
import math
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from jobs.capability_work import IndexWork
from jobs.errors import DataError
from jobs.sources import Produced
from workers import artifacts
from workers.artifacts import Files
from workers.corpus import END_OF_TEXT
from workers.documents import read_documents
from workers.hub import load_tokenizer
from workers.kernels.suffix_array import SuffixArray
from workers.sequences import tokenized, tokenizer_fingerprint
from workers.tally import phase

INDEX_FILES = ("tokenized.0", "offset.0", "table.0", "index.json")

# Sorting takes up to 12 bytes of memory for each byte of a part.
_PART_BYTES = 2**27
# A part sees so much of the next one, as in `infini_gram.indexing`.
_OVERLAP_BYTES = 100_000
# The indexer fails where there is little for each of its threads.
_THREAD_BYTES = 2**20
_PLACES_AT_ONCE = 2**22
_TOLD = 512

Report = Callable[[int, int], None]


@phase("make")
def build_index(
    work: IndexWork, files: Files, tokenizer: Path, folder: Path, report: Report
) -> dict[str, Any]:
    """Builds the ∞-gram index of a corpus.

    A pico corpus gives the very stream that its models were trained on, parted at the end of every
    document: the separator stands for the end-of-text token. Other text is tokenized document by
    document, without special tokens.

    Args:
        work: The corpus.
        files: Where the corpus is.
        tokenizer: Folder of the tokenizer.
        folder: Where to write; it exists.
        report: Called with (documents done, all documents), each counted twice: when its tokens
            are written, and when they are sorted.

    Returns:
        The own columns of table `indexes`.

    Raises:
        DataError: A corpus without tokens or in other tokens; files that cannot be written.
        MemoryError: Sorting took more memory than there is.
    """
    vocabulary = load_tokenizer(tokenizer)
    fingerprint = tokenizer_fingerprint(tokenizer)
    dtype = np.dtype("<u2" if largest_id(vocabulary) < 2**16 - 1 else "<u4")
    if isinstance(work.corpus, Produced):
        count, documents = _trained_on(work.corpus, files, vocabulary, fingerprint)
    else:
        texts = [
            t for t in read_documents(artifacts.text_of(files, work.corpus), report) if t.strip()
        ]
        count, documents = len(texts), map(np.asarray, tokenized(texts, vocabulary, False, None))
    with _whole_or_gone(folder):
        written = _write_tokens(
            documents, folder, dtype, lambda done: report(min(done, count), 2 * count)
        )
        _sort(folder, dtype.itemsize, lambda share: report(count + round(count * share), 2 * count))
        size = sum((folder / name).stat().st_size for name in INDEX_FILES[:-1])
        about = {"tokenizer_fingerprint": fingerprint, **written, "index_bytes": size}
        (folder / "index.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    return about


def largest_id(tokenizer: Any) -> int:
    """Returns the largest token id of a tokenizer."""
    return int(max(tokenizer.get_vocab().values()))


def _trained_on(
    corpus: Produced, files: Files, tokenizer: Any, fingerprint: str
) -> tuple[int, Iterable[NDArray[Any]]]:
    """Returns the documents of a pico corpus's training stream, without their ends."""
    own = artifacts.locate(files, Produced(corpus.cell_id, "tokenizer"))
    if tokenizer_fingerprint(own) != fingerprint:
        raise DataError(
            f"the corpus {corpus.cell_id} is not in the tokens of this tokenizer",
            "index it for the models that were trained on it, or index its text",
        )
    tokens = load_file(artifacts.locate(files, corpus))["tokens"]
    ends = np.flatnonzero(tokens == tokenizer.convert_tokens_to_ids(END_OF_TEXT))
    starts = np.concatenate(([0], ends + 1))
    bounds = zip(starts, np.concatenate((ends, [len(tokens)])), strict=True)
    return len(starts), (tokens[start:end] for start, end in bounds)


def _write_tokens(
    documents: Iterable[NDArray[Any]],
    folder: Path,
    dtype: np.dtype[Any],
    report: Callable[[int], None],
) -> dict[str, Any]:
    """Writes tokens and offsets; returns what there is to say of them."""
    separator = np.full(1, np.iinfo(dtype).max, dtype).tobytes()
    sha256 = hashlib.sha256()
    offsets: list[int] = []
    place = 0
    with (folder / "tokenized.0").open("wb") as file:
        for done, ids in enumerate(documents, start=1):
            if len(ids):
                content = separator + ids.astype(dtype).tobytes()
                file.write(content)
                sha256.update(content)
                offsets.append(place)
                place += len(content)
            if done % _TOLD == 0:
                report(done)
    if not offsets:
        raise DataError("the corpus has no tokens", "give memorization.corpus files with text")
    np.asarray(offsets, dtype="<u8").tofile(folder / "offset.0")
    return {
        "corpus_fingerprint": sha256.hexdigest(),
        "documents": len(offsets),
        "corpus_tokens": place // dtype.itemsize - len(offsets),
        "token_bytes": dtype.itemsize,
    }


def _sort(folder: Path, width: int, report: Callable[[float], None]) -> None:
    """Writes the suffix array of the tokens, part by part, by the package's own indexer.

    Its module `infini_gram.indexing` isn't used: it changes the working directory, passes paths
    through a shell, and cuts small corpora into parts that overlap, so that they count twice.
    """
    data, table = folder / "tokenized.0", folder / "table.0"
    parts, merged = folder / "parts", folder / "merged"
    size = data.stat().st_size
    place_bytes = max(1, math.ceil(math.log2(size) / 8))
    # For tokens of four bytes the indexer asks for 32 GiB at once: it sorts all bytes instead, and
    # those places where no token begins are dropped. The order is by bytes either way.
    every = 1 if width == 4 else width
    shared = ("--data-file", data, "--ratio", place_bytes, "--token-width", every)
    threads = ("--num-threads", max(1, min(torch.get_num_threads(), size // _THREAD_BYTES)))
    count = -(-size // _PART_BYTES)
    step = -(-size // count // width) * width
    parts.mkdir()
    merged.mkdir()
    for part in range(count):
        first, end = part * step, min((part + 1) * step + _OVERLAP_BYTES, size)
        _index(
            *("make-part", *shared, "--parts-dir", parts, "--start-byte", first, "--end-byte", end)
        )
        report((part + 1) / (count + 1))
    _index(
        *("merge", *shared, *threads, "--parts-dir", parts, "--merged-dir", merged),
        *("--hacksize", _OVERLAP_BYTES),
    )
    shutil.rmtree(parts)
    _index("concat", *shared, *threads, "--merged-dir", merged, "--merged-file", table)
    shutil.rmtree(merged)
    if every != width:
        _keep_aligned(table, place_bytes, width)
    try:
        SuffixArray(folder, width)
    except ValueError as error:  # A full disk need not make the indexer fail.
        raise OSError(f"the indexer left half of it: {error}") from error
    report(1.0)


def _keep_aligned(table: Path, place_bytes: int, width: int) -> None:
    """Leaves out the places at which no token begins."""
    whole = table.with_name("merged")
    table.rename(whole)
    with whole.open("rb") as source, table.open("wb") as target:
        while block := source.read(_PLACES_AT_ONCE * place_bytes):
            places = np.frombuffer(block, dtype=np.uint8).reshape(-1, place_bytes)
            target.write(places[places[:, 0] % width == 0].tobytes())
    whole.unlink()


def _index(*arguments: object) -> None:
    """Runs the package's indexer.

    Raises:
        MemoryError: It got no memory, or was killed for what it had.
        OSError: It failed otherwise.
    """
    done = subprocess.run(
        [_indexer(), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == -signal.SIGKILL or "memory allocation" in done.stderr:
        raise MemoryError("sorting the corpus's suffixes took more memory than there is")
    if done.returncode:
        # Of a panic, the first line that isn't a trace.
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        what = " ".join(lines[:2]) or f"ended by {done.returncode}"
        raise OSError(f"infini-gram's indexer failed: {what}")


def _indexer() -> Path:
    """Returns the package's program, without importing the package."""
    package = importlib.util.find_spec("infini_gram")
    if package is None or package.origin is None:
        raise DataError("infini-gram is not installed", "install `infini-gram` on every node")
    return Path(package.origin).parent / "rust_indexing"


@contextmanager
def _whole_or_gone(folder: Path) -> Iterator[None]:
    """Removes what the block wrote if it fails; what cannot be written is told as such."""
    try:
        yield
    except BaseException as error:
        for path in (folder / name for name in (*INDEX_FILES, "parts", "merged")):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if isinstance(error, OSError):
            raise DataError(
                f"the index cannot be written to {folder}: {error}",
                "make room on that disk: an index takes about ten times the bytes of its tokens "
                "while it is built, and three times in the end",
            ) from error
        raise
