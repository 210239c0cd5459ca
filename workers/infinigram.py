"""What an ∞-gram index says of a task's answers, once for all checkpoints of a tokenizer.

Invariant: context and answer are the very tokens that lm-eval makes of them for a model.

Files of the artifact, for E examples:

- `answers.safetensors`: `context_tokens` and `answer_tokens`, int32, one example after the other;
  `context_lengths` and `answer_lengths`, int32, shape (E,); `probabilities`, float64, and
  `suffix_lengths`, int32, aligned with the answer tokens;
- `answers.json`: `task`, `template_fingerprint` and `floor`, the probability 1/(tokens of the
  corpus, separators included), which takes the place of zero where a policy asks for it.
"""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jobs.capability_work import ForeignIndex, InfinigramWork
from jobs.errors import DataError
from jobs.questions import Questions
from jobs.sources import Produced
from workers import artifacts
from workers.artifacts import Files
from workers.corpus_index import INDEX_FILES, largest_id
from workers.harness import build_requests, load_task, right_options, template_fingerprint
from workers.hub import load_tokenizer
from workers.kernels.suffix_array import InfiniGram, SuffixArray
from workers.measure import Rows
from workers.scoring import LoadedModel, TokenRequest
from workers.sequences import tokenizer_fingerprint
from workers.tally import phase

_SAMPLED_TOKENS = 2**20
_ANOTHER = "index the corpus in the suite's own tokens"


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a task and what the ∞-gram model says of them.

    Attributes:
        requests: Context and answer of every example, nothing cut.
        probabilities: ∞-gram probability of each answer token, in [0, 1], one array per example.
        template_fingerprint: SHA-256 of all prompts and answers.
        floor: The probability that may stand for zero.
    """

    requests: list[TokenRequest]
    probabilities: list[NDArray[np.float64]]
    template_fingerprint: str
    floor: float


@phase("make")
def look_up(
    work: InfinigramWork,
    files: Files,
    tokenizer: Path,
    folder: Path,
    report: Callable[[int, int], None],
) -> Rows:
    """Returns the rows of table `infinigram`, one per suffix length, and writes the artifact.

    The answer to a multiple-choice question is the first right option with its delimiter; of a
    task that asks for a likelihood, its target; where text is generated, the first of the accepted
    answers, led by a space unless the prompt ends in white space. The whole context is looked up,
    even where a model's context is shorter.

    Args:
        work: The questions and the index.
        files: Where both are.
        tokenizer: Folder of the tokenizer.
        folder: Where to write; it exists.
        report: Called with (examples done, all examples).

    Raises:
        DataError: A task that cannot be asked or has an empty answer; an index that isn't whole,
            or of another tokenizer.
        OSError: The hub cannot be reached, or a file cannot be written.
    """
    vocabulary = load_tokenizer(tokenizer)
    array = _opened(work.index, files, tokenizer_fingerprint(tokenizer), largest_id(vocabulary))
    asked = _asked(work.questions, files)
    requests = _Tokens(vocabulary).token_requests(
        (place, 0, *instance.args) for place, instance in enumerate(asked)
    )
    if silent := [request.example for request in requests if not request.context]:
        raise DataError(
            f"task '{work.questions.name}': example {silent[0]} has a blank prompt, of which no "
            "token is left",
            "mend the record",
        )
    model = InfiniGram(array)
    probabilities: list[float] = []
    lengths: list[int] = []
    for done, request in enumerate(requests, start=1):
        found = model.look_up(request.context, request.continuation)
        probabilities += found[0]
        lengths += found[1]
        report(done, len(requests))
    fingerprint = template_fingerprint(asked)
    contexts = [request.context for request in requests]
    answers = [request.continuation for request in requests]
    save_file(
        {
            "context_tokens": _joined(contexts),
            "context_lengths": np.array([len(ids) for ids in contexts], dtype=np.int32),
            "answer_tokens": _joined(answers),
            "answer_lengths": np.array([len(ids) for ids in answers], dtype=np.int32),
            "probabilities": np.array(probabilities, dtype=np.float64),
            "suffix_lengths": np.array(lengths, dtype=np.int32),
        },
        folder / "answers.safetensors",
    )
    about = {
        "task": work.questions.name,
        "template_fingerprint": fingerprint,
        "floor": 1 / array.total,
    }
    (folder / "answers.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    shared = {
        "task": work.questions.name,
        "n_examples": len(requests),
        "n_tokens": len(lengths),
        "template_fingerprint": fingerprint,
    }
    return [shared | row for row in _histogram(np.array(lengths), np.array(probabilities))]


def load_answers(folder: Path) -> Answers:
    """Reads what `look_up` wrote.

    Raises:
        DataError: It is damaged.
    """
    try:
        tensors = load_file(folder / "answers.safetensors")
        about = json.loads((folder / "answers.json").read_text())
        contexts = _parted(tensors["context_tokens"], tensors["context_lengths"])
        answers = _parted(tensors["answer_tokens"], tensors["answer_lengths"])
        requests = [
            TokenRequest(place, 0, tuple(context.tolist()), tuple(answer.tolist()), False)
            for place, (context, answer) in enumerate(zip(contexts, answers, strict=True))
        ]
        return Answers(
            requests,
            _parted(tensors["probabilities"], tensors["answer_lengths"]),
            str(about["template_fingerprint"]),
            float(about["floor"]),
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            f"the looked-up answers in {folder} cannot be read: {error}",
            "remove that artifact from the results, then `retry`: it is made again",
        ) from error


class _Tokens(LoadedModel):
    """lm-eval's tokenization without a model: nothing is cut."""

    def __init__(self, tokenizer: Any) -> None:
        # Not HFLM's, which wants a model.
        LM.__init__(self)
        self.tokenizer = tokenizer
        self.backend = "causal"
        self.add_bos_token = None
        self.custom_prefix_token_id = None

    @property
    def max_length(self) -> int:
        """Longer than any text."""
        return sys.maxsize // 2


