"""Damage to the weights of a checkpoint: to bytes, header, tensors and index."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.fuzz.mutations import NUMBERS, TEXTS, mutate_bytes, mutate_tree, nested, some_value

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
_DTYPES = (
    *("F32", "F64", "F16", "BF16", "I8", "U8", "I16", "I32", "I64", "U16", "U32", "U64", "BOOL"),
    *("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F4", "F6_E2M3", "C64", "f32", "", "X"),
)


def damage_weights(folder: Path, chance: random.Random) -> str:
    """Changes the file of weights in some way; returns what was done."""
    file = folder / WEIGHTS
    way = chance.choice(_WEIGHT_CHANGES)
    content = way(file.read_bytes(), chance)
    if content is not None:
        file.write_bytes(content)
    return way.__name__


def parted(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns the header of a safetensors file, and what follows it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: bytes, data: bytes) -> bytes:
    """Returns a safetensors file, its header padded as the format asks."""
    padded = header + b" " * (-len(header) % 8)
    return struct.pack("<Q", len(padded)) + padded + data


def written(header: Any) -> bytes:
    """Returns a document as JSON, whatever is in its texts."""
    return json.dumps(header).encode("utf-8", "surrogatepass")


def _length(content: bytes, chance: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    new = chance.choice([0, 1, length - 1, length + 1, length * 2, len(content), 10**8, 2**64 - 1])
    return struct.pack("<Q", new) + content[8:]


def _header_tree(content: bytes, chance: random.Random) -> bytes:
    header, data = parted(content)
    return joined(written(mutate_tree(header, chance)), data)


def _header_bytes(content: bytes, chance: random.Random) -> bytes:
    header, data = parted(content)
    return joined(mutate_bytes(written(header), chance), data)


def _entry(header: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = header[chance.choice([k for k in header if k != "__metadata__"])]
    return found


def _dtype(content: bytes, chance: random.Random) -> bytes:
    header, data = parted(content)
    entry = _entry(header, chance)
    old, entry["dtype"] = entry["dtype"], chance.choice(_DTYPES)
    narrow = {"F16": 2, "BF16": 2, "I16": 2, "F8_E4M3": 4, "F8_E5M2": 4, "I8": 4, "BOOL": 4}
    if entry["dtype"] in narrow and old == "F32" and chance.random() < 0.7:
        entry["shape"][-1] *= narrow[entry["dtype"]]  # As many bytes as before.
    return joined(written(header), data)


def _offsets(content: bytes, chance: random.Random) -> bytes:
    header, data = parted(content)
    first, second = _entry(header, chance), _entry(header, chance)
    match chance.randrange(5):
        case 0:
            first["data_offsets"] = list(second["data_offsets"])
        case 1:
            first["data_offsets"], second["data_offsets"] = (
                second["data_offsets"],
                first["data_offsets"],
            )
        case 2:
            first["data_offsets"] = [n + chance.choice([-4, 4, 8]) for n in first["data_offsets"]]
        case 3:
            first["data_offsets"][chance.randrange(2)] = chance.choice(NUMBERS[:16])
        case 4:
            first["data_offsets"].reverse()
    return joined(written(header), data)


def _shape(content: bytes, chance: random.Random) -> bytes:
    header, data = parted(content)
    entry = _entry(header, chance)
    shape = entry["shape"]
    numel = 1
    for size in shape:
        numel *= size
    entry["shape"] = chance.choice(
        [shape[::-1], [numel], [1, *shape], [*shape, 2**62], [0], [], [-1, *shape], [2**32] * 2]
    )
    return joined(written(header), data)


def _data(content: bytes, chance: random.Random) -> bytes:
    header, data = parted(content)
    place = chance.randrange(len(data))
    match chance.randrange(4):
        case 0:
            data = data[:place]
        case 1:
            data += bytes(chance.randrange(1, 100))
        case 2:
            data = mutate_bytes(data[place : place + 64], chance) + data[place + 64 :]
        case 3:
            data = data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
    return joined(written(header), data)


def _value(content: bytes, chance: random.Random) -> bytes:
    """Puts one number anywhere in the weights."""
    header, data = parted(content)
    place = chance.randrange(len(data) // 4) * 4
    number = chance.choice([float("nan"), float("inf"), -float("inf"), 3e38, 1e-40, 0.0, 1.0])
    return joined(written(header), data[:place] + struct.pack("<f", number) + data[place + 4 :])


def _whole(content: bytes, chance: random.Random) -> bytes:
    return mutate_bytes(content, chance)


_WEIGHT_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_length, _header_tree, _header_tree, _header_bytes, _dtype, _dtype, _offsets, _offsets),
    *(_shape, _data, _data, _value, _whole),
)


def damage_tensors(folder: Path, chance: random.Random) -> str:
    """Changes which tensors there are, or all of one of them; what is written is a sound file."""
    tensors = load_file(folder / WEIGHTS)
    name, other = chance.choice(sorted(tensors)), chance.choice(sorted(tensors))
    tensor = tensors[name]
    way = chance.choice(
        ["drop", "rename", "extra", "scale", "zero", "dtype", "all dtypes", "swap", "cut", "empty"]
    )
    dtype = chance.choice([torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool])
    match way:
        case "drop":
            del tensors[name]
        case "rename":
            tensors[chance.choice(TEXTS[:28]) or "x"] = tensors.pop(name)
        case "extra":
            tensors[chance.choice([f"{name}.more", "x", "gpt_neox.layers.7.x"])] = torch.ones(3)
        case "scale":
            tensors[name] = tensor * chance.choice([1e-30, 0.5, 2.0, 1e20, 1e38])
        case "zero":
            tensors[name] = torch.zeros_like(tensor)
        case "dtype":
            tensors[name] = tensor.to(dtype)
        case "all dtypes":
            tensors = {key: value.to(dtype) for key, value in tensors.items()}
        case "swap":
            tensors[name], tensors[other] = tensors[other].clone(), tensor.clone()
        case "cut":
            tensors[name] = tensor[: len(tensor) // 2].clone()
        case "empty":
            tensors[name] = tensor[:0].clone()
    save_file(tensors, folder / WEIGHTS, metadata={"format": chance.choice(["pt", "tf", "x"])})
    return way


def damage_index(folder: Path, chance: random.Random) -> str:
    """Puts the weights into shards, and changes their index."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    where: dict[str, Any] = {}
    for number in range(2):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        part = {name: tensors[name] for name in names[number::2]}
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / WEIGHTS).unlink()
    index: Any = {"metadata": {"total_size": 1}, "weight_map": where}
    name = chance.choice(names)
    way = chance.choice(["none", "path", "path", "value", "tree", "bytes", "deep"])
    match way:
        case "path":
            # A file beyond the folder that has what is asked for.
            save_file({name: tensors[name]}, folder.parent / "beyond.safetensors")
            beyond = ["../beyond.safetensors", str(folder.parent / "beyond.safetensors")]
            where[name] = chance.choice([*beyond, f"./{where[name]}", "a\0b", "", ".", "x" * 300])
        case "value":
            where[name] = some_value(chance)
        case "tree":
            index = mutate_tree(index, chance)
        case "deep":
            where[name] = nested(150, chance)
    content = written(index)
    if way == "bytes":
        content = mutate_bytes(content, chance)
    (folder / INDEX).write_bytes(content)
    return way
