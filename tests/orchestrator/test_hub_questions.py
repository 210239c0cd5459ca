"""What the hub answers is said in one line, and it is asked again only where that can help."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from jobs.errors import StudyError
from orchestrator import hub_questions
from orchestrator.hub_index import HubIndex
from orchestrator.hub_questions import HubUnreachableError, ask
from tests.hub.server import LocalHub

MODEL = "someone/model"
SECRET = "hf_secretsecretsecret"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_questions, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(hub_questions, "LONGEST_WAIT", 0.0)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def hub(local_hub: LocalHub) -> LocalHub:
    """A hub with a model of four branches."""
    for name in ("main", "step0", "step1", "step2"):
        local_hub.model(MODEL).commit(name, {"config.json": name.encode()})
    return local_hub


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(hub: LocalHub, memory: Path, status: int) -> None:
    hub.faults.refuse("*/refs", status, times=2)
    hub.faults.refuse("*/tree/*", status, times=3, retry_after=1)
    index = HubIndex(memory)
    assert len(index.trees(MODEL, index.refs(MODEL).values())) == 4


def test_the_hub_says_how_long_to_wait(
    hub: LocalHub, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(hub_questions, "LONGEST_WAIT", 50.0)
    hub.faults.refuse("*", 429, times=1, retry_after=7)
    hub.faults.refuse("*", 429, times=1, retry_after=70)
    hub.faults.refuse("*", 500, times=1)
    index = HubIndex(memory)
    question: Callable[[], object] = lambda: index._ask_tree(MODEL, "main", waits.append)  # noqa: E731
    question()
    assert waits == [7.0, 50.0, 0.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"Retry-After": "12"}, 12.0),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_waits_are_read_off_headers(header: dict[str, str], seconds: float | None) -> None:
    assert hub_questions._wanted_wait(header) == seconds


def test_a_hub_that_stays_busy_or_away_is_named(hub: LocalHub, memory: Path) -> None:
    hub.faults.refuse("*", 503, times=None)
    with pytest.raises(StudyError, match=r"cannot ask the hub about model .*: the answer is 503"):
        HubIndex(memory).refs(MODEL)
    assert len(hub.requests) == hub_questions.TRIES
    hub.close()
    with pytest.raises(StudyError, match=r"about model someone/model: ConnectError, 5 times"):
        HubIndex(memory).refs(MODEL)
    with pytest.raises(StudyError, match="check the network and HF_ENDPOINT"):
        HubIndex(memory).trees(MODEL, ["a" * 40])


def test_without_the_network_by_wish_only_memory_serves(
    hub: LocalHub, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = HubIndex(memory).refs(MODEL)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert HubIndex(memory).refs(MODEL) == refs
    with pytest.raises(StudyError, match="about model org/other: HF_HUB_OFFLINE is set"):
        HubIndex(memory).refs("org/other")
    assert len(hub.requests) == asked


def test_what_is_not_there_or_not_shown_is_named(hub: LocalHub, memory: Path) -> None:
    with pytest.raises(StudyError, match="knows no model org/none, or it is private") as caught:
        HubIndex(memory).refs("org/none")
    assert "HF_TOKEN" in caught.value.remedy
    hub.model(MODEL).hide(SECRET)
    with pytest.raises(StudyError, match=f"no model {MODEL}, or it is private"):
        HubIndex(memory).refs(MODEL)
    hub.model("someone/open").commit("main", {})
    with pytest.raises(StudyError, match=f"knows no model someone/open at {'a' * 40}"):
        HubIndex(memory).trees("someone/open", ["a" * 40])
    with pytest.raises(StudyError, match=r"'\.\./x' is no name of a repository"):
        HubIndex(memory).refs("../x")


def test_a_gated_repository_needs_a_token(
    hub: LocalHub, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.model(MODEL).gate(SECRET)
    for _ in range(2):  # The second time from memory.
        with pytest.raises(StudyError, match=f"{MODEL} is gated") as caught:
            HubIndex(memory).refs(MODEL)
        assert "accept it on the model's page and set HF_TOKEN" in caught.value.remedy
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert "main" in HubIndex(memory).refs(MODEL)


def test_no_message_holds_a_token(
    hub: LocalHub, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    said = []
    for status in (400, 401, 403, 404, 451, 503):
        hub.faults.refuse("*", status, times=hub_questions.TRIES)
        with pytest.raises(StudyError) as caught:
            HubIndex(memory).refs(MODEL)
        said.append(caught.value)
        hub.faults.clear()
    # No header can hold a line end, and the client says so with the whole token.
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: f"{SECRET}\nx")
    with pytest.raises(StudyError, match="HF_TOKEN, or the token") as caught:
        HubIndex(memory).refs(MODEL)
    for error in [*said, caught.value]:
        assert SECRET not in str(error)
        assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(
    ("failure", "tries", "said"),
    [
        (ValueError("<html>"), 5, "the answer is not that of a hub, 5 times"),
        (KeyError("branches"), 5, "the answer is not that of a hub"),
        (httpx.ReadTimeout("slow"), 5, "ReadTimeout, 5 times"),
        (httpx.UnsupportedProtocol("hub.example"), 1, "HF_ENDPOINT is no address"),
        (httpx.InvalidURL("http://["), 1, "HF_ENDPOINT is no address"),
    ],
)
def test_what_is_no_answer_is_no_refusal(failure: Exception, tries: int, said: str) -> None:
    asked = []

    def question() -> None:
        asked.append(1)
        raise failure

    with pytest.raises(HubUnreachableError, match=said):
        ask(question, "model a/b", "a/b")
    assert len(asked) == tries
