"""The client of a judge's endpoint, against a real HTTP server that fails in many ways."""

import logging
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from jobs.errors import CellError, DataError
from jobs.winrate_spec import EndpointJudge
from tests.judge.server import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    LocalEndpoint,
    completion,
    prefers_first,
    prefers_longer,
)
from workers import judge as judge_module
from workers.judge import EndpointClient, Verdict
from workers.judge_replies import filled, read_reply

KEY = "sk-aVerySecretKey"
PRICES: dict[str, Any] = {"input_price": 2.0, "output_price": 10.0}
COST = (PROMPT_TOKENS * 2.0 + COMPLETION_TOKENS * 10.0) / 1e6


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setenv("JUDGE_KEY", KEY)


def _client(endpoint: LocalEndpoint, **changes: Any) -> EndpointClient:
    settings: dict[str, Any] = {"base_url": endpoint.base_url, "model": "judge", **changes}
    return EndpointClient(EndpointJudge(**settings))


def _near(value: float) -> Any:
    return pytest.approx(value)


def test_a_weighted_preference() -> None:
    with LocalEndpoint() as endpoint:
        client = _client(endpoint, api_key_env="JUDGE_KEY")
        verdict = client.ask("Say more.", "short", "a longer one")
        assert vars(verdict) == {"preference": _near(1.9), "weighted": True, "nonsense": 0}
        assert client.ask("Say more.", "a longer one", "short").preference == pytest.approx(1.1)
        client.close()
    (body, _), (headers, _) = endpoint.bodies, endpoint.headers
    assert body["model"] == "judge"
    assert body["logprobs"] is True
    assert body["max_tokens"] == 1
    assert headers["Authorization"] == f"Bearer {KEY}"


def test_without_log_probabilities_it_is_one_or_two() -> None:
    with LocalEndpoint(prefers_first) as endpoint:
        client = _client(endpoint, logprobs=False)
        assert client.ask("?", "a", "b") == Verdict(1.0, False, 0)
        client.close()
    assert "logprobs" not in endpoint.bodies[0]
    assert "Authorization" not in endpoint.headers[0]


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"Retry-After": "0"}, b"{}"),
        (500, {}, b"oops"),
        (503, {}, b""),
        (200, {}, b"<html>a proxy</html>"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b"[]"),
    ],
)
def test_what_passes_is_tried_again(fault: Any) -> None:
    with LocalEndpoint() as endpoint:
        endpoint.faults = [fault, fault]
        client = _client(endpoint)
        assert client.ask("?", "a", "bb").preference == pytest.approx(1.9)
        client.close()
    assert len(endpoint.bodies) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_it_waits_as_long_as_it_is_asked_to(as_date: bool) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)
    # Dates have no fractions of a second.
    until = until.replace(microsecond=0) if as_date else datetime.now(UTC)
    asked = format_datetime(until, usegmt=True) if as_date else "0.3"
    with LocalEndpoint() as endpoint:
        endpoint.faults = [(429, {"Retry-After": asked}, b"{}")]
        client = _client(endpoint)
        started = time.monotonic()
        client.ask("?", "a", "bb")
        client.close()
    assert datetime.now(UTC) >= until
    assert as_date or time.monotonic() - started >= 0.3


def test_a_hanging_endpoint_is_given_up_and_may_have_charged() -> None:
    with LocalEndpoint() as endpoint:
        endpoint.faults = [None]
        client = _client(endpoint, timeout=0.2, **PRICES)
        assert client.ask("?", "a", "bb").preference == pytest.approx(1.9)
        assert client.spent > 2 * COST
        client.close()


def test_who_stays_busy_is_an_error_of_the_network() -> None:
    with LocalEndpoint() as endpoint:
        endpoint.faults = [(503, {}, b"")] * 3
        client = _client(endpoint, retries=2)
        with pytest.raises(OSError, match=r"'judge' at 127\.0\.0\.1 .*status 503, 3 times"):
            client.ask("?", "a", "b")
        client.close()


def test_nobody_there_is_an_error_of_the_network() -> None:
    with LocalEndpoint() as endpoint:
        client = _client(endpoint, retries=1)
    with pytest.raises(OSError, match="ConnectError, 2 times"):
        client.ask("?", "a", "b")