def _asked(questions: Questions, files: Files) -> list[Instance]:
    """Returns a request for the likelihood of each example's answer."""
    task = load_task(questions, files)
    by_example: dict[int, list[Instance]] = {}
    for instance in build_requests(task, questions.limit):
        by_example.setdefault(instance.doc_id, []).append(instance)
    found = []
    for example, instances in sorted(by_example.items()):
        first = instances[0]
        if task.OUTPUT_TYPE == "multiple_choice":
            right = min(right_options(task, first.doc))
            (first,) = [instance for instance in instances if instance.idx == right]
        prompt, answer = first.args
        if task.OUTPUT_TYPE == "generate_until":
            answer = _first_alias(task, first.doc)
            if not prompt[-1:].isspace():
                answer = f" {answer}"
        if not answer.strip():
            raise DataError(
                f"task '{questions.name}': example {example} has an empty answer", "mend the record"
            )
        metadata = (questions.name, example, 1)
        found.append(
            Instance("loglikelihood", first.doc, (prompt, answer), idx=0, metadata=metadata)
        )
    return found


def _first_alias(task: Any, document: dict[str, Any]) -> str:
    target = task.doc_to_target(document)
    if isinstance(target, list | tuple):
        target = target[0] if target else ""
    return str(target).strip()


def _opened(
    index: Produced | ForeignIndex, files: Files, fingerprint: str, largest: int
) -> SuffixArray:
    """Opens an index, having seen that it is in the tokenizer's tokens."""
    if isinstance(index, Produced):
        folder = artifacts.whole(files, index.cell_id, INDEX_FILES) / index.folder
        about = json.loads((folder / "index.json").read_text())
        if about["tokenizer_fingerprint"] != fingerprint:
            raise DataError(f"{folder} is an index of another tokenizer", _ANOTHER)
        return _array(folder, about["token_bytes"])
    folder = Path(index.path)
    for name, size, _ in index.files:
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise DataError(
                f"{path} is gone from this node, or changed since it was planned",
                "put the index where every node finds it, and run the command again",
            )
    array = _array(folder, index.token_bytes)
    if largest >= array.separator:
        raise DataError(
            f"token id {largest} doesn't fit into the {index.token_bytes} bytes that {folder} has "
            "for a token: it is an index of another tokenizer",
            _ANOTHER,
        )
    if (unknown := max(array.beginning(_SAMPLED_TOKENS), default=0)) > largest:
        raise DataError(
            f"{folder} has a token {unknown}, the tokenizer's largest id is {largest}: it is an "
            "index of another tokenizer",
            _ANOTHER,
        )
    return array


def _array(folder: Path, token_bytes: int) -> SuffixArray:
    try:
        return SuffixArray(folder, token_bytes)
    except (ValueError, OSError) as error:
        raise DataError(
            f"{folder} is no ∞-gram index: {error}",
            "name a folder with tokenized.* and table.*, and the bytes of a token in it",
        ) from error


def _histogram(lengths: NDArray[Any], probabilities: NDArray[np.float64]) -> Rows:
    return [
        {
            "suffix_length": length,
            "answer_tokens": count,
            "share": count / len(lengths),
            "zero_tokens": int((probabilities[lengths == length] == 0).sum()),
        }
        for length, count in zip(
            *(values.tolist() for values in np.unique(lengths, return_counts=True)), strict=True
        )
    ]


def _joined(parts: Iterable[tuple[int, ...]]) -> NDArray[np.int32]:
    return np.fromiter((token for part in parts for token in part), dtype=np.int32)


def _parted(values: NDArray[Any], lengths: NDArray[Any]) -> list[NDArray[Any]]:
    """Parts a run of values into pieces of the lengths, which must be those of all values."""
    if int(lengths.sum()) != len(values):
        raise ValueError(f"{len(values)} values for lengths that sum to {int(lengths.sum())}")
    return [values[a:b] for a, b in pairwise(accumulate(lengths.tolist(), initial=0))]
