"""Which files are the weights of a checkpoint, told by their names alone."""

import re
from collections.abc import Collection, Iterable, Sequence

from jobs.identity import digest
from jobs.sources import HubFolder, Produced, Source

_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(\.\w+)")


def fingerprint(source: Source) -> str | None:
    """Returns the hash over names and hashes of the weight files; None where there are none."""
    files, _ = weights_of(source)
    return digest(files) if files else None


def are_pickled(source: Source) -> bool:
    """Returns whether a source's weights are PyTorch files; only allowed ones are ever loaded."""
    return any(name.endswith(".bin") for name in weights_of(source)[0])


def weights_of(source: Source) -> tuple[dict[str, str], dict[str, int]]:
    """Returns the hash of each weight file that is loaded, and their sizes where they are known."""
    if isinstance(source, Produced):
        return {}, {}
    if isinstance(source, HubFolder):
        hashes = {file.path: file.sha256 or file.oid for file in source.files}
        sizes = {file.path: file.size for file in source.files}
    else:
        hashes, sizes = dict(source.files), {}
    names = loaded_files(hashes)
    return {n: hashes[n] for n in names}, {n: size for n, size in sizes.items() if n in names}


def loaded_files(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the weight files among some names: safetensors outrank others, one file shards."""
    names = sorted(names)
    for ending, single in ((".safetensors", "model.safetensors"), (".bin", "pytorch_model.bin")):
        found = tuple(name for name in names if name.endswith(ending))
        if found:
            return (single,) if single in found else found
    return ()


def lacking_file(weights: Sequence[str], paths: Collection[str]) -> str | None:
    """Returns the first file without which the weights are not whole; None if all are there."""
    ending = weights[0].rpartition(".")[2]
    single = "model.safetensors" if ending == "safetensors" else "pytorch_model.bin"
    if single in weights:
        return None
    sets: dict[tuple[str, str, str], set[int]] = {}
    for name in weights:
        match = _SHARD.fullmatch(name)
        if match is not None:
            sets.setdefault((match[1], match[3], match[4]), set()).add(int(match[2]))
    first: str | None = None
    for (stem, count, suffix), there in sets.items():
        # Counted one by one, since a name may claim any number of shards.
        place = next(n for n in range(1, len(there) + 2) if n not in there)
        if place > int(count):
            first = None
            break
        first = first or f"{stem}-{place:0{len(count)}}-of-{count}{suffix}"
    index = f"{single}.index.json"
    return index if first is None and index not in paths else first
