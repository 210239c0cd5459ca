"""The stored tensors of a checkpoint: read once, each of them finite, nothing in them executed."""

import contextlib
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from jobs.errors import DataError
from workers.json_text import read_json

_ZIP = b"PK\x03\x04"
_PIECE = 2**20
_PRECISIONS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})


@dataclass(frozen=True)
class StoredWeights:
    """What the stored tensors are.

    Attributes:
        sha256: Hash over names, types, shapes and bytes, in the order of the names, so that
            sharding and the files' format don't change it.
        dtype: Precision of the floating-point tensors, several joined by `+`.
        size: Bytes of the files.
        profile: ln of the root mean square of each floating-point tensor, in the order of the
            names; -inf where all its values are 0.
        tensors: Name and shape of each tensor, in the order of the names.
    """

    sha256: str
    dtype: str
    size: int
    profile: tuple[float, ...]
    tensors: tuple[tuple[str, tuple[int, ...]], ...]


def read_weights(path: Path, allow_bin: bool = False) -> StoredWeights:
    """Reads every stored tensor of a folder once.

    Args:
        path: The folder.
        allow_bin: Take PyTorch files where there are no safetensors.

    Raises:
        DataError: No weights, a shard that is missing, a file that cannot be read, is cut short or
            holds more than tensors; a tensor that is not finite.
    """
    files = weight_files(path, allow_bin)
    sha256 = hashlib.sha256()
    dtypes: set[str] = set()
    profile: list[float] = []
    tensors: list[tuple[str, tuple[int, ...]]] = []
    with contextlib.ExitStack() as stack:
        where: dict[str, tuple[Path, Callable[[str], torch.Tensor]]] = {}
        for file in files:
            names, tensor_of = _opened(file, stack)
            where |= dict.fromkeys(names, (file, tensor_of))
        for name in sorted(where):
            file, tensor_of = where[name]
            tensor = tensor_of(name)
            if tensor.is_floating_point():
                if tensor.dtype not in _PRECISIONS:
                    raise DataError(
                        f"{file}: tensor {name} is stored in {tensor.dtype}, which is not measured",
                        "use the checkpoint in float32, bfloat16 or float16",
                    )
                root_mean_square = _root_mean_square(tensor)
                # Its infinity may be the overflow of a sum alone.
                if not math.isfinite(root_mean_square) and not bool(torch.isfinite(tensor).all()):
                    raise DataError(
                        f"{file}: tensor {name} holds values that are not finite",
                        "the checkpoint is damaged or the run diverged; leave it out of the suite",
                    )
                profile.append(math.log(root_mean_square) if root_mean_square else -math.inf)
                dtypes.add(str(tensor.dtype).removeprefix("torch."))
            tensors.append((name, tuple(tensor.shape)))
            sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            sha256.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    if not dtypes:
        raise DataError(f"{path} holds no floating-point weights", "save the checkpoint again")
    size = sum(file.stat().st_size for file in files)
    precision = "+".join(sorted(dtypes))
    return StoredWeights(sha256.hexdigest(), precision, size, tuple(profile), tuple(tensors))


def weight_files(path: Path, allow_bin: bool = False) -> list[Path]:
    """Returns the files that transformers loads: the whole model, or the shards of its index.

    Others, such as the original's consolidated weights, may lie beside.

    Raises:
        DataError: There are none, the index is malformed, or a shard is missing.
    """
    singles = ["model.safetensors", *(["pytorch_model.bin"] if allow_bin else [])]
    for single in singles:
        whole, index = path / single, path / f"{single}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            return _shards(index)
    raise DataError(
        f"{path} holds no model.safetensors",
        "convert it: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)",
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = set(read_json(index.read_bytes())["weight_map"].values())
        # A path would lead out of the folder, to what nobody has fetched, hashed or asked for.
        if paths := [name for name in names if Path(name).name != name]:
            raise ValueError(f"it names {paths[0]!r}, which is no file beside it")
        files = sorted(index.parent / name for name in names)
        missing = [file for file in files if not file.is_file()]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{index} is malformed: {error}", "fetch or save it again") from error
    if missing:
        raise DataError(f"{missing[0]} is missing, which the index names", "fetch it again")
    return files


def _opened(
    file: Path, stack: contextlib.ExitStack
) -> tuple[list[str], Callable[[str], torch.Tensor]]:
    """Opens a file of weights; returns the names of its tensors, and what reads one of them."""
    if file.suffix == ".bin":
        tensors = _unpickled(file)
        return list(tensors), tensors.__getitem__
    try:
        opened = stack.enter_context(safe_open(file, framework="pt"))
    except SafetensorError as error:
        raise DataError(
            f"{file} cannot be read: {error}",
            "the file is truncated or no safetensors file; fetch or save it again",
        ) from error
    return list(opened.keys()), opened.get_tensor


def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a PyTorch file; a pickle that asks for anything else is refused."""
    with file.open("rb") as opened:
        is_zip = opened.read(len(_ZIP)) == _ZIP
    try:
        # Mapped where the format allows it, so that shards needn't fit into memory together.
        found: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # Damaged pickles raise whatever their broken parts raise.
        if isinstance(error, MemoryError):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{file} cannot be read as plain tensors: {first}",
            "it is damaged or holds code, which is never run; use weights in safetensors",
        ) from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items()
    ):
        raise DataError(
            f"{file} holds more than named tensors", "use weights in safetensors, or save it again"
        )
    return found


def _root_mean_square(tensor: torch.Tensor) -> float:
    if tensor.numel() == 0:
        return 0.0
    kind = torch.promote_types(tensor.dtype, torch.float32)
    # In pieces: one sum over hundreds of millions of elements would lose its last digits.
    norms = [
        float(torch.linalg.vector_norm(piece, dtype=kind))
        for piece in tensor.flatten().split(_PIECE)
    ]
    return math.sqrt(sum(norm * norm for norm in norms) / tensor.numel())
