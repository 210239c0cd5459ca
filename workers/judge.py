"""A judge behind an OpenAI-compatible endpoint: which of two answers does it prefer?

The key is read from an environment variable when it is needed and goes into the request's header
alone; whatever an endpoint says is shown without it. Costs are bounded before a request is sent: a
token has at least one byte, so that a prompt's bytes bound what it can cost.
"""

import math
import os
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from jobs.errors import CellError, DataError
from jobs.winrate_spec import EndpointJudge, is_loopback
from workers.judge_replies import Reply, filled, read_reply

_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 120.0
_PASSING = frozenset({408, 409, 425, 429})
_SERVERS_FAULT = 500
_SHOWN = 200
# What a chat's own marks and a system prompt of the endpoint may add to what is sent.
_MESSAGE_BYTES = 256
_ASKED_AGAIN = 1


@dataclass(frozen=True)
class Verdict:
    """What a judge says of two answers.

    Attributes:
        preference: From 1 (the first) to 2 (the second); None where it named neither.
        weighted: Whether its log-probabilities weigh the preference.
        nonsense: Replies that named neither.
    """

    preference: float | None
    weighted: bool
    nonsense: int


class _PassingError(Exception):
    """A try failed, and another one may not."""

    def __init__(self, problem: str, pause: float | None = None) -> None:
        super().__init__(problem)
        self.problem, self.pause = problem, pause


