"""A file arrives whole and right, or not at all, whatever the network and the hub do."""

import multiprocessing
from pathlib import Path

import huggingface_hub.constants
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.errors import DataError
from tests.hub.server import LocalHub
from tests.workers.supplied import FILES, NAME, WEIGHTS, blobs, fetch, source
from workers.disk import INCOMPLETE
from workers.download import HubError
from workers.supply import HubCache

_PROCESSES = multiprocessing.get_context("spawn")


pytestmark = pytest.mark.usefixtures("waits")


@pytest.mark.parametrize("after", [0, 1, 50_000])
def test_a_cut_costs_nothing_that_was_there(
    local_hub: LocalHub, tmp_path: Path, after: int
) -> None:
    wanted = source(local_hub, FILES)
    local_hub.faults.cut("*.safetensors", after)
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert local_hub.sent() == wanted.size
    ranges = [r.range for r in local_hub.matching("*.safetensors")]
    assert ranges == [None, f"bytes={after}-" if after else None]


def test_a_connection_that_is_reset_is_made_again(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    local_hub.faults.cut("*.safetensors", 70_000, reset=True, times=3)
    assert fetch(HubCache(tmp_path), wanted) == FILES


def test_an_answer_that_is_too_short_is_continued(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    local_hub.faults.shorten("*.safetensors", 1000, times=4)
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert local_hub.sent("*.safetensors") == len(WEIGHTS)


def test_the_hub_is_left_alone_for_as_long_as_it_asks(
    local_hub: LocalHub, tmp_path: Path, waits: list[float]
) -> None:
    wanted = source(local_hub, FILES)
    local_hub.faults.refuse("*.safetensors", 429, times=2, retry_after=77)
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert waits == [77.0, 77.0]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_hub_that_fails_is_asked_again_later_and_later(
    local_hub: LocalHub, tmp_path: Path, waits: list[float], status: int
) -> None:
    wanted = source(local_hub, FILES)
    local_hub.faults.refuse("*.safetensors", status, times=4)
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert waits == [1, 4, 16, 60]


def test_a_hub_that_never_answers_is_named(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    cache = HubCache(tmp_path)
    local_hub.faults.refuse("*.safetensors", 500, times=None)
    with pytest.raises(
        HubError, match=r"cannot fetch model.safetensors .* status 500, 5"
    ) as caught:
        fetch(cache, wanted)
    assert isinstance(caught.value, OSError)
    assert f"{NAME} at {wanted.commit}" in str(caught.value)
    local_hub.close()
    with pytest.raises(HubError, match="ConnectError, 5 times in a row"):
        fetch(cache, wanted)


def test_an_answer_that_stalls_is_given_up(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    wanted = source(local_hub, FILES)
    local_hub.faults.hold("*.safetensors", 1000)
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert local_hub.matching("*.safetensors")[-1].range == "bytes=1000-"


def test_corrupt_bytes_are_never_seen(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    local_hub.faults.corrupt("*.safetensors", times=2)
    local_hub.faults.corrupt("*/config.json", times=1)
    assert fetch(HubCache(tmp_path), wanted) == FILES


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_bytes_that_stay_corrupt_are_refused(
    local_hub: LocalHub, tmp_path: Path, path: str
) -> None:
    wanted = source(local_hub, FILES)
    local_hub.faults.corrupt(f"*/{path}", times=None)
    with pytest.raises(DataError, match=f"{path} of {NAME} at {wanted.commit} has the hash") as e:
        fetch(HubCache(tmp_path), wanted)
    file = next(file for file in wanted.files if file.path == path)
    assert str(e.value).count(file.sha256 or file.oid) == 1
    assert len(local_hub.matching(f"*/{path}")) == 3
    assert not any((file.sha256 or file.oid) in path.name for path in blobs(tmp_path))
    local_hub.faults.clear()
    assert fetch(HubCache(tmp_path), wanted) == FILES


FAULTS = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), st.integers(0, 6000)),
        st.tuples(st.just("reset"), st.integers(0, 6000)),
        st.tuples(st.just("shorten"), st.integers(0, 6000)),
        st.tuples(st.just("refuse"), st.sampled_from([408, 429, 500, 503])),
    ),
    max_size=4,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=FAULTS, corrupt=st.integers(0, 2), left=st.binary(max_size=6000))
def test_whatever_goes_wrong_the_bytes_are_right(
    local_hub: LocalHub,
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[tuple[str, int]],
    corrupt: int,
    left: bytes,
) -> None:
    root = tmp_path_factory.mktemp("cache")
    wanted = source(local_hub, {"model.safetensors": WEIGHTS[:5000]})
    for kind, value in faults:
        match kind:
            case "cut" | "reset":
                local_hub.faults.cut("*.safetensors", value, reset=kind == "reset")
            case "shorten":
                local_hub.faults.shorten("*.safetensors", value)
            case _:
                local_hub.faults.refuse("*.safetensors", value)
    # What a killed process left may be anything, and costs one of the transfers.
    local_hub.faults.corrupt("*.safetensors", times=corrupt if not left else min(corrupt, 1))
    partial = root / f"hub/models--org--model/blobs/{wanted.files[0].sha256}{INCOMPLETE}"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(left)
    try:
        assert fetch(HubCache(root), wanted) == {"model.safetensors": WEIGHTS[:5000]}
        assert [path.name for path in blobs(root)] == [wanted.files[0].sha256]
    finally:
        local_hub.faults.clear()
