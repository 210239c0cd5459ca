"""The local hub, as the real client of the hub sees it."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import (
    HfApi,
    HfFileSystem,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hub.client import hub_environment
from tests.hub.repositories import files_in
from tests.hub.server import LocalHub

CONFIG = b'{"model_type": "gpt_neox"}'
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "deep/er/vocab.json": b"{}"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


def fetch(file: str, **more: Any) -> bytes:
    return Path(hf_hub_download("org/model", file, **more)).read_bytes()


def test_a_repository_tells_its_revisions(local_hub: LocalHub) -> None:
    repository = local_hub.model("org/model")
    main = repository.commit("main", FILES)
    step = repository.commit("step1000", {**FILES, "model.safetensors": b"other"})
    repository.tag("v1", step)
    api = HfApi()
    assert api.model_info("org/model").sha == main
    for revision in ("step1000", "v1", step):
        assert api.repo_info("org/model", revision=revision).sha == step
    refs = api.list_repo_refs("org/model")
    assert {b.name: b.target_commit for b in refs.branches} == {"main": main, "step1000": step}
    assert [(t.name, t.target_commit) for t in refs.tags] == [("v1", step)]
    siblings = api.model_info("org/model", files_metadata=True).siblings
    assert siblings is not None
    assert {s.rfilename: s.size for s in siblings} == {k: len(v) for k, v in FILES.items()}
    assert len({main, step, repository.commit("main", FILES)}) == 3
    assert api.repo_info("org/model", revision=main).sha == main, "a commit stays"


@pytest.mark.parametrize("page_size", [1, 2, 1000])
def test_the_tree_is_listed_with_real_hashes(local_hub: LocalHub, page_size: int) -> None:
    local_hub.page_size = page_size
    local_hub.model("org/model").commit("a/b", FILES)
    listed = list(HfApi().list_repo_tree("org/model", revision="a/b", recursive=True))
    assert [entry.path for entry in listed] == [
        *("config.json", "deep", "deep/er", "deep/er/vocab.json", "model.safetensors")
    ]
    files = {e.path: e for e in listed if isinstance(e, RepoFile)}
    assert files["config.json"].blob_id == git_oid(CONFIG)
    assert files["config.json"].lfs is None
    large = files["model.safetensors"].lfs
    assert large is not None
    assert (large.sha256, large.size) == (sha256(WEIGHTS), len(WEIGHTS))
    top = HfApi().list_repo_tree("org/model", revision="a/b")
    assert [entry.path for entry in top] == ["config.json", "deep", "model.safetensors"]
    assert len(local_hub.matching("*/tree/*")) == -(-5 // page_size) + -(-3 // page_size)
    found = HfApi().get_paths_info("org/model", ["deep", "gone", "config.json"], revision="a/b")
    assert [entry.path for entry in found] == ["deep", "config.json"]
    assert local_hub.sent() == 0


def test_files_arrive_with_their_hashes_for_names(local_hub: LocalHub) -> None:
    commit = local_hub.model("org/model").commit("main", FILES)
    local_hub.dataset("org/model").commit("main", {"a.txt": b"of the dataset"})
    folder = Path(snapshot_download("org/model"))
    assert files_in(folder) == FILES
    assert folder.name == commit
    assert (folder / "model.safetensors").resolve().name == sha256(WEIGHTS)
    assert (folder / "config.json").resolve().name == git_oid(CONFIG)
    assert fetch("a.txt", repo_type="dataset") == b"of the dataset"
    assert local_hub.sent() == sum(map(len, FILES.values())) + len(b"of the dataset")
    assert local_hub.sent("*.safetensors") == len(WEIGHTS)
    before = len(local_hub.requests)
    assert fetch("config.json", revision=commit) == CONFIG
    assert len(local_hub.requests) == before, "what is there is not asked for again"


def test_what_is_missing_is_said_as_the_hub_says_it(local_hub: LocalHub) -> None:
    local_hub.model("org/model").commit("main", FILES)
    api = HfApi()
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/none")
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("org/model")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/model", revision="step7")
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree("org/model", revision="step7"))
    with pytest.raises(RevisionNotFoundError):
        fetch("config.json", revision="step7")
    with pytest.raises(EntryNotFoundError):
        fetch("none.json")


def test_a_gated_repository_is_listed_but_not_served(local_hub: LocalHub) -> None:
    repository = local_hub.model("org/model")
    repository.commit("main", FILES)
    repository.gate("let-me-in")
    assert HfApi().model_info("org/model").gated == "manual"
    assert len(list(HfApi().list_repo_tree("org/model"))) == 3
    for token in (None, "wrong"):
        with pytest.raises(GatedRepoError):
            hf_hub_download("org/model", "config.json", token=token)
    assert local_hub.sent() == 0
    path = hf_hub_download("org/model", "config.json", token="let-me-in")
    assert Path(path).read_bytes() == CONFIG
    assert {r.authorized for r in local_hub.matching("*/resolve/*")} == {True, False}
    assert "let-me-in" not in repr(local_hub.requests)


def test_a_private_repository_is_hidden(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = local_hub.model("org/model")
    repository.commit("main", FILES)
    repository.hide("let-me-in")
    for token in (None, "wrong"):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info("org/model")
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("org/model", "config.json", token=token)
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    assert HfApi().model_info("org/model").private
    assert fetch("config.json") == CONFIG


def test_a_listing_can_name_any_path(local_hub: LocalHub) -> None:
    local_hub.model("org/model").commit("main", {"../../evil": b"x", "config.json": CONFIG})
    listed = HfApi().list_repo_tree("org/model", recursive=True)
    assert "../../evil" in {entry.path for entry in listed}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.integers(0, 50), st.one_of(st.none(), st.integers(0, 50)))
def test_a_range_is_what_it_says(
    local_hub: LocalHub, data: bytes, first: int, last: int | None
) -> None:
    commit = local_hub.model("org/ranges").commit("main", {"file": data})
    last = None if last is None else max(first, last)
    wanted = f"bytes={first}-{'' if last is None else last}"
    url = f"{local_hub.address}/org/ranges/resolve/{commit}/file"
    client = get_session()
    answer = client.get(url, headers={"Range": wanted})
    expected = data[first : None if last is None else last + 1]
    if first >= len(data):
        assert answer.status_code == 416
        return
    assert (answer.status_code, answer.content) == (206, expected)
    end = first + len(expected) - 1
    assert answer.headers["Content-Range"] == f"bytes {first}-{end}/{len(data)}"
    suffix = client.get(url, headers={"Range": "bytes=-3"})
    assert suffix.content == data[-3:]


def test_a_file_system_reads_parts_alone(local_hub: LocalHub) -> None:
    local_hub.dataset("org/data").commit("main", {"data/a.parquet": WEIGHTS})
    files = HfFileSystem()
    assert files.ls("datasets/org/data", detail=False) == ["datasets/org/data/data"]
    with files.open("datasets/org/data/data/a.parquet", block_size=1000) as file:
        file.seek(50_000)
        assert file.read(10) == WEIGHTS[50_000:50_010]
    assert 10 <= local_hub.sent() <= 3000


def test_another_process_finds_it_by_its_environment(local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.model("org/model").commit("main", FILES)
    code = "from huggingface_hub import hf_hub_download as f; print(f('org/model', 'config.json'))"
    own = tmp_path / "own"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | hub_environment(local_hub, own),
        capture_output=True,
        text=True,
        check=True,
    )
    path = Path(done.stdout.strip())
    assert path.is_relative_to(own)
    assert path.read_bytes() == CONFIG


def test_a_closed_hub_leaves_nothing(local_hub: LocalHub) -> None:
    threads = set(threading.enumerate())
    with LocalHub() as hub:
        hub.model("org/model").commit("main", FILES)
        hold = hub.faults.hold("*.safetensors")
        with httpx.Client(trust_env=False) as client:
            for _ in range(3):
                client.get(f"{hub.address}/org/model/resolve/main/config.json")
            url = f"{hub.address}/org/model/resolve/main/model.safetensors"
            with client.stream("GET", url):
                assert hold.reached.wait(30)
                hub.close()
        with pytest.raises(httpx.ConnectError):
            httpx.get(hub.address, trust_env=False)
    assert set(threading.enumerate()) <= threads
    assert HfApi().endpoint == local_hub.address
