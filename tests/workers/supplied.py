"""Sources on the local hub, and what a cache has of them."""

from pathlib import Path

from jobs.sources import HubFile, HubFolder
from tests.hub.repositories import files_in
from tests.hub.server import LocalHub
from tests.workers.holders import bytes_in_cache
from workers.supply import HubCache

WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b'{"a": 1}', "deep/er/vocab.json": b"{}", "model.safetensors": WEIGHTS}
NAME = "org/model"
TOKEN = "hf_aVerySecretToken"


def source(hub: LocalHub, files: dict[str, bytes], name: str = NAME) -> HubFolder:
    """Commits files, and returns them as the hub lists them."""
    repository = hub.model(name)
    commit = repository.commit("main", files)
    listed = [
        HubFile(path, len(blob.data), blob.oid, blob.sha256)
        for path, blob in repository.commits[commit].items()
    ]
    return HubFolder(name, commit, tuple(listed))


def numbered(hub: LocalHub, number: int, size: int = 1000) -> HubFolder:
    return source(hub, {"model.safetensors": bytes([number]) * size}, f"org/model{number}")


def unheard(_done: int, _total: int) -> None:
    pass


def fetch(cache: HubCache, wanted: HubFolder) -> dict[str, bytes]:
    with cache.hold(wanted, unheard) as folder:
        return files_in(folder)


def stored(root: Path) -> int:
    """Bytes of all that the cache holds, what is unfinished too."""
    return bytes_in_cache(root / "hub")


def blobs(root: Path) -> list[Path]:
    return [path for path in root.glob("hub/models--*/blobs/*") if path.exists()]


def keeps(root: Path, wanted: HubFolder) -> bool:
    """Whether all files are there, without asking for any."""
    names = {path.name for path in blobs(root)}
    return names >= {file.sha256 or file.oid for file in wanted.files}
