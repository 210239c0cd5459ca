"""What goes wrong on the local hub, as the real client meets it."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from tests.hub.client import no_waiting
from tests.hub.server import LocalHub

CONFIG = b'{"model_type": "gpt_neox"}'
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}


@pytest.fixture
def waits(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return no_waiting(monkeypatch)


def fetch(file: str, **more: Any) -> bytes:
    return Path(hf_hub_download("org/model", file, **more)).read_bytes()


@pytest.mark.parametrize("after", [0, 40_000])
def test_a_download_goes_on_where_it_was_cut(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, waits: list[float], after: int
) -> None:
    # The client keeps whole pieces alone, which have ten mebibytes by default.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    local_hub.model("org/model").commit("main", FILES)
    local_hub.faults.cut("*.safetensors", after, times=2)
    assert fetch("model.safetensors") == WEIGHTS
    sent = [r.sent for r in local_hub.matching("*.safetensors", "GET")]
    assert sent == [after, after, len(WEIGHTS) - 2 * after]
    ranges = [r.range for r in local_hub.matching("*.safetensors", "GET")]
    assert waits == [1, 1]
    assert ranges[-1] == (f"bytes={2 * after}-" if after else None)


def test_a_connection_can_be_reset(local_hub: LocalHub) -> None:
    local_hub.model("org/model").commit("main", FILES)
    local_hub.faults.cut("*.safetensors", 5000, reset=True)
    with pytest.raises(httpx.ReadError):
        fetch("model.safetensors")
    assert fetch("model.safetensors") == WEIGHTS


def test_the_client_waits_as_long_as_it_is_told(local_hub: LocalHub, waits: list[float]) -> None:
    local_hub.model("org/model").commit("main", FILES)
    local_hub.faults.refuse("*/config.json", 429, times=3, retry_after=30, methods=("HEAD",))
    assert fetch("config.json") == CONFIG
    # The client asks once in haste, then again and again.
    heads = [r.status for r in local_hub.matching("*/config.json", "HEAD")]
    assert heads == [429, 429, 429, 200]
    assert waits == [31, 31]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_requests_are_refused_as_long_as_ordered(local_hub: LocalHub, status: int) -> None:
    local_hub.model("org/model").commit("main", FILES)
    local_hub.faults.refuse("/api/*", status, times=None)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match=str(status)):
            HfApi().model_info("org/model")
    local_hub.faults.clear()
    assert HfApi().model_info("org/model").id == "org/model"


def test_corrupt_and_short_files_are_really_delivered(local_hub: LocalHub) -> None:
    local_hub.model("org/model").commit("main", FILES)
    local_hub.faults.corrupt("*.safetensors")
    damaged = fetch("model.safetensors")
    assert len(damaged) == len(WEIGHTS)
    assert [a == b for a, b in zip(damaged, WEIGHTS, strict=True)].count(False) == 1
    local_hub.faults.shorten("*/config.json", 7)
    with pytest.raises(OSError, match="should be of size 26 but has size 7"):
        fetch("config.json")
    assert fetch("config.json") == CONFIG
    hf_hub_download("org/model", "model.safetensors", force_download=True)
    assert fetch("model.safetensors") == WEIGHTS


def test_the_rate_is_shared(local_hub: LocalHub) -> None:
    files = {f"{n}.bin": bytes([n]) * 20_000 for n in range(4)}
    local_hub.model("org/model").commit("main", files)
    local_hub.bandwidth.rate = 400_000
    began = time.monotonic()
    threads = [threading.Thread(target=fetch, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 0.95 * 80_000 / 400_000
    assert local_hub.sent() == 80_000


def test_it_counts_the_files_that_are_sent_together(local_hub: LocalHub) -> None:
    files = {f"{n}.bin": bytes([n]) for n in range(3)}
    local_hub.model("org/model").commit("main", files)
    hold = local_hub.faults.hold("*.bin", times=None)
    threads = [threading.Thread(target=fetch, args=(file,)) for file in files]
    for count, thread in enumerate(threads, start=1):
        thread.start()
        while max((r.together for r in local_hub.requests), default=0) < count:
            time.sleep(0.01)
    hold.release()
    for thread in threads:
        thread.join()
    fetch("0.bin", cache_dir=str(Path(os.environ["HF_HOME"]) / "other"))
    assert [r.together for r in local_hub.matching(method="GET")] == [1, 2, 3, 1]


def test_an_answer_waits_until_it_is_released(local_hub: LocalHub) -> None:
    local_hub.model("org/model").commit("main", FILES)
    hold = local_hub.faults.hold("*.safetensors", 1000)
    fetched: list[bytes] = []
    thread = threading.Thread(target=lambda: fetched.append(fetch("model.safetensors")))
    thread.start()
    assert hold.reached.wait(30)
    assert (fetched, local_hub.sent("*.safetensors")) == ([], 1000)
    hold.release()
    thread.join()
    assert fetched == [WEIGHTS]
