"""Sampling by transformers alone: slow, but for every model that transformers knows."""

from collections.abc import Callable, Sequence

import torch
import transformers
from transformers import GenerationConfig

from jobs.posttrain_work import Sampling
from workers.engines import Asked, ModelFolder, room, seed_of
from workers.generate import plain_defaults
from workers.hub import LoadedCheckpoint, load_checkpoint
from workers.tally import count
from workers.threads import fixed_threads

# A constant, whatever memory there is: what is drawn depends on what shares its batch.
_BATCH = 64


class TransformersEngine:
    """Samples by `generate`; a batch holds samples of one problem, so that nothing is padded.

    Args:
        sampling: How.
        device: Where.
    """

    name = f"transformers {transformers.__version__}"

    def __init__(self, sampling: Sampling, device: str) -> None:
        self._dtype, self._device = sampling.dtype, device
        self._folder: ModelFolder | None = None
        self._loaded: LoadedCheckpoint | None = None

    def fits(self, folder: ModelFolder, sampling: Sampling, device: str, _length: int) -> bool:
        """Returns whether device and precision are the same: it loads any model."""
        asked = ("transformers", sampling.dtype, device)
        return asked == ("transformers", self._dtype, self._device) and (
            sampling.engine == "transformers"
        )

    def load(self, folder: ModelFolder) -> None:
        """Loads a checkpoint, unless it is the one that is loaded."""
        if self._folder is not None and self._folder.digest == folder.digest:
            return
        self._loaded = None  # Before the next one is loaded: both may not fit.
        self._loaded = load_checkpoint(
            folder.path, folder.tokenizer_path, self._dtype, self._device, folder.pickled
        )
        self._folder = folder

    def sample(
        self, problems: Sequence[Asked], sampling: Sampling, report: Callable[[int, int], None]
    ) -> list[list[list[int]]]:
        """Samples the problems one after another."""
        found = []
        with fixed_threads(sampling.threads):
            for problem in problems:
                found.append(self._samples(problem, sampling))
                report(len(found), len(problems))
        return found

    def stop(self) -> None:
        """Forgets the model."""
        self._folder = self._loaded = None

    @torch.no_grad()
    def _samples(self, problem: Asked, sampling: Sampling) -> list[list[int]]:
        assert self._loaded is not None
        assert self._folder is not None
        ends, model = self._folder.ends, self._loaded.model
        config = GenerationConfig(
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=room(problem, sampling, self._folder.context),
            eos_token_id=list(ends) or None,
            # It only fills the rows that ended, and they are cut there.
            pad_token_id=min(ends, default=0),
            suppress_tokens=list(self._folder.padding) or None,
        )
        found: list[list[int]] = []
        cuda = [torch.cuda.current_device()] if self._device.startswith("cuda") else []
        with torch.random.fork_rng(devices=cuda), plain_defaults(model):
            torch.manual_seed(seed_of(sampling, problem.place))
            while len(found) < sampling.samples:
                size = min(_BATCH, sampling.samples - len(found))
                ids = torch.tensor([problem.ids] * size, device=self._device)
                given = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
                )
                drawn = [_until_end(row[ids.shape[1] :], ends) for row in given.tolist()]
                count("sampled_tokens", "transformers", sum(map(len, drawn)))
                found += drawn
        return found


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in ends), None)
    return tokens[:end]
