"""What all tests share: one thread, no network, a cache of their own, and tiny checkpoints."""

import os

# Read while torch, numpy and Ray are imported: more threads than cores make small numerics slower.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0" * 64,
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

import json
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.hub.client import local_hub
from tests.orchestrator.object_store import _server, bucket, object_store

__all__ = ["_server", "bucket", "local_hub", "object_store"]

# A job in the background ignores SIGINT, and so would what a test starts and means to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, and none kept; timing is no property on a shared machine.
settings.register_profile("eigentrace", deadline=None, derandomize=True, database=None)
settings.load_profile("eigentrace")

_SEED = 20260
_WORDS = (
    *("the", "a", "river", "stone", "bird", "light", "winter", "road", "house", "small", "green"),
    *("old", "quiet", "moves", "under", "over", "near", "sings", "falls", "turns", "grows", "and"),
    *("but", "then", "while", "every", "some", "water", "hill", "tree", "door", "hand", "year"),
)


@dataclass(frozen=True)
class Texts:
    """The same documents twice.

    Attributes:
        txt: Separated by blank lines.
        jsonl: One record a line, in the field `text`.
        documents: The documents themselves.
    """

    txt: Path
    jsonl: Path
    documents: tuple[str, ...]


def pytest_configure(config: pytest.Config) -> None:
    """Gives the run a temporary folder of its own, which all its processes find set.

    Ray keeps its logs there, and what is killed on purpose leaves its files. The path is short,
    since Ray's sockets lie below it; pytest's own folders stay where they are looked for.
    """
    if hasattr(config, "workerinput"):
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.tempdir = tempfile.mkdtemp(prefix="et-", dir="/tmp")
    os.environ |= {"TMPDIR": folder, "RAY_TMPDIR": folder}
    config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Runs quick tests first, then the slow ones, then those that start a cluster.

    Of several processes one has the clusters from the beginning: they last as long as all the rest.
    """
    ranks = {"slow": 1, "cluster": 2, "soak": 3}

    def late(item: pytest.Item) -> int:
        return max(
            (rank for name, rank in ranks.items() if item.get_closest_marker(name)), default=0
        )

    items.sort(key=late)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("cluster") is None)


class SharedByFile(LoadScopeScheduling):
    """Gives processes one file of tests after another, and all that start a cluster to one.

    A file's tests share what is made for them; two clusters beside each other would want more
    cores than there are.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "clusters" if _starts_clusters(self.config.rootpath / file) else file


@cache
def _starts_clusters(file: Path) -> bool:
    # The process that shares out the tests collects none, so it knows no marks.
    return "mark.cluster" in file.read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedByFile:
    return SharedByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the user's cache and results out of the tests, and the tests out of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIGENTRACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("EIGENTRACE_RESULTS", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Texts:
    """Eighty documents of 3 to 60 words, as text and as JSONL."""
    return make_texts(tmp_path_factory.mktemp("texts"))


def make_texts(folder: Path) -> Texts:
    """Writes the texts of `texts` into a folder."""
    generator = random.Random(_SEED)
    documents = tuple(
        " ".join(generator.choices(_WORDS, k=generator.randint(3, 60))) + "." for _ in range(80)
    )
    txt, jsonl = folder / "texts.txt", folder / "texts.jsonl"
    txt.write_text("\n\n".join(documents), encoding="utf-8")
    jsonl.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents), encoding="utf-8")
    return Texts(txt, jsonl, documents)


@pytest.fixture(scope="session")
def tiny_series(tmp_path_factory: pytest.TempPathFactory, texts: Texts) -> Path:
    """A folder with step0, step10 and step100 of a GPT-NeoX model and its tokenizer.

    Width 32, two blocks, one head; the last two rows of the LM head are padding beyond the
    tokenizer's ids. Treat it as read-only; `copy_series` gives a copy to damage.
    """
    return make_series(tmp_path_factory.mktemp("series"), texts)


def make_series(root: Path, texts: Texts) -> Path:
    """Saves the checkpoints of `tiny_series` below a folder, which it returns."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts.documents, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer) + 2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    generator = torch.Generator().manual_seed(_SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = GPTNeoXForCausalLM(config)
    for step in (0, 10, 100):
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn(weight.shape, generator=generator)
                weight += 0.002 * step**0.5 * noise
        folder = root / f"step{step}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return root


@pytest.fixture
def copy_series(tiny_series: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_series` that a test may damage."""
    return Path(shutil.copytree(tiny_series, tmp_path / "series"))
