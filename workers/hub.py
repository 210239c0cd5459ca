"""Checkpoints: from a folder to a model whose weights are all there, finite and the file's own."""

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from jobs.errors import DataError
from jobs.sources import CHAT_TEMPLATE_FILE
from workers.architecture import check_config, check_sizes
from workers.tally import phase
from workers.vocabulary import check_ids
from workers.weights import StoredWeights, read_weights, weight_files

# A bar for every load would tear the run's own progress apart.
transformers_logging.disable_progress_bar()


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model, ready to be measured.

    Attributes:
        model: The transformers model, in evaluation mode and in the precision to run in.
        tokenizer: Its tokenizer.
        head: The output embedding's rows of real tokens as stored, (V, d) float32.
        final_norm_gain: Gain of the norm before the head, (d,) float64.
        tied: Whether the LM head is the input embedding.
    """

    model: Any
    tokenizer: Any
    head: torch.Tensor
    final_norm_gain: torch.Tensor
    tied: bool


@dataclass(frozen=True)
class LoadedCheckpoint(LoadedModel):
    """A model that was loaded from files.

    Attributes:
        path: Where it was loaded from.
        weights_sha256: Hash over names, types, shapes and bytes of the stored tensors.
        stored_dtype: Precision of the stored floating-point tensors, several joined by `+`.
        weight_bytes: Size of the weight files.
        weight_profile: ln of the root mean square of each stored floating-point tensor, by name.
    """

    path: Path
    weights_sha256: str
    stored_dtype: str
    weight_bytes: int
    weight_profile: tuple[float, ...]

    @property
    def vocabulary_size(self) -> int:
        """Token ids of the tokenizer; the head's further rows are padding."""
        return len(self.tokenizer)


@phase("load")
def load_checkpoint(
    path: Path, tokenizer: Path, dtype: str, device: str, allow_bin: bool = False
) -> LoadedCheckpoint:
    """Loads a transformers folder, having read every stored tensor once.

    Args:
        path: Folder with config.json and safetensors files.
        tokenizer: Folder of the tokenizer.
        dtype: Precision to run in.
        device: Where to put it.
        allow_bin: Take PyTorch files, read as plain tensors, where there are no safetensors.

    Raises:
        DataError: Weights that are truncated, not finite, missing or of another shape; a
            checkpoint that is quantized or needs its own code; a folder that transformers cannot
            read; a tokenizer with more ids than the head has rows.
    """
    check_config(path)
    weights = read_weights(path, allow_bin)
    # Loaded as stored, so that the head is measured before any rounding to the running precision.
    stored = torch.float32 if "+" in weights.dtype else getattr(torch, weights.dtype)
    model = _load_model(path, weights, stored, allow_bin).eval().requires_grad_(False).to(device)
    loaded_tokenizer = load_tokenizer(tokenizer)
    weight = model.get_output_embeddings().weight
    if len(loaded_tokenizer) > len(weight):
        raise DataError(
            f"{path}: the tokenizer has {len(loaded_tokenizer)} ids, the head {len(weight)} rows",
            "give the suite the tokenizer that the model was trained with",
        )
    exact = float64_device(weight.device)
    head = weight[: len(loaded_tokenizer)].to(exact, torch.float32, copy=True)
    gain = final_norm_gain(model)
    for parameter in model.parameters():
        # Not model.to(dtype): that would round buffers too, such as the rotary frequencies.
        parameter.data = parameter.data.to(getattr(torch, dtype))
    _check_runs(model, path)
    return LoadedCheckpoint(
        model=model,
        tokenizer=loaded_tokenizer,
        head=head,
        final_norm_gain=gain,
        tied=weight is model.get_input_embeddings().weight,
        path=path,
        weights_sha256=weights.sha256,
        stored_dtype=weights.dtype,
        weight_bytes=weights.size,
        weight_profile=weights.profile,
    )


