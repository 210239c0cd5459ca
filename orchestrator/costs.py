"""What cells take in seconds, from FLOPs and bytes. What cells share has a name, and counts once.

The rules: a forward pass takes 2 FLOPs per parameter and token besides the attention's, training
three times as many, the overlaps of a head V²d, an eigendecomposition and the singular values of a
d × d matrix 12 d³. What processors reach of their peak is assumed, and so is what a step costs
however small the model is; measured seconds correct both where there are some.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.capability_work import (
    AblationWork,
    ChatsWork,
    EvalWork,
    GenerateWork,
    IndexWork,
    InfinigramWork,
    MemorizationWork,
)
from jobs.cells import Cell
from jobs.findings import AuditWork
from jobs.finetune_work import FinetuneWork, SensitivityWork
from jobs.frozen import DType
from jobs.posttrain_work import PassKWork, PosttrainWork, SampleWork
from jobs.questions import PicoQuestions, Questions
from jobs.text_spec import Draw
from jobs.toy_work import ToyWork
from jobs.winrate_work import RespondWork, WinrateWork
from jobs.work import (
    CheckpointWork,
    CorpusWork,
    GeometryWork,
    HeadWork,
    LossWork,
    PretrainWork,
    SequencesWork,
)
from orchestrator import training_costs
from orchestrator.flops import (
    BLOCK_SECONDS,
    FACTORIZATION_FLOPS,
    factorization_rate,
    forward_flops,
    matrix_rate,
)
from orchestrator.hardware import Processor, cpu
from orchestrator.model_sizes import ModelSize, ModelSizes

PartName = Literal[
    "load",
    "pass",
    "head statistics",
    "spectra",
    "corpus",
    "pretraining",
    "sequences",
    "questions",
    "ablation",
    "memorization",
    "generations",
    "noise",
    "finetuning",
    "posttraining",
    "sampling",
    "pass@k",
    "answers",
    "judging",
    "index",
    "infinigram",
    "toy",
]

_LOAD_BYTES_PER_SECOND = 500e6  # Read, hashed and copied to the device.
_LOAD_SECONDS = 0.05
_HEAD_SECONDS = 0.02
_SPECTRUM_SECONDS = 2e-3
_CORPUS_SECONDS = 10.0  # The English of Python's own documentation is gathered, whatever is kept.
_TOKENS_PER_SECOND = 250_000.0
_INDEX_SECONDS = 10.0  # How large the corpus is, only its cell knows.
_LOOKUP_SECONDS = 2e-3
_EXAMPLES = 1000  # What a task without a limit is taken to hold, in few-token options.
_PICO_EXAMPLES = 256
_OPTIONS = 4
_REQUEST_TOKENS = 64
_ASKING_SECONDS = 0.2
_PASSK_SECONDS = 0.5
_TOY_SECONDS = 2e-9  # One multiplication of the tractable model: tensors as large as a cache.


@dataclass(frozen=True)
class Part:
    """A part of what a cell does.

    Attributes:
        name: What is done.
        seconds: What it takes, from FLOPs and bytes.
        shared: What other cells of the same checkpoint share it by; None if it is the cell's own.
    """

    name: PartName
    seconds: float
    shared: str | None = None


class Costs:
    """The parts of a plan's cells.

    Args:
        cells: All cells of the plan.
        sizes: How large their models are.
        batch_size: Sequences per forward pass.
    """

    def __init__(self, cells: Iterable[Cell], sizes: ModelSizes, batch_size: int) -> None:
        cells = tuple(cells)
        self._sizes, self._batch_size = sizes, batch_size
        self._draws: dict[str, Draw] = {
            c.id: c.work.draw for c in cells if isinstance(c.work, SequencesWork | ChatsWork)
        }
        self._asked = {
            c.id: _examples(c.work.questions) for c in cells if isinstance(c.work, InfinigramWork)
        }
        self._with_loss = {c.work.sequences for c in cells if isinstance(c.work, LossWork)}
        self._known: dict[tuple[object, ...], tuple[Part, ...]] = {}

    def parts(self, cell: Cell, processor: Processor) -> tuple[Part, ...]:
        """Returns what a cell does, shared parts first."""
        if isinstance(cell.work, AuditWork | CheckpointWork) and cell.checkpoint is None:
            return ()  # What the plan found is written down.
        if cell.checkpoint is None:
            return (self._making(cell, processor),)
        size = self._sizes.of(cell.checkpoint)
        key = (*_measure(cell), id(size), processor)
        if key not in self._known:
            self._known[key] = tuple(self._measuring(cell, size, processor))
        return self._known[key]

    def recorded(self, cell: Cell, processor: Processor) -> tuple[Part, ...]:
        """Returns the parts that a cell's recorded seconds are made of.

        The load is in those of checkpoint and head alone, which need no pass.
        """
        parts = self.parts(cell, processor)
        alone = cell.checkpoint is None or isinstance(cell.work, CheckpointWork | HeadWork)
        return parts if alone else parts[1:]

    def _making(self, cell: Cell, processor: Processor) -> Part:
        match cell.work:
            case CorpusWork(corpus):
                seconds = _CORPUS_SECONDS + corpus.training_tokens / _TOKENS_PER_SECOND
                return Part("corpus", seconds)
            case PretrainWork(model):
                size = self._sizes.trained(cell.id)
                flops = 3 * forward_flops(size, model.tokens_per_step, model.sequence_length, True)
                overhead = 3 * size.layers * BLOCK_SECONDS
                if processor.memory is None:  # Its threads are part of what it is.
                    processor = cpu(model.threads)
                step = flops / matrix_rate(processor) + overhead
                return Part("pretraining", _LOAD_SECONDS + model.last_step * step)
            case SequencesWork(draw=draw) | ChatsWork(draw=draw):
                seconds = 1 + draw.sequences * draw.sequence_length / _TOKENS_PER_SECOND
                return Part("sequences", seconds)
            case IndexWork():
                return Part("index", _INDEX_SECONDS)
            case InfinigramWork(questions):
                return Part("infinigram", 1 + _examples(questions) * _LOOKUP_SECONDS)
            case ToyWork() as work:
                return Part("toy", 0.2 + work.multiplications * _TOY_SECONDS)
            case WinrateWork():
                return Part("judging", training_costs.JUDGING_SECONDS)
            case _:
                raise ValueError(f"a cell of kind {cell.work.kind} needs a checkpoint")

    def _measuring(self, cell: Cell, size: ModelSize, processor: Processor) -> Iterator[Part]:
        yield Part("load", _LOAD_SECONDS + size.weight_bytes / _LOAD_BYTES_PER_SECOND, "load")
        match cell.work:
            case HeadWork():
                flops = size.rows**2 * size.width
                yield Part("head statistics", _HEAD_SECONDS + flops / matrix_rate(processor))
            case GeometryWork() as work:
                draw = self._draws[work.sequences]
                yield self._forward(work, draw, size, processor)
                # The last layer's, its half's and two for the logits; and each layer's own.
                spectra = 4 + (size.layers + 1 if work.layers == "all" else 0)
                flops = spectra * FACTORIZATION_FLOPS * size.width**3
                seconds = flops / factorization_rate(processor) + spectra * _SPECTRUM_SECONDS
                yield Part("spectra", seconds)
            case LossWork() as work:
                yield self._forward(work, self._draws[work.sequences], size, processor)
            case EvalWork(questions, dtype):
                yield self._asking("questions", _examples(questions), dtype, size, processor)
            case AblationWork() as work:
                yield self._forward(work, self._draws[work.sequences], size, processor)
                asked = _examples(work.questions)
                yield self._asking("ablation", asked, work.dtype, size, processor)
            case MemorizationWork() as work:
                answers = self._asked[work.answers] / _OPTIONS
                yield self._asking("memorization", answers, work.dtype, size, processor)
            case GenerateWork(prompts, new_tokens, dtype):
                # Each token is a pass of its own over a batch of one token.
                work_done = forward_flops(size, len(prompts) * new_tokens, new_tokens, True)
                steps = new_tokens * size.layers * BLOCK_SECONDS
                yield Part("generations", work_done / matrix_rate(processor, dtype) + steps)
            case SensitivityWork() as work:
                draw = self._draws[work.sequences]
                whole = self._forward(work, draw, size, processor).seconds
                passes = 1 + len(work.scales) * len(work.seeds)
                share = min(1.0, work.dataset_sequences / draw.sequences)
                yield Part("noise", passes * share * whole)
            case FinetuneWork() as work:
                yield Part(
                    "finetuning",
                    training_costs.finetune_seconds(work, size, processor, self._draws),
                )
            case PosttrainWork() as work:
                yield Part("posttraining", training_costs.posttrain_seconds(work, size, processor))
            case SampleWork() as work:
                yield Part("sampling", training_costs.sample_seconds(work, size, processor))
            case PassKWork():
                yield Part("pass@k", _PASSK_SECONDS)
            case RespondWork() as work:
                yield Part("answers", training_costs.respond_seconds(work, size, processor))

    def _asking(
        self,
        name: PartName,
        examples: float,
        dtype: DType,
        size: ModelSize,
        processor: Processor,
    ) -> Part:
        """Returns the passes over a task's examples, each with a few options."""
        requests = examples * _OPTIONS
        flops = forward_flops(size, int(requests * _REQUEST_TOKENS), _REQUEST_TOKENS, True)
        batches = requests / self._batch_size
        seconds = flops / matrix_rate(processor, dtype) + batches * size.layers * BLOCK_SECONDS
        return Part(name, _ASKING_SECONDS + seconds)

    def _forward(
        self,
        work: GeometryWork | LossWork | AblationWork | SensitivityWork,
        draw: Draw,
        size: ModelSize,
        processor: Processor,
    ) -> Part:
        """Returns the pass over a text, which geometry and loss share."""
        tokens = draw.sequences * draw.sequence_length
        logits = work.sequences in self._with_loss
        flops = forward_flops(size, tokens, draw.sequence_length, logits)
        batches = -(-draw.sequences // self._batch_size)
        seconds = flops / matrix_rate(processor, work.dtype)
        return Part("pass", seconds + batches * size.layers * BLOCK_SECONDS, work.sequences)


def _measure(cell: Cell) -> tuple[object, ...]:
    """Returns what of a cell's work decides on its cost."""
    match cell.work:
        case GeometryWork() as work:
            return work.kind, work.sequences, work.layers, work.dtype
        case LossWork() as work:
            return work.kind, work.sequences, work.dtype
        case EvalWork(questions, dtype):
            return cell.work.kind, _examples(questions), dtype
        case AblationWork() as work:
            return work.kind, work.sequences, _examples(work.questions), work.dtype
        case MemorizationWork() as work:
            return work.kind, work.answers, work.dtype
        case GenerateWork(prompts, new_tokens, dtype):
            return cell.work.kind, len(prompts), new_tokens, dtype
        case SensitivityWork() as work:
            passes = len(work.scales) * len(work.seeds)
            return work.kind, work.sequences, work.dataset_sequences, passes, work.dtype
        case FinetuneWork() as work:
            recipe = work.recipe
            amount = (work.training_examples, work.validation_examples, work.sequences)
            settings = (recipe.epochs, recipe.batch_size, recipe.threads, recipe.dtype)
            return work.kind, *amount, *settings
        case PosttrainWork() as work:
            return work.kind, work.training, work.threads, work.dtype, work.processes
        case SampleWork() as work:
            return work.kind, work.count, work.sampling
        case RespondWork() as work:
            return work.kind, work.records.limit, work.new_tokens, work.dtype
        case CheckpointWork() | HeadWork() | PassKWork() as work:
            return (work.kind,)
        case _:
            raise ValueError(f"a cell of kind {cell.work.kind} measures no checkpoint")


def _examples(questions: Questions) -> int:
    """Returns how many examples a task is taken to hold: its limit, if it has one."""
    return questions.limit or (
        _PICO_EXAMPLES if isinstance(questions, PicoQuestions) else _EXAMPLES
    )
