"""Commits of the hub: asked where it answers, remembered where it is away."""

import pytest

from jobs.errors import StudyError
from orchestrator.hub_index import dataset_commit
from tests.hub.client import no_waiting
from tests.hub.server import LocalHub


@pytest.fixture(autouse=True)
def _fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIGENTRACE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_a_revision_is_asked_for_each_time_and_remembered(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = local_hub.dataset("org/texts")
    first = repository.commit("main", {"a.txt": b"a"})
    repository.tag("v/1", first)
    assert dataset_commit("org/texts", "main") == first
    second = repository.commit("main", {"a.txt": b"b"})
    assert dataset_commit("org/texts", "main") == second
    assert dataset_commit("org/texts", "v/1") == first
    no_waiting(monkeypatch)
    local_hub.faults.refuse("*", 503, times=None)
    assert dataset_commit("org/texts", "main") == second
    local_hub.close()
    assert dataset_commit("org/texts", "main") == second
    assert dataset_commit("org/texts", "v/1") == first
    with pytest.raises(StudyError, match=r"org/texts at 'v2' isn't known yet.* → run `plan` once"):
        dataset_commit("org/texts", "v2")


def test_a_commit_needs_no_hub(local_hub: LocalHub) -> None:
    assert dataset_commit("org/none", "a" * 40) == "a" * 40
    assert local_hub.requests == []


def test_what_is_not_there_is_said(local_hub: LocalHub) -> None:
    repository = local_hub.dataset("org/texts")
    repository.commit("main", {"a.txt": b"a"})
    with pytest.raises(StudyError, match=r"no dataset org/none, or doesn't show it → .*HF_TOKEN"):
        dataset_commit("org/none", "main")
    with pytest.raises(StudyError, match=r"org/texts has no revision 'step7' → name a branch"):
        dataset_commit("org/texts", "step7")
    with pytest.raises(StudyError, match=r"no dataset \.\./\.\.,"):
        dataset_commit("../..", "main")
    repository.hide("secret-token")
    with pytest.raises(StudyError, match="no dataset org/texts"):
        dataset_commit("org/texts", "main")


def test_what_is_gone_is_not_answered_from_memory(local_hub: LocalHub) -> None:
    repository = local_hub.dataset("org/texts")
    repository.commit("step7", {"a.txt": b"a"})
    dataset_commit("org/texts", "step7")
    del repository.branches["step7"]
    with pytest.raises(StudyError, match="no revision 'step7'"):
        dataset_commit("org/texts", "step7")
