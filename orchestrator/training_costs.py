"""What training a checkpoint further takes in seconds, and what sampling from it takes."""

from collections.abc import Mapping

from jobs.finetune_work import FinetuneWork
from jobs.posttrain_work import PosttrainWork, SampleWork
from jobs.text_spec import Draw
from jobs.winrate_work import RespondWork
from orchestrator.flops import BLOCK_SECONDS, forward_flops, matrix_rate
from orchestrator.hardware import Processor, cpu
from orchestrator.model_sizes import ModelSize

_PAIR_TOKENS = 32  # Of a training example, prompt and answer.
_EXAMPLES = 1000
_TRIAL_SECONDS = 0.3
_STAGE_SECONDS = 5.0
_STEP_SECONDS = 0.05  # Of a trainer, however small the model is.
_ENGINE_SECONDS = 1.0  # Shared by the batches of a checkpoint: engines start once and are kept.
_INSTRUCTIONS = 805  # Of AlpacaEval; how many there are, only the records know.
_SHARING = 4  # Instructions of one length, which share a batch.
JUDGING_SECONDS = 60.0
"""What a comparison is taken to need: how quick a judge is, only it knows."""
_TOKEN_SECONDS = 1e-4  # Of an engine, however small the model is.


def finetune_seconds(
    work: FinetuneWork, size: ModelSize, processor: Processor, draws: Mapping[str, Draw]
) -> float:
    """Returns a trial: its epochs, and passes over validation examples and text."""
    recipe = work.recipe
    processor = _own(processor, recipe.threads)
    trained = work.training_examples or _EXAMPLES
    measured = work.validation_examples or _EXAMPLES
    tokens = _PAIR_TOKENS * (3 * recipe.epochs * trained + (2 + recipe.epochs) * measured)
    batches = (3 * recipe.epochs * trained + 3 * measured) / recipe.batch_size
    if work.sequences is not None:
        draw = draws[work.sequences]
        read = min(work.dataset_sequences, draw.sequences)
        tokens += 2 * read * draw.sequence_length
    flops = forward_flops(size, tokens, _PAIR_TOKENS, True)
    steps = batches * size.layers * BLOCK_SECONDS
    return _TRIAL_SECONDS + flops / matrix_rate(processor, recipe.dtype) + steps


def posttrain_seconds(work: PosttrainWork, size: ModelSize, processor: Processor) -> float:
    """Returns a stage: forward and backward passes, those of a reference, and sampling."""
    training = work.training
    processor = _own(processor, work.threads)
    examples = training.batch_size * training.accumulation
    length = min(
        training.max_length,
        _PAIR_TOKENS + (training.completion_tokens if training.method == "rlvr" else 0),
    )
    # Chosen and rejected, with the reference's pass; or a pass to sample and one to compare.
    passes = {"sft": 3, "dpo": 8, "rlvr": 5}[training.method]
    flops = passes * forward_flops(size, examples * length, length, True)
    generated = training.completion_tokens if training.method == "rlvr" else 0
    blocks = (passes * training.accumulation + generated) * size.layers * BLOCK_SECONDS
    shared = flops / work.processes / matrix_rate(processor, work.dtype)
    step = _STEP_SECONDS + shared + blocks
    return _STAGE_SECONDS + training.steps * step


def sample_seconds(work: SampleWork, size: ModelSize, processor: Processor) -> float:
    """Returns the answers to a run of problems."""
    sampling = work.sampling
    processor = _own(processor, sampling.threads)
    tokens = work.count * sampling.samples * sampling.new_tokens
    flops = forward_flops(size, tokens, sampling.new_tokens, True)
    busy = flops / sampling.tensor_parallel / matrix_rate(processor, sampling.dtype)
    return _ENGINE_SECONDS + max(busy, tokens * _TOKEN_SECONDS)


def respond_seconds(work: RespondWork, size: ModelSize, processor: Processor) -> float:
    """Returns the answers to as many instructions as AlpacaEval has, or to the first of them."""
    instructions = min(work.records.limit or _INSTRUCTIONS, _INSTRUCTIONS)
    flops = forward_flops(size, instructions * work.new_tokens, work.new_tokens, True)
    steps = instructions / _SHARING * work.new_tokens
    return flops / matrix_rate(processor, work.dtype) + steps * size.layers * BLOCK_SECONDS


def _own(processor: Processor, threads: int) -> Processor:
    """Returns the processor with the threads that the identity fixes."""
    return cpu(threads) if processor.memory is None else processor