class EndpointClient:
    """Asks an endpoint; its methods may be called from many threads.

    Args:
        judge: The endpoint.
        spent: What earlier attempts at the same comparison have spent.

    Raises:
        CellError: The environment variable of the key is empty, or its value can't be a key.
    """

    def __init__(self, judge: EndpointJudge, spent: float = 0.0) -> None:
        self._judge, self._spent, self._reserved = judge, spent, 0.0
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._key = _key(judge.api_key_env)
        host = urlsplit(judge.base_url).hostname or ""
        self._client = httpx.Client(
            timeout=judge.timeout,
            limits=httpx.Limits(max_connections=judge.concurrency),
            # A proxy would see what is sent to this machine itself, unencrypted.
            trust_env=not is_loopback(host),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )
        self._url = judge.base_url.rstrip("/") + "/chat/completions"
        self._where = f"the judge '{judge.model}' at {host}"

    @property
    def spent(self) -> float:
        """What has been spent, earlier attempts included."""
        with self._lock:
            return self._spent

    def stop(self) -> None:
        """Lets those that wait give up, and starts no further request."""
        self._stopped.set()

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def ask(self, instruction: str, first: str, second: str) -> Verdict:
        """Returns which of two answers to an instruction is preferred.

        A reply that names neither answer is asked for once more.

        Raises:
            DataError: The next request could cost more than is left.
            CellError: The endpoint refuses the request or the key.
            OSError: It can't be reached, or stays busy.
        """
        prompt = filled(self._judge.prompt, instruction, first, second)
        for nonsense in range(_ASKED_AGAIN + 1):
            reply = self._reply(prompt)
            if reply.preference is not None:
                return Verdict(reply.preference, reply.weighted, nonsense)
        return Verdict(None, False, _ASKED_AGAIN + 1)

    def _reply(self, prompt: str) -> Reply:
        """Asks until there is a reply; waits as long as the endpoint asks, else ever longer."""
        problem = ""
        for failed in range(self._judge.retries + 1):
            if self._stopped.is_set():
                break
            try:
                with self._paying(prompt) as pay:
                    return self._try(prompt, pay)
            except _PassingError as error:
                problem = error.problem
                pause = _FIRST_WAIT_SECONDS * 2**failed if error.pause is None else error.pause
            if failed < self._judge.retries:
                self._stopped.wait(min(pause, _LONGEST_WAIT_SECONDS))
        raise ConnectionError(
            f"{self._where} gave no reply: {problem or 'stopped'}"
            + (f", {failed + 1} times in a row" if problem else "")
        )

    def _try(self, prompt: str, pay: "_Payment") -> Reply:
        """Asks once."""
        judge = self._judge
        body: dict[str, Any] = {
            "model": judge.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": judge.temperature,
            "max_tokens": judge.answer_tokens,
        }
        if judge.logprobs:
            body |= {"logprobs": True, "top_logprobs": 5}
        try:
            response = self._client.post(self._url, json=body)
        except httpx.TimeoutException as error:
            pay.unknown()  # It may have answered, and charged.
            raise _PassingError(type(error).__name__) from None
        except httpx.RequestError as error:
            raise _PassingError(type(error).__name__) from None
        status = response.status_code
        if status in _PASSING or status >= _SERVERS_FAULT:
            raise _PassingError(f"status {status}", _asked_pause(response))
        if status in {401, 403}:
            raise CellError(
                f"{self._where} refuses the key (status {status}): {self._shown(response)}",
                "set the environment variable of api_key_env on all nodes to a key that may ask "
                "this model",
            )
        if not response.is_success:
            raise CellError(
                f"{self._where} refuses the request (status {status}): {self._shown(response)}",
                "check winrates.judge: base_url and model; `logprobs = false` where the endpoint "
                "knows none",
            )
        try:
            content = response.json()
            usage, reply = content.get("usage"), read_reply(content)
        except (ValueError, LookupError, TypeError, AttributeError):
            pay.unknown()
            raise _PassingError("a reply that is no chat completion") from None
        pay.used(usage, judge)
        return reply

    @contextmanager
    def _paying(self, prompt: str) -> Any:
        """Reserves what a request can cost at most, and books what it did."""
        judge = self._judge
        read = len(prompt.encode()) + _MESSAGE_BYTES
        most = _price(judge, read, judge.answer_tokens)
        with self._lock:
            if judge.most_cost is not None and (
                self._spent + self._reserved + most > judge.most_cost
            ):
                raise DataError(
                    f"the judge has cost {self._spent:.6g}, and the next request could cost "
                    f"{most:.3g}: more than the {judge.most_cost:.6g} of this comparison",
                    "raise winrates.judge.most_cost, which all comparisons share, then `retry`: "
                    "what is judged already is kept",
                )
            self._reserved += most
        payment = _Payment(most)
        try:
            yield payment
        finally:
            with self._lock:
                self._reserved -= most
                self._spent += payment.cost

    def _shown(self, response: httpx.Response) -> str:
        """Returns the beginning of what an endpoint says, without the key, should it repeat it."""
        text = response.text
        return (text.replace(self._key, "[key]") if self._key else text)[:_SHOWN]


class _Payment:
    """What one request cost."""

    def __init__(self, most: float) -> None:
        self._most, self.cost = most, 0.0

    def unknown(self) -> None:
        """Books the most that it can have cost."""
        self.cost = self._most

    def used(self, usage: object, judge: EndpointJudge) -> None:
        """Books the tokens that the endpoint counted; the most where it tells none."""
        counts = usage if isinstance(usage, Mapping) else {}
        read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
        if isinstance(read, int) and isinstance(written, int):
            self.cost = _price(judge, read, written)
        else:
            self.cost = self._most


def _price(judge: EndpointJudge, read: int, written: int) -> float:
    return (read * judge.input_price + written * judge.output_price) / 1e6


def _key(variable: str | None) -> str:
    """Returns the key; empty where none is needed."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise CellError(
            f"the environment variable {variable} is empty",
            "set it on all nodes to the judge's key",
        )
    # The HTTP library would show the whole header in its complaint.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CellError(
            f"what {variable} holds is no key: keys are printable ASCII without spaces",
            "set it to the key alone",
        )
    return key


def _asked_pause(response: httpx.Response) -> float | None:
    """Returns for how many seconds the endpoint asks to be left alone."""
    asked = response.headers.get("Retry-After", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            until = parsedate_to_datetime(asked)
        except ValueError:
            return None
        seconds = (until.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