@pytest.mark.parametrize(("status", "match"), [(401, "key"), (403, "key"), (400, "request")])
def test_a_refusal_is_no_matter_of_time_and_shows_no_key(status: int, match: str) -> None:
    with LocalEndpoint() as endpoint:
        endpoint.faults = [(status, {}, f"no such key: {KEY}".encode())]
        client = _client(endpoint, api_key_env="JUDGE_KEY")
        with pytest.raises(CellError, match=f"refuses the {match}") as found:
            client.ask("?", "a", "b")
        client.close()
    assert len(endpoint.bodies) == 1
    assert "[key]" in str(found.value)
    assert KEY not in "".join(traceback.format_exception(found.value))


def test_no_redirect_takes_the_key_elsewhere() -> None:
    with LocalEndpoint() as elsewhere, LocalEndpoint() as endpoint:
        endpoint.faults = [(307, {"Location": f"{elsewhere.base_url}/chat/completions"}, b"")]
        client = _client(endpoint, api_key_env="JUDGE_KEY")
        with pytest.raises(CellError, match="status 307"):
            client.ask("?", "a", "b")
        client.close()
    assert not elsewhere.bodies


def test_nonsense_is_asked_for_once_more_then_null() -> None:
    with LocalEndpoint(lambda _: (200, {}, completion("Both!"))) as endpoint:
        client = _client(endpoint, **PRICES)
        assert client.ask("?", "a", "b") == Verdict(None, False, 2)
        assert client.spent == pytest.approx(2 * COST)
        endpoint.faults = [(200, {}, completion("Both!"))]
        endpoint.answer = prefers_longer
        assert client.ask("?", "a", "bb").nonsense == 1
        client.close()


def test_the_cost_stays_below_its_cap() -> None:
    with LocalEndpoint() as endpoint:
        client = _client(endpoint, most_cost=0.01, **PRICES)
        asked = (client.ask("?", "a", "bb") for _ in range(100))
        with pytest.raises(DataError, match=r"has cost 0\.00\d+.*more than the 0\.01 ") as found:
            list(asked)
        client.close()
    assert client.spent == pytest.approx(len(endpoint.bodies) * COST)
    assert 0.5 * 0.01 < client.spent <= 0.01
    assert "most_cost" in found.value.remedy


def test_what_is_not_counted_costs_the_most_it_can() -> None:
    with LocalEndpoint(lambda _: (200, {}, completion("m", usage=False))) as endpoint:
        client = _client(endpoint, **PRICES)
        client.ask("?", "a", "b")
        assert client.spent > COST
        client.close()


def test_an_empty_or_impossible_key_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalEndpoint() as endpoint:
        monkeypatch.setenv("JUDGE_KEY", "  ")
        with pytest.raises(CellError, match="JUDGE_KEY is empty"):
            _client(endpoint, api_key_env="JUDGE_KEY")
        for broken in ("sk-one\nsk-two", "sk-é", "sk one"):
            monkeypatch.setenv("JUDGE_KEY", broken)
            with pytest.raises(CellError, match="no key") as found:
                _client(endpoint, api_key_env="JUDGE_KEY")
            assert (
                "sk" not in "".join(traceback.format_exception(found.value)).split("CellError")[-1]
            )


def test_the_log_never_shows_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with LocalEndpoint() as endpoint:
        endpoint.faults = [(500, {}, KEY.encode())]
        client = _client(endpoint, api_key_env="JUDGE_KEY")
        client.ask("?", "a", "b")
        client.close()
    assert KEY not in caplog.text
    assert KEY not in repr(vars(client)["_client"].headers)


def test_what_looks_like_a_place_in_a_text_is_left_alone() -> None:
    prompt = filled("{instruction}|{output_1}|{output_2}", "{output_1}", "{output_2}", r"\1")
    assert prompt == r"{output_1}|{output_2}|\1"


@pytest.mark.parametrize(
    ("text", "likelihoods", "preference"),
    [
        ("m", None, 1.0),
        (" 'M'.", None, 2.0),
        ("model m", None, None),
        ("", None, None),
        ("m", {"m": 0.75, "M": 0.25}, 1.25),
        ("M", {"M": 0.5, " M": 0.25, "m": 0.25}, 1.75),
        ("M", {"M": 0.9, "x": 0.1}, 2.0),
        ("x", {"x": 0.9, "m": 0.1}, None),
    ],
)
def test_replies(text: str, likelihoods: dict[str, float] | None, preference: float | None) -> None:
    import json

    reply = read_reply(json.loads(completion(text, likelihoods)))
    assert reply.preference == (None if preference is None else pytest.approx(preference))
    assert reply.weighted == (likelihoods is not None and preference is not None)
