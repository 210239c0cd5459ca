"""∞-gram lookups beside one query to infini-gram's engine for each token and checkpoint."""

import atexit
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from infini_gram.engine import InfiniGramEngine

from benchmarks.limits import Figure
from benchmarks.peers import Sides, beside
from jobs.capability_work import IndexWork, InfinigramWork
from jobs.pico_spec import PicoCorpus
from jobs.questions import PicoQuestions
from jobs.sources import Produced
from workers.artifacts import SharedFiles
from workers.corpus import build, source_fingerprint
from workers.corpus_index import build_index
from workers.infinigram import load_answers, look_up
from workers.kernels.suffix_array import InfiniGram, SuffixArray

_CORPUS, _INDEX = "c" * 64, "d" * 64
_CHECKPOINTS = 8
_QUESTIONS = 64


def figures() -> list[Figure]:
    """Ratios of an engine's time to ours."""
    return beside(_sides())


def _sides() -> list[Sides]:
    """Answers about the pico corpus's facts, looked up in its own training stream.

    The first two compare the lookups, from tokens to probabilities, files opened anew; the last
    one the whole cell, in which lm-eval's templates take most of the time: the other side is given
    the tokens for nothing.
    """
    holder = TemporaryDirectory(prefix="eigentrace-bench-")
    atexit.register(holder.cleanup)
    root = Path(holder.name)
    files, tokenizer = SharedFiles(root), Produced(_CORPUS, "tokenizer")
    corpus, index = root / "artifacts" / _CORPUS, root / "artifacts" / _INDEX
    answers = root / "answers"
    for folder in (corpus, index, answers):
        folder.mkdir(parents=True)
    build(PicoCorpus(), source_fingerprint(), corpus, _ignore)
    indexed = IndexWork(Produced(_CORPUS, "train.safetensors"), tokenizer)
    build_index(indexed, files, corpus / "tokenizer", index, _ignore)
    questions = PicoQuestions("facts", _CORPUS, "last_word", "heldout", _QUESTIONS)
    work = InfinigramWork(questions, Produced(_INDEX, ""), tokenizer)

    def whole() -> None:
        look_up(work, files, corpus / "tokenizer", answers, _ignore)

    whole()
    requests = load_answers(answers).requests

    def ours() -> None:
        model = InfiniGram(SuffixArray(index, 2))
        for request in requests:
            model.look_up(request.context, request.continuation)

    def queries(checkpoints: int) -> Callable[[], object]:
        def ask() -> None:
            engine = InfiniGramEngine(str(index), 0)
            for request in requests * checkpoints:
                said = [*request.context, *request.continuation]
                for place in range(len(request.context), len(said)):
                    engine.infgram_prob(prompt_ids=said[:place], cont_id=said[place])

        return ask

    what, other = f"∞-gram lookups of {_QUESTIONS} answers", "against an engine query per token"
    many = f"{other} and each of {_CHECKPOINTS} checkpoints"
    return [
        Sides(f"{what}, {many}", ours, queries(_CHECKPOINTS), "≥ 5"),
        Sides(f"{what}, {other} of one checkpoint", ours, queries(1), "≥ 5"),
        Sides(f"{what} with prompts and tokens, {many}", whole, queries(_CHECKPOINTS), "≥ 1"),
    ]


def _ignore(_done: int, _total: int) -> None:
    return None
