"""Engines that sample answers: one at most is kept by a process, from one checkpoint to the next.

Invariant: an answer follows from the weights, the prompt, the settings, the seed and the place of
its problem alone, neither from what is sampled beside it nor from what was sampled before.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jobs.errors import DataError
from jobs.posttrain_work import Sampling
from workers.hub import load_tokenizer
from workers.tally import phase
from workers.weights import read_weights

# Lengths are rounded up to these, so that another set of problems seldom needs another engine.
_LENGTH_STEP = 128
# vLLM takes this one instead of any lower one, and tells it in a log alone.
_LEAST_TEMPERATURE = 0.01
# What a config.json says of where it comes from.
_NAMES = {"_name_or_path", "architectures", "transformers_version", "auto_map", "dtype"}
_NAMES |= {"torch_dtype"}


@dataclass(frozen=True)
class Asked:
    """A problem as an engine reads it.

    Attributes:
        place: Its place among the problems.
        ids: Tokens of the prompt.
    """

    place: int
    ids: list[int]


@dataclass(frozen=True)
class ModelFolder:
    """A checkpoint's folder, whose weights were read and are finite.

    Attributes:
        path: The folder.
        tokenizer: The loaded tokenizer.
        tokenizer_path: Its folder.
        pickled: Whether the weights are PyTorch files.
        digest: Which checkpoint it is.
        architecture: Equal for checkpoints whose weights one engine can hold.
        context: The longest text that the model reads, in tokens; None where it has no limit.
        vocabulary: Rows of the head.
        ends: Ids that end a text.
    """

    path: Path
    tokenizer: Any
    tokenizer_path: Path
    pickled: bool
    digest: str
    architecture: str
    context: int | None
    vocabulary: int
    ends: tuple[int, ...]

    @property
    def padding(self) -> range:
        """Rows of the head that stand for no token; they are never sampled."""
        return range(len(self.tokenizer), self.vocabulary)


class Engine(Protocol):
    """What samples answers of one checkpoint."""

    name: str
    """Name and release."""

    def fits(self, folder: ModelFolder, sampling: Sampling, device: str, length: int) -> bool:
        """Returns whether it can hold a checkpoint's weights and texts of a length."""

    def load(self, folder: ModelFolder) -> None:
        """Takes the weights of a checkpoint that it fits, unless it has them already."""

    def sample(
        self,
        problems: Sequence[Asked],
        sampling: Sampling,
        report: Callable[[int, int], None],
    ) -> list[list[list[int]]]:
        """Samples answers.

        Args:
            problems: The problems.
            sampling: How.
            report: Called with (problems done, all problems).

        Returns:
            For each problem the tokens of each of its samples, without the end of text.
        """

    def stop(self) -> None:
        """Frees its memory."""


_held: list[Engine] = []


@contextmanager
def holding(folder: ModelFolder, sampling: Sampling, device: str, length: int) -> Iterator[Engine]:
    """Gives an engine with a checkpoint's weights: the one of before, where it fits.

    It stays for the next one if all goes well.

    Args:
        folder: The checkpoint.
        sampling: How it will sample.
        device: `cpu` or `cuda`.
        length: Tokens of the longest prompt and of its answer.

    Raises:
        DataError: An engine that isn't installed, or refuses the model or the temperature.
        CellError: An engine that needs more GPUs than there are.
    """
    if sampling.engine == "vllm" and sampling.temperature < _LEAST_TEMPERATURE:
        raise DataError(
            f"vLLM samples at {_LEAST_TEMPERATURE} where temperature is below "
            f"{_LEAST_TEMPERATURE}, as {sampling.temperature} is",
            'raise passk.temperature, or set passk.engine = "transformers"',
        )
    engine = _held.pop() if _held else None
    if engine is not None and not engine.fits(folder, sampling, device, length):
        engine.stop()
        engine = None
    with phase("load"):
        engine = engine or _started(folder, sampling, device, length)
    try:
        with phase("load"):
            engine.load(folder)
        yield engine
    except BaseException:
        # What it still has to do, or what its weights are, nobody knows.
        engine.stop()
        raise
    _held.append(engine)


def let_go() -> None:
    """Stops the engine that is kept, since something else needs the memory."""
    while _held:
        _held.pop().stop()


@phase("load")
def read_folder(weights: Path, tokenizer: Path, digest: str, pickled: bool) -> ModelFolder:
    """Reads all that an engine must know of a checkpoint, its weights once.

    Raises:
        DataError: It cannot be read, or its weights aren't finite.
    """
    # Imported here: `AutoConfig` alone takes a second.
    from transformers import AutoConfig, GenerationConfig

    stored = read_weights(weights, pickled)
    try:
        told = json.loads((weights / "config.json").read_text())
        config = AutoConfig.from_pretrained(weights, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{weights}/config.json cannot be read: {error}", "save it again"
        ) from error
    loaded = load_tokenizer(tokenizer)
    text = config.get_text_config()
    vocabulary = text.vocab_size
    if len(loaded) > vocabulary:
        raise DataError(
            f"{weights}: the tokenizer has {len(loaded)} ids, the head {vocabulary} rows",
            "give the suite the tokenizer that the model was trained with",
        )
    try:
        generation = GenerationConfig.from_pretrained(weights, local_files_only=True)
    except OSError:  # Many checkpoints have none.
        generation = GenerationConfig.from_model_config(config)
    named = generation.eos_token_id
    ends = {*(named if isinstance(named, list) else [named]), loaded.eos_token_id} - {None}
    kept = {name: value for name, value in told.items() if name not in _NAMES}
    return ModelFolder(
        path=weights,
        tokenizer=loaded,
        tokenizer_path=tokenizer,
        pickled=pickled,
        digest=digest,
        # The tensors too: an engine that swaps weights keeps those that a folder lacks.
        architecture=json.dumps([kept, stored.tensors, list(ends)], sort_keys=True),
        context=getattr(text, "max_position_embeddings", None),
        vocabulary=vocabulary,
        ends=tuple(sorted(ends)),
    )


def seed_of(sampling: Sampling, place: int) -> int:
    """Returns the seed of a problem's samples, which leaves room to count up from it in 63 bits."""
    drawn = np.random.SeedSequence([sampling.seed, place]).generate_state(1, np.uint64)[0]
    return int(drawn) >> 2


def room(problem: Asked, sampling: Sampling, context: int | None) -> int:
    """Returns how many tokens an answer may have: fewer where the model's context ends before.

    Raises:
        DataError: The prompt has no tokens, or leaves no room.
    """
    if not problem.ids:
        raise DataError(f"problem {problem.place} has no tokens", "take it out of the problems")
    if context is None:
        return sampling.new_tokens
    if len(problem.ids) >= context:
        raise DataError(
            f"problem {problem.place} has {len(problem.ids)} tokens, which leaves no room for an "
            f"answer in the model's context of {context}",
            "take it out of the problems, or leave the model out of passk",
        )
    return min(sampling.new_tokens, context - len(problem.ids))


def rounded_length(length: int, context: int | None) -> int:
    """Returns the length of texts that an engine is started for."""
    rounded = math.ceil(length / _LENGTH_STEP) * _LENGTH_STEP
    return rounded if context is None else min(rounded, context)


def _started(folder: ModelFolder, sampling: Sampling, device: str, length: int) -> Engine:
    # Imported here: each needs what the other doesn't.
    if sampling.engine == "vllm":
        from workers.vllm_engine import VllmEngine

        return VllmEngine(folder, sampling, device, rounded_length(length, folder.context))
    from workers.transformers_engine import TransformersEngine

    return TransformersEngine(sampling, device)
