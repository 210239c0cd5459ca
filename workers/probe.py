"""A model in the middle of its training, measured without a trace.

Invariant: whatever a measurement does or however it fails, the training goes on with the very
numbers that it would have had: generators, modes of modules and settings of torch are put back.
"""

import copy
import hashlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from jobs.cells import Cell
from jobs.errors import UsageError
from jobs.frozen import DType
from jobs.sources import TextFiles
from jobs.text_spec import Sequences
from jobs.work import GeometryWork, HeadWork
from workers.documents import read_documents
from workers.features import forward_pass
from workers.hub import LoadedModel, final_norm_gain, float64_device
from workers.measure import Rows, geometry_rows, head_rows
from workers.sequences import TokenSequences, cut_sequences

_TOKENS_AT_ONCE = 4096


def bare_model(model: Any) -> Any:
    """Returns the transformers model within PEFT's and torch.compile's wrappers.

    PEFT's adapters lie within its layers, so they stay in effect.
    """
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def check_model(model: Any, settings: Any) -> None:
    """Refuses what cannot be measured in the middle of a training.

    Args:
        model: The trainer's model.
        settings: The trainer's arguments.

    Raises:
        UsageError: Weights that are spread over processes, prompts that PEFT learns, anything but a
            causal language model in one of the precisions that are known here.
    """
    environment = {name: os.environ.get(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED")}
    for name, set_there in environment.items():
        if getattr(settings, name.lower(), None) or set_there == "true":
            raise UsageError(
                f"a probe cannot measure a training with {name}, whose weights are spread over "
                "processes",
                "save checkpoints and trace them with a study, or train with DDP",
            )
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise UsageError(
            "a probe cannot measure weights that are spread over processes (DTensor)",
            "save checkpoints and trace them with a study",
        )
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        raise UsageError(
            "a probe cannot measure prompts that PEFT learns, since they are no part of the model",
            "train LoRA or all weights",
        )
    bare = bare_model(model)
    name = type(bare).__name__
    head = bare.get_output_embeddings() if hasattr(bare, "get_output_embeddings") else None
    if head is None or getattr(bare.config, "is_encoder_decoder", False):
        raise UsageError(f"{name} is no causal language model with an LM head", "probe one that is")
    if precision_of(bare) not in get_args(DType):
        raise UsageError(
            f"{name} runs in {precision_of(bare)}, not in {', '.join(get_args(DType))}",
            "load it in one of these",
        )


def precision_of(model: Any) -> str:
    """Returns the precision in which a model's weights are kept and a probe runs it."""
    return str(model.dtype).removeprefix("torch.")


def probe_texts(texts: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Returns the documents that aren't blank.

    Args:
        texts: The documents, or a `.txt` file (a document per paragraph block) or a `.jsonl` file
            (field `text`) with them.

    Raises:
        UsageError: They are no strings, or the file has another format or isn't there.
        DataError: The file cannot be read.
    """
    if isinstance(texts, str | Path):
        path = Path(texts)
        if path.suffix not in (".txt", ".jsonl", ".json"):
            raise UsageError(
                f"texts {str(texts)[:60]!r} is no .txt or .jsonl file",
                "give a path to one, or a list of strings",
            )
        if not path.is_file():
            raise UsageError(f"there is no file {path}", "check `texts`")
        found = list(read_documents(_as_planned(path), lambda _done, _total: None))
    else:
        found = list(texts)
    for text in found:
        if not isinstance(text, str):
            raise UsageError(
                f"texts hold {type(text).__name__}, not str",
                'give strings, such as dataset["text"]',
            )
    return tuple(text for text in found if text.strip())


def probe_sequences(texts: Sequence[str], draw: Sequences, processing: Any) -> TokenSequences:
    """Tokenizes texts as `draw_sequences` does: a study has the same fingerprint for them.

    Raises:
        UsageError: There is no tokenizer.
        DataError: Too little text, or no room beside the tokenizer's special tokens.
    """
    # A copy, since how a tokenizer cuts is saved with it.
    tokenizer = copy.deepcopy(tokenizer_of(processing))
    return cut_sequences(texts, draw, tokenizer, lambda _done, _total: None)


def tokenizer_of(processing: Any) -> Any:
    """Returns the tokenizer of a trainer's `processing_class`.

    Raises:
        UsageError: There is none.
    """
    for found in (processing, getattr(processing, "tokenizer", None)):
        if isinstance(found, PreTrainedTokenizerBase):
            return found
    raise UsageError(
        "the trainer has no tokenizer",
        "give it one (`processing_class`), or the probe (`tokenizer`)",
    )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode for a while and leaves no trace.

    Without gradients, gradient checkpointing and dropout do nothing and no key is cached; autocast
    and TF32 are off, so that numbers are those of the saved checkpoint in its own precision.
    """
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state()
    with ExitStack() as back:
        back.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        back.enter_context(torch.no_grad())
        back.enter_context(torch.autocast(device.type, enabled=False))
        back.callback(random.setstate, states[0])
        back.callback(np.random.set_state, states[1])
        if device.type == "cuda":
            matmul: Any = torch.backends.cuda.matmul
            back.callback(setattr, matmul, "fp32_precision", matmul.fp32_precision)
            matmul.fp32_precision = "ieee"
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training


def measurable(model: Any, tokenizer: Any) -> LoadedModel:
    """Returns what measurements need of a model as it is now, adapters in effect.

    Args:
        model: The bare model, undisturbed.
        tokenizer: Its tokenizer.

    Raises:
        UsageError: The tokenizer has more ids than the head has rows.
    """
    module = model.get_output_embeddings()
    plain = type(module) is nn.Linear
    weight = module.weight if plain else _effective_weight(module)
    if len(tokenizer) > len(weight):
        raise UsageError(
            f"the tokenizer has {len(tokenizer)} ids, the LM head {len(weight)} rows",
            "give the tokenizer that the model is trained with",
        )
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        head=weight[: len(tokenizer)].to(float64_device(weight.device), torch.float32),
        final_norm_gain=final_norm_gain(model),
        tied=plain and weight is model.get_input_embeddings().weight,
    )


def measure(cell: Cell, loaded: LoadedModel, sequences: TokenSequences) -> Mapping[str, Rows]:
    """Returns the rows of a cell of geometry or of the head by table, side tables first.

    Raises:
        DataError: The model cannot be measured as it is now.
    """
    match cell.work:
        case GeometryWork() as work:
            passed = forward_pass(
                loaded.model,
                sequences,
                batch_size=max(1, _TOKENS_AT_ONCE // sequences.seq_len),
                layers=False,
                loss=False,
                report=lambda _done, _total: None,
            )
            rows, side = geometry_rows(work, loaded, sequences, passed)
            return {"influences": side, "geometry": rows}
        case HeadWork() as work:
            return {"head": head_rows(work, loaded, None)}
        case _:
            raise ValueError(f"a probe measures no {cell.work.kind}")


def _effective_weight(head: Any) -> torch.Tensor:
    """Returns the matrix by which a head with adapters multiplies, (V, d), read off its output."""
    weight = head.weight
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    return (head(identity) - head(torch.zeros_like(identity[:1]))).T


def _as_planned(path: Path) -> TextFiles:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return TextFiles(((str(path), sha256),), "text", "\n\n")
