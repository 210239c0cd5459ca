"""∞-gram probabilities from the suffix arrays that the infini-gram package builds and reads.

Invariant: every count is exact, and equals that of the package's own engine over the same files.

A shard is a pair of files: tokens, little-endian, every document led by a separator of all bits
set; and the places of all suffixes of that stream in the order of their bytes, in as many bytes
per place as the tokens need. An n-gram's occurrences are a run of that order, found by bisection.

The package's engine starts two threads for every bisection, which cost more than the bisection
itself; it begins anew at every token, though a suffix grows by one token at most; and it ends the
process where a file is missing, or where the path of the folder has "table" in it. Hence the
arrays are read here.

Source: Liu et al. 2024, Infini-gram (arXiv 2401.17377), sections 2 and 3.
"""

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

Runs = tuple[tuple[int, int], ...]
"""For each shard the first rank of the suffixes that begin with an n-gram, and the one after."""

_REMEMBERED = 2**18
_SAMPLED_RANKS = 256
_SAMPLED_BYTES = 64


@dataclass(frozen=True)
class _Shard:
    tokens: mmap.mmap
    places: mmap.mmap
    place_bytes: int
    count: int

    def place(self, rank: int) -> int:
        start = rank * self.place_bytes
        return int.from_bytes(self.places[start : start + self.place_bytes], "little")


class SuffixArray:
    """Suffix arrays in memory maps.

    Attributes:
        token_bytes: Bytes of one token.
        total: Tokens of all shards, separators included.
    """

    def __init__(self, folder: Path, token_bytes: int) -> None:
        """Opens the shards of a folder: `tokenized.*` and `table.*`.

        Args:
            folder: The folder.
            token_bytes: Bytes of one token: 1, 2 or 4.

        Raises:
            ValueError: The files are no such index; the message says why.
            OSError: They cannot be read.
        """
        self.token_bytes = token_bytes
        self._dtype = np.dtype(f"<u{token_bytes}")
        self.separator = int(np.iinfo(self._dtype).max)
        paths = sorted(folder.glob("tokenized.*"))
        if not paths:
            raise ValueError("there is no tokenized.*")
        self._shards = [self._open(path) for path in paths]
        self.total = sum(shard.count for shard in self._shards)
        self.everything: Runs = tuple((0, shard.count) for shard in self._shards)

    def find(self, gram: bytes) -> Runs:
        """Returns the occurrences of an n-gram, given as the bytes of its tokens."""
        return self._narrow(self.everything, 0, gram)

    def extend(self, runs: Runs, length: int, token: bytes) -> Runs:
        """Returns those occurrences of an n-gram of some length that a token follows."""
        return self._narrow(runs, length * self.token_bytes, token)

    def encode(self, tokens: Sequence[int]) -> bytes:
        """Returns the bytes of tokens, none of which may be the separator or beyond."""
        return np.asarray(tokens, dtype=self._dtype).tobytes()

    def beginning(self, count: int) -> list[int]:
        """Returns the first tokens of every shard, without separators."""
        size = count * self.token_bytes
        heads = [np.frombuffer(s.tokens[:size], dtype=self._dtype) for s in self._shards]
        joined = np.concatenate(heads)
        found: list[int] = joined[joined != self.separator].tolist()
        return found

    def _narrow(self, runs: Runs, depth: int, wanted: bytes) -> Runs:
        width = len(wanted)
        found = []
        for shard, (first, end) in zip(self._shards, runs, strict=True):

            def follows(rank: int, shard: _Shard = shard) -> bytes:
                start = shard.place(rank) + depth
                return shard.tokens[start : start + width]

            ranks = range(shard.count)
            low = bisect_left(ranks, wanted, first, end, key=follows)
            # Most n-grams occur less often than they might: look near before looking far.
            step, high = 1, low
            while high + step <= end and follows(high + step - 1) == wanted:
                high, step = high + step, 2 * step
            high = bisect_right(ranks, wanted, high, min(high + step, end), key=follows)
            found.append((low, high))
        return tuple(found)

    def _open(self, path: Path) -> _Shard:
        table = path.with_name(path.name.replace("tokenized", "table", 1))
        if not table.is_file():
            raise ValueError(f"there is no {table.name}")
        sizes = path.stat().st_size, table.stat().st_size
        count, rest = divmod(sizes[0], self.token_bytes)
        if rest or not count:
            raise ValueError(
                f"{path.name} has {sizes[0]} bytes, no tokens of {self.token_bytes} each"
            )
        place_bytes, rest = divmod(sizes[1], count)
        if rest or not 1 <= place_bytes <= 8:
            raise ValueError(
                f"{table.name} has {sizes[1]} bytes, no place for each of {count} tokens"
            )
        shard = _Shard(_mapped(path), _mapped(table), place_bytes, count)
        self._check(path, table, shard)
        return shard

    def _check(self, path: Path, table: Path, shard: _Shard) -> None:
        """Refuses files that only look alike: by the first token, and a sample of the order."""
        if int.from_bytes(shard.tokens[: self.token_bytes], "little") != self.separator:
            raise ValueError(
                f"{path.name} doesn't begin with a separator of {self.token_bytes} bytes"
            )
        sampled = np.linspace(0, shard.count - 1, _SAMPLED_RANKS).astype(int).tolist()
        places = [shard.place(rank) for rank in sampled]
        heads = [shard.tokens[place : place + _SAMPLED_BYTES] for place in places]
        if (
            any(place % self.token_bytes or place >= len(shard.tokens) for place in places)
            or sorted(heads) != heads
        ):
            raise ValueError(f"{table.name} doesn't hold the order of {path.name}")


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_RANDOM)
    return mapped


