"""What the hub holds is asked once, remembered, and never paid for with bytes of weights."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.errors import StudyError
from orchestrator import hub_questions
from orchestrator.hub_index import HubIndex, some_of
from tests.hub.server import LocalHub

MODEL = "someone/model"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_questions, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(hub_questions, "LONGEST_WAIT", 0.0)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def hub(local_hub: LocalHub) -> LocalHub:
    """A hub with a model of four branches, and of one tag."""
    model = local_hub.model(MODEL)
    for step in range(3):
        files = {"config.json": b"{}", "model.safetensors": b"weights of %d" % step}
        model.commit(f"step{step}", files | {"sub/x.bin": b"x"})
    last = model.commit("main", {"config.json": b"{}"})
    model.tag("v1", last)
    model.tag("step0", last)
    return local_hub


def _listed(hub: LocalHub) -> list[str]:
    return [request.path for request in hub.requests]


def test_branches_and_tags_are_told_with_their_commits(hub: LocalHub, memory: Path) -> None:
    model = hub.model(MODEL)
    refs = HubIndex(memory).refs(MODEL)
    # A branch outranks a tag of its name.
    assert refs == {**model.branches, "v1": model.branches["main"]}
    index = HubIndex(memory)
    assert index.commit(MODEL, "v1") == model.branches["main"]
    assert index.commit(MODEL, "step0") == model.branches["step0"]
    assert index.commit(MODEL, "refs/tags/step0") == model.branches["main"]


def test_files_are_told_with_their_hashes(hub: LocalHub, memory: Path) -> None:
    model = hub.model(MODEL)
    commit = model.branches["step1"]
    (files,) = HubIndex(memory).trees(MODEL, [commit]).values()
    assert [file.path for file in files] == ["config.json", "model.safetensors", "sub/x.bin"]
    for file in files:
        blob = model.commits[commit][file.path]
        assert (file.size, file.oid, file.sha256) == (len(blob.data), blob.oid, blob.sha256)
    assert files[0].sha256 is None
    assert files[1].sha256 is not None


def test_a_long_list_comes_in_pages(hub: LocalHub, memory: Path) -> None:
    hub.page_size = 2
    commit = hub.model(MODEL).branches["step1"]
    (files,) = HubIndex(memory).trees(MODEL, [commit]).values()
    assert len(files) == 3


def test_a_second_index_asks_nothing_and_no_weights_are_sent(hub: LocalHub, memory: Path) -> None:
    told = []
    first = HubIndex(memory, progress=lambda *done: told.append(done))
    refs = first.refs(MODEL)
    trees = first.trees(MODEL, refs.values())
    assert told == [(MODEL, n + 1, 4) for n in range(4)]
    asked = _listed(hub)
    assert asked[:2] == [f"/api/models/{MODEL}/refs", f"/api/models/{MODEL}"]
    assert len(asked) == 2 + 4
    assert hub.sent() == 0
    hub.close()
    second = HubIndex(memory)
    assert second.refs(MODEL) == refs
    assert second.trees(MODEL, refs.values()) == trees


def test_what_branches_point_to_holds_still_until_it_is_asked_anew(
    hub: LocalHub, memory: Path
) -> None:
    old = HubIndex(memory).commit(MODEL, "step0")
    new = hub.model(MODEL).commit("step0", {"config.json": b"[]"})
    assert HubIndex(memory).commit(MODEL, "step0") == old
    index = HubIndex(memory, refresh=True)
    assert index.commit(MODEL, "step0") == new
    asked = len(hub.requests)
    index.refs(MODEL)
    assert len(hub.requests) == asked
    assert HubIndex(memory).commit(MODEL, "step0") == new


def test_an_unknown_revision_is_looked_for_once_more(hub: LocalHub, memory: Path) -> None:
    HubIndex(memory).refs(MODEL)
    new = hub.model(MODEL).commit("step3", {})
    index = HubIndex(memory)
    assert index.commit(MODEL, "step3") == new
    with pytest.raises(
        StudyError, match=r"no revision 'stp0' \(did you mean 'step0'\?\)"
    ) as caught:
        index.commit(MODEL, "stp0")
    assert "main, step0, step1, step2, step3 and 1 more" in caught.value.remedy
    assert "connect" not in caught.value.remedy
    assert _listed(hub).count(f"/api/models/{MODEL}/refs") == 2


def test_offline_an_unknown_revision_is_said_to_be_unknown(hub: LocalHub, memory: Path) -> None:
    HubIndex(memory).refs(MODEL)
    hub.close()
    with pytest.raises(StudyError, match="no revision 'stp0'") as caught:
        HubIndex(memory).commit(MODEL, "stp0")
    assert "connect to the hub" in caught.value.remedy
    assert HubIndex(memory).fresh_refs(MODEL) == HubIndex(memory).refs(MODEL)


def test_a_commit_is_known_without_being_asked_for(local_hub: LocalHub, memory: Path) -> None:
    assert HubIndex(memory).commit("org/none", "a" * 40) == "a" * 40
    assert local_hub.requests == []


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"refs": 3}', b"\xff\xfe", b"[[1]]"])
def test_a_torn_memory_is_written_anew(hub: LocalHub, memory: Path, torn: bytes) -> None:
    index = HubIndex(memory)
    refs = index.refs(MODEL)
    trees = index.trees(MODEL, refs.values())
    files = [path for path in memory.rglob("*") if path.is_file()]
    assert len(files) == 1 + 4
    for path in files:
        path.write_bytes(torn)
    again = HubIndex(memory)
    assert again.refs(MODEL) == refs
    assert again.trees(MODEL, refs.values()) == trees
    for path in memory.rglob("*.json"):
        json.loads(path.read_text())


def test_many_may_use_one_memory(hub: LocalHub, memory: Path) -> None:
    def use(_: int) -> object:
        index = HubIndex(memory)
        return index.trees(MODEL, index.refs(MODEL).values())

    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(use, range(4))
    assert all(other == first for other in others)
    assert [path for path in memory.rglob("*") if path.suffix == ".tmp"] == []


def test_a_memory_that_cannot_be_written_costs_only_time(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("a file")
    assert "step0" in HubIndex(tmp_path / "memory").refs(MODEL)


def test_another_hub_has_a_memory_of_its_own(
    hub: LocalHub, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HubIndex(memory).refs(MODEL)
    with LocalHub() as other:
        other.model(MODEL).commit("main", {})
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", other.address)
        assert set(HubIndex(memory).refs(MODEL)) == {"main"}


def test_datasets_have_commits_too(
    local_hub: LocalHub, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENTRACE_CACHE", str(memory))
    texts = local_hub.dataset("org/texts")
    first = texts.commit("main", {"a.txt": b"a"})
    local_hub.model("org/texts").commit("main", {})
    assert HubIndex().dataset_commit("org/texts", "main") == first
    texts.commit("main", {"a.txt": b"b"})
    assert HubIndex().dataset_commit("org/texts", "main") == first
    assert HubIndex(refresh=True).dataset_commit("org/texts", "main") == texts.branches["main"]
    with pytest.raises(StudyError, match="org/texts has no revision 'v2'"):
        HubIndex().dataset_commit("org/texts", "v2")
    with pytest.raises(StudyError, match="knows no dataset org/none"):
        HubIndex().dataset_commit("org/none", "main")


def test_a_few_names_stand_for_many() -> None:
    assert some_of([]) == "none"
    assert some_of("ba") == "a, b"
    assert some_of("gfedcba") == "a, b, c, d, e and 2 more"