def load_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer of a folder.

    Raises:
        DataError: transformers cannot read it, or its ids would take all memory.
    """
    check_ids(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BaseException as error:  # Malformed files raise bare Exceptions in Rust, or panic.
        if is_out_of_memory(error) or not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise DataError(
            f"the tokenizer in {folder} cannot be loaded: {_first_line(error)}",
            "check tokenizer.json, or give the suite's `tokenizer`",
        ) from error


def take_chat_template(tokenizer: Any, weights: Path) -> None:
    """Gives a tokenizer without a chat template the one that a chain has trained its model with.

    A chain's checkpoints are read by the tokenizer of the checkpoint that it began from, so that
    all of them are measured on the same sequences; what it made of chats lies beside its weights.

    Args:
        tokenizer: The tokenizer.
        weights: Folder of a checkpoint that a chain made: others aren't known by their template.
    """
    template = weights / CHAT_TEMPLATE_FILE
    if not tokenizer.chat_template and template.is_file():
        tokenizer.chat_template = template.read_text(encoding="utf-8")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory didn't suffice.

    On the CPU, torch says it by a RuntimeError of its allocator.
    """
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def is_panic(error: BaseException) -> bool:
    """Returns whether an error is a panic of Rust code, such as the tokenizers'.

    It is no Exception; but it ends no more than the work at hand.
    """
    return type(error).__name__ == "PanicException"


def float64_device(device: torch.device) -> torch.device:
    """Returns where float64 results of a device are kept: there, or on the CPU beside MPS."""
    return torch.device("cpu") if device.type == "mps" else device


def final_norm_gain(model: Any) -> torch.Tensor:
    """Returns the gain of the norm before the head, (d,) float64; ones if there is none.

    The gain is read off the norm's own output, which holds for any architecture: for an x of
    zero mean and unit mean square, (norm(x) − norm(−x))/2 is gain · x up to the norm's
    epsilon, for LayerNorm and RMSNorm alike, and a bias cancels.
    """
    weight = model.get_output_embeddings().weight
    width = weight.shape[1]
    # The decoder's last child that holds one vector of size d.
    norms = [
        child
        for child in model.get_decoder().children()
        if getattr(getattr(child, "weight", None), "shape", None) == (width,)
    ]
    if not norms:
        return torch.ones(width, dtype=torch.float64, device=float64_device(weight.device))
    exact = float64_device(weight.device)
    norm = copy.deepcopy(norms[-1]).to(exact).double()
    x = _zero_mean_unit_rms(width).to(exact)
    # At a scale far above epsilon, the norm divides by the root mean square alone.
    return (norm(1e4 * x).double() - norm(-1e4 * x).double()) / (2 * x)


def _load_model(path: Path, weights: StoredWeights, dtype: torch.dtype, allow_bin: bool) -> Any:
    """Returns the model of a folder, every tensor of which comes from its files."""
    in_safetensors = weight_files(path, allow_bin)[0].suffix == ".safetensors"
    try:
        check_sizes(path, weights)
        model, info = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=in_safetensors,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=False,
            # They are told of below, by name.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except DataError:
        raise
    except Exception as error:  # Every architecture checks its configuration in its own way.
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"{path} cannot be loaded: {_first_line(error)}",
            "check that config.json and the weights belong together",
        ) from error
    misshapen = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    wrong = sorted({*info["missing_keys"], *misshapen})
    if wrong:
        raise DataError(
            f"{path}: {len(wrong)} tensors are missing or misshapen, first {wrong[0]}",
            "they belong to another model, or the save was cut short",
        )
    numbers = {name: re.search(r"\.(\d+)\.", name) for name in info["unexpected_keys"]}
    blocks = model.config.num_hidden_layers
    beyond = sorted(name for name, found in numbers.items() if found and int(found[1]) >= blocks)
    if beyond:
        raise DataError(
            f"{path}: config.json tells of {blocks} blocks, but there is a tensor {beyond[0]}",
            "give the checkpoint the config.json that it was saved with",
        )
    return model


def _check_runs(model: Any, path: Path) -> None:
    """Raises DataError where a model's parts don't fit each other, which two tokens show."""
    ids = torch.zeros((1, 2), dtype=torch.int64, device=model.get_input_embeddings().weight.device)
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    except Exception as error:  # Whatever an architecture's own code meets.
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"{path} cannot be run: {_first_line(error)}",
            "give the checkpoint the config.json that it was saved with",
        ) from error


def _first_line(error: BaseException) -> str:
    """Returns an error's first line, and the second one where the first only announces it."""
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    return f"{first} {others[0].strip()}" if first.endswith(":") and others else first


def _zero_mean_unit_rms(width: int) -> torch.Tensor:
    """Returns a vector without zeros, of mean 0 and mean square 1, (width,) float64."""
    x = torch.ones(width, dtype=torch.float64)
    x[: width // 2] = -1.0
    x = x - x.mean()
    return x / x.square().mean().sqrt()