class InfiniGram:
    """The ∞-gram model of a corpus: P(token | longest suffix of the context that occurs).

    It is remembered what was found, since prompts of a task end alike.

    Args:
        array: The corpus.
    """

    def __init__(self, array: SuffixArray) -> None:
        self._array = array
        self._find = lru_cache(_REMEMBERED)(array.find)
        self._extend = lru_cache(_REMEMBERED)(array.extend)

    def look_up(
        self, context: Sequence[int], answer: Sequence[int]
    ) -> tuple[list[float], list[int]]:
        """Returns the probability of each answer token, and the suffix that it is given.

        P(t | s) is the count of s followed by t over the count of s, as infini-gram's
        `infgram_prob` has it: ends of documents count as places where something else follows, and
        the empty suffix occurs at every token and every separator. Zero where t never follows s.

        A suffix can grow by one token at most, and does so where the token was seen to follow it:
        then its occurrences are known already. Elsewhere the next suffix is shorter than that.

        Args:
            context: Token ids before the answer, (C,).
            answer: Token ids of the answer, (A,).

        Returns:
            Probabilities in [0, 1] and lengths of the suffixes, in tokens, both (A,).
        """
        width = self._array.token_bytes
        said = self._array.encode([*context, *answer])
        end = len(context) * width
        runs, length = self._longest(said[:end], len(context))
        probabilities, lengths = [], []
        for _ in answer:
            token = said[end : end + width]
            end += width
            grown = self._extend(runs, length, token)
            count = _count(grown)
            probabilities.append(count / _count(runs))
            lengths.append(length)
            if count:
                runs, length = grown, length + 1
            else:
                runs, length = self._longest(said[:end], length)
        return probabilities, lengths

    def _longest(self, said: bytes, longest: int) -> tuple[Runs, int]:
        """Returns the occurrences of the longest suffix that has any, and its length.

        Args:
            said: The bytes of the context.
            longest: Length that the suffix is known not to exceed.
        """

        def suffix(length: int) -> Runs:
            return self._find(said[len(said) - length * self._array.token_bytes :])

        best, low, high = self._array.everything, 0, 1
        while high <= longest and _count(runs := suffix(high)):
            best, low, high = runs, high, 2 * high
        high = min(high, longest + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if _count(runs := suffix(middle)):
                best, low = runs, middle
            else:
                high = middle
        return best, low


def _count(runs: Runs) -> int:
    return sum(end - first for first, end in runs)
