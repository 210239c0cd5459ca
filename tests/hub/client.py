"""How the real client is brought to take the local hub for the hub, here and in other processes."""

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.hub.server import LocalHub


def hub_environment(hub: LocalHub, folder: Path) -> dict[str, str]:
    """Returns the variables with which another process takes the local hub for the hub.

    Args:
        hub: The local hub.
        folder: Where the client keeps what it keeps.
    """
    return {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(folder),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "HF_TOKEN_PATH": str(folder / "token"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }


def use_hub(hub: LocalHub, patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Brings this process and its children to take the local hub for the hub.

    The client reads its environment once, while it is imported; so its constants are set, too.
    """
    for name, value in hub_environment(hub, folder).items():
        patch.setenv(name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        patch.delenv(name, raising=False)
    constants = importlib.import_module("huggingface_hub.constants")
    files = "/{repo_id}/resolve/{revision}/{filename}"
    of_client: dict[str, object] = {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + files,
        "HF_HOME": str(folder),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_TOKEN_PATH": str(folder / "token"),
        "HF_STORED_TOKENS_PATH": str(folder / "stored_tokens"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    for constant, setting in of_client.items():
        patch.setattr(constants, constant, setting)
    config = importlib.import_module("datasets").config
    of_datasets: dict[str, object] = {
        "HF_ENDPOINT": hub.address,
        "HUB_DATASETS_URL": hub.address + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "HF_HUB_OFFLINE": False,
        "HF_DATASETS_OFFLINE": False,
    }
    for constant, setting in of_datasets.items():
        patch.setattr(config, constant, setting)


def no_waiting(patch: pytest.MonkeyPatch) -> list[float]:
    """Makes the client ask again at once, and returns the list of the seconds it would wait."""
    waits: list[float] = []
    for name in (
        "huggingface_hub.file_download",
        "huggingface_hub.utils._http",
        "datasets.utils.file_utils",
    ):
        module = importlib.import_module(name)
        patch.setattr(module, "time", SimpleNamespace(**{**vars(time), "sleep": waits.append}))
    return waits


def leave_hub() -> None:
    """Ends the connections that the client keeps, and forgets the listings that it remembers."""
    client = importlib.import_module("huggingface_hub")
    client.close_session()
    client.HfFileSystem.clear_instance_cache()


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """An empty hub on loopback, which this process and its children take for the hub."""
    with LocalHub() as hub:
        use_hub(hub, monkeypatch, tmp_path / "huggingface")
        yield hub
        leave_hub()
