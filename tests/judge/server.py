"""A judge on loopback that speaks the OpenAI protocol over real HTTP, and can be made to fail."""

import json
import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
PROMPT_TOKENS, COMPLETION_TOKENS = 300, 1


def completion(text: str, likelihoods: dict[str, float] | None = None, usage: bool = True) -> bytes:
    """A chat completion, with the log-probabilities of its only token where they are given."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
    if likelihoods is not None:
        top = [{"token": t, "logprob": math.log(p)} for t, p in likelihoods.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": top}]}
    body: dict[str, Any] = {"object": "chat.completion", "choices": [choice]}
    if usage:
        body["usage"] = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
        }
    return json.dumps(body).encode()


def prefers_longer(body: dict[str, Any]) -> Answer:
    """A judge that names the longer answer, and is sure of it by nine to one."""
    first, second = answers_in(body)
    named, other = ("M", "m") if len(second) > len(first) else ("m", "M")
    return 200, {}, completion(named, {named: 0.9, other: 0.1})


def prefers_first(_body: dict[str, Any]) -> Answer:
    """A judge that loves the first place."""
    return 200, {}, completion("m")


def answers_in(body: dict[str, Any]) -> tuple[str, str]:
    prompt = body["messages"][0]["content"]
    first = prompt.split('<answer model="m">\n')[1].split("\n</answer>")[0]
    second = prompt.split('<answer model="M">\n')[1].split("\n</answer>")[0]
    return first, second


class LocalEndpoint:
    """An endpoint on a port of its own, until it is closed.

    Attributes:
        base_url: What a client appends `/chat/completions` to.
        bodies: The body of every request so far.
        headers: Its headers.
        most_at_once: How many requests were answered at the same time at most.
        answer: What it says.
        faults: What it says instead, one after another, before it answers.
        released: Hanging requests wait for it.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Answer] = prefers_longer) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[Answer | None] = []
        self.released = threading.Event()
        self.most_at_once, self._at_once, self._lock = 0, 0, threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def reply(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Answer | None:
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            faulty = bool(self.faults)
            fault = self.faults.pop(0) if faulty else None
        try:
            if faulty and fault is None:
                self.released.wait(30)
                return None
            if fault:
                return fault
            return self.answer(body) if path == "/v1/chat/completions" else (404, {}, b"{}")
        finally:
            with self._lock:
                self._at_once -= 1

    def __enter__(self) -> "LocalEndpoint":
        return self

    def __exit__(self, *_error: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(endpoint: LocalEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # One connection per request: none is left open when the test ends.
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = endpoint.reply(self.path, dict(self.headers), body)
            if answer is None:
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler
