"""What config.json says of a checkpoint, held against its weights before a model is made of it.

A model takes the memory and the time that its config asks for, whatever the weights are: so a
config is refused that asks for far more than they can fill.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from jobs.errors import DataError
from workers.json_text import read_json
from workers.weights import StoredWeights

_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_PARTS = ("text_config", "llm_config", "language_config")
# A tied matrix may be counted twice. What little may be missing besides is told by its name.
_MOST_TIMES, _MOST_MORE = 2, 10**6


def check_config(path: Path) -> None:
    """Looks at config.json alone.

    Raises:
        DataError: It isn't JSON, asks for code of its own or tells of quantized weights.
    """
    config = _read(path)
    # Many checkpoints name code that transformers has made its own since; that one is used then.
    if "auto_map" in config and str(config.get("model_type")) not in CONFIG_MAPPING:
        raise DataError(
            f"{path} needs Python code of its own ({config['auto_map']}), which is never run",
            "use a checkpoint whose architecture transformers knows",
        )
    if config.get("quantization_config"):
        raise DataError(
            f"{path} is quantized, so its weights are not what they stand for",
            "use the checkpoint in float32, bfloat16 or float16",
        )


def check_sizes(path: Path, weights: StoredWeights) -> None:
    """Compares what config.json asks for with what is stored.

    Raises:
        DataError: More blocks than there are tensors, or far more parameters than numbers.
        Exception: transformers can make no model of the config.
    """
    for depth in _depths(_read(path)):
        if depth > len(weights.tensors):
            raise DataError(
                f"{path}: config.json tells of {depth} blocks, and there are "
                f"{len(weights.tensors)} tensors",
                "give the checkpoint the config.json that it was saved with",
            )
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):  # Shapes alone.
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    stored = sum(math.prod(shape) for _, shape in weights.tensors)
    if wanted > _MOST_TIMES * stored + _MOST_MORE:
        raise DataError(
            f"{path}: config.json tells of {wanted:,} parameters, and the weights are "
            f"{stored:,} numbers",
            "give the checkpoint the config.json that it was saved with",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        config = read_json((path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}/config.json cannot be read: {error}", "save it again") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}/config.json holds no table of names and values", "save it again")
    return config


def _depths(config: dict[str, Any]) -> Iterator[int]:
    for table in (config, *(config.get(part) for part in _PARTS)):
        if isinstance(table, dict):
            yield from (d for name in _DEPTHS if isinstance(d := table.get(name), int))
