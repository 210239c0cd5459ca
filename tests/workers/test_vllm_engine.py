"""vLLM itself, in a process of its own: one engine for all checkpoints, and the same samples.

What is done there is told by `observe`; the tests judge it.
"""

import importlib.util
import json
import os
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from jobs.errors import CellError
from tests.workers.sampled import passk_cell, records_of, rows_of, sample_cell
from tests.workers.tasks import kinds, run_cells

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM isn't installed"),
]

STEPS = ("step0", "step10", "step100")
PROMPT = [5, 80, 7, 33, 120, 9, 4, 200, 17, 3]


@pytest.fixture(scope="module")
def observed(tiny_series: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("vllm")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(observe, tiny_series, folder).result()


def observe(series: Path, folder: Path) -> dict[str, Any]:
    """Samples from checkpoints in turns, and tells what came of it."""
    import torch
    from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

    from jobs.events import Failed
    from workers import engines
    from workers.vllm_engine import VllmEngine

    started: list[Path] = []
    start = VllmEngine.__init__

    def counting(self: VllmEngine, given: Any, *arguments: Any) -> None:
        started.append(given.path)
        start(self, given, *arguments)

    VllmEngine.__init__ = counting  # type: ignore[assignment,method-assign]
    model = AutoModelForCausalLM.from_pretrained(series / "step100").eval()
    ids = torch.tensor([PROMPT])

    def logits() -> Any:
        with torch.no_grad():
            return model(ids).logits.numpy()

    def logprobs() -> list[float]:
        (engine,) = engines._held
        assert isinstance(engine, VllmEngine)
        settings = __import__("vllm").SamplingParams(
            max_tokens=1, prompt_logprobs=0, detokenize=False
        )
        (output,) = engine.llm.generate([{"prompt_token_ids": PROMPT}], settings, use_tqdm=False)
        told = zip(PROMPT[1:], output.prompt_logprobs[1:], strict=True)
        return [found[token].logprob for token, found in told]

    def sampled(step: str, first: int = 0, count: int = 6, **changes: Any) -> Any:
        settings = {"engine": "vllm", "temperature": 1.5, "samples": 12, **changes}
        results = folder / str(len(list(folder.iterdir())))
        results.mkdir()
        cell = sample_cell(series / step, records, first, count, **settings)
        rows = rows_of([cell], results)
        assert rows_of([passk_cell([cell])], results, "passk")[0]["engine"].startswith("vllm ")
        return rows

    records = records_of(folder)
    before, number = logits(), torch.set_num_threads
    found: dict[str, Any] = {"rows": {}}
    for step in STEPS:
        found["rows"][step] = sampled(step)
    found["swapped"] = logprobs()
    found["parts"] = [row for first in (0, 2, 4) for row in sampled("step100", first, 2)]
    found["back"] = sampled("step0")
    found["nucleus"] = sampled("step100", top_p=0.9), sampled("step100", 2, 2, top_p=0.9)
    found["starts"] = len(started)
    engines.let_go()
    sampled("step100")
    found["fresh"] = logprobs()
    found["fresh_rows"] = sampled("step100")
    found["starts_after"] = len(started)
    sampled("step100", dtype="bfloat16")
    found["starts_other"] = len(started)
    narrow = folder / "narrow"
    config = GPTNeoXConfig.from_pretrained(series / "step0")
    config.num_attention_heads = 2
    GPTNeoXForCausalLM(config).save_pretrained(narrow)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (narrow / name).write_bytes((series / "step0" / name).read_bytes())
    refused = run_cells([sample_cell(narrow, records, engine="vllm")], folder)
    found["refused"] = [(f.cause, f.message, f.remedy) for f in kinds(refused, Failed)]
    found["recovered"] = sampled("step100")
    engines.let_go()
    found["logits"] = before, logits()
    found["threads"] = torch.set_num_threads is number
    with torch.no_grad():
        exact = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
    found["exact"] = [float(exact[place, token]) for place, token in enumerate(PROMPT[1:])]
    return found


def test_one_engine_serves_all_checkpoints(observed: dict[str, Any]) -> None:
    assert observed["starts"] == 1
    assert observed["starts_after"] == 2
    assert observed["starts_other"] == 3
    first, last = (
        [row["texts"] for row in observed["rows"][step]] for step in (STEPS[0], STEPS[-1])
    )
    assert first != last


def test_swapped_weights_are_those_of_a_fresh_engine(observed: dict[str, Any]) -> None:
    assert observed["swapped"] == observed["fresh"]
    np.testing.assert_allclose(observed["swapped"], observed["exact"], atol=1e-5)
    assert observed["fresh_rows"] == observed["rows"]["step100"] == observed["recovered"]


def test_samples_depend_on_their_problem_alone(observed: dict[str, Any]) -> None:
    assert observed["parts"] == observed["rows"]["step100"]
    assert observed["back"] == observed["rows"]["step0"]
    whole, part = observed["nucleus"]
    assert part == whole[2:4]


def test_samples_differ_and_have_the_model_s_own_tokens(observed: dict[str, Any]) -> None:
    rows = observed["rows"]["step100"]
    assert all(len(set(row["texts"])) > 8 for row in rows)
    assert {length for row in rows for length in row["tokens_sampled"]} <= set(range(7))


def test_a_model_that_vllm_refuses_is_told_with_the_reason(observed: dict[str, Any]) -> None:
    ((cause, message, remedy),) = observed["refused"]
    assert cause == "data", message
    assert "vLLM refuses" in message
    assert "16" in message
    assert remedy == 'set passk.engine = "transformers"'


def test_the_process_is_as_before(observed: dict[str, Any]) -> None:
    before, after = observed["logits"]
    np.testing.assert_array_equal(before, after)
    assert observed["threads"]


@pytest.fixture(scope="module")
def split(tiny_series: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process saw that split weights between two, until it was killed with them."""
    folder = tmp_path_factory.mktemp("split")
    process = get_context("spawn").Process(target=observe_split, args=(tiny_series, folder))
    process.start()
    process.join(500)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    left = [psutil.Process(pid) for pid in found["last"] if psutil.pid_exists(pid)]
    found["exitcode"] = process.exitcode
    found["left"] = psutil.wait_procs(left, timeout=20)[1]
    return found


def observe_split(series: Path, folder: Path) -> None:
    """Samples from two checkpoints of two heads, with their weights split and whole."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from workers import engines

    temporary = folder / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)

    exact = []
    for name in ("first", "second"):
        config = GPTNeoXConfig.from_pretrained(series / "step0")
        config.hidden_size, config.num_attention_heads = 64, 2
        model = GPTNeoXForCausalLM(config).eval()
        model.save_pretrained(folder / name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name / file).write_bytes((series / "step0" / file).read_bytes())
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([PROMPT])).logits[0].double(), dim=-1)
        exact.append([float(logprobs[n, token]) for n, token in enumerate(PROMPT[1:])])
    records = records_of(folder)

    def sampled(name: str, parallel: int) -> Any:
        results = folder / str(len(list(folder.iterdir())))
        results.mkdir()
        changes: dict[str, Any] = {"temperature": 1.5, "tensor_parallel": parallel}
        cell = sample_cell(folder / name, records, engine="vllm", **changes)
        return [row["texts"] for row in rows_of([cell], results)]

    def logprobs_of_prompt() -> list[float]:
        (engine,) = engines._held
        settings = __import__("vllm").SamplingParams(
            max_tokens=1, prompt_logprobs=0, detokenize=False
        )
        (output,) = engine.llm.generate(  # type: ignore[attr-defined]
            [{"prompt_token_ids": PROMPT}], settings, use_tqdm=False
        )
        told = zip(PROMPT[1:], output.prompt_logprobs[1:], strict=True)
        return [found[token].logprob for token, found in told]

    def members() -> list[int]:
        found = psutil.Process().children(recursive=True)
        return [child.pid for child in found if "VLLM" in " ".join(child.cmdline())]

    def sockets() -> list[str]:
        return [str(path) for path in temporary.rglob("*") if path.is_socket()]

    found: dict[str, Any] = {"exact": exact, "swapped": []}
    texts = []
    for name in ("first", "second"):
        texts.append(sampled(name, 2))
        found["swapped"].append(logprobs_of_prompt())
    found["members"], before = len(members()), members()
    found["listening"] = sorted(
        {
            connection.laddr.ip
            for pid in [os.getpid(), *before]
            for connection in psutil.Process(pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    )
    found["sockets"] = sockets()
    found["equal"] = sampled("second", 1) == texts[1]
    found["differ"] = texts[0] != texts[1]
    found["stopped"] = members()
    found["sockets_left"] = sockets()
    found["again"] = sampled("first", 2) == texts[0]
    found["last"] = members()
    (folder / "found.json").write_text(json.dumps(found))
    os.kill(os.getpid(), signal.SIGKILL)


def test_split_weights_give_the_same_probabilities(split: dict[str, Any]) -> None:
    np.testing.assert_allclose(split["swapped"], split["exact"], atol=1e-5)
    assert split["equal"]
    assert split["again"]
    assert split["differ"]


def test_processes_of_split_weights_end_with_their_engine(split: dict[str, Any]) -> None:
    assert split["members"] == len(split["last"]) == 2
    assert set(split["listening"]) <= {"127.0.0.1"}
    assert split["stopped"] == []
    assert split["sockets"]
    assert split["sockets_left"] == []
    assert split["exitcode"] == -signal.SIGKILL
    assert split["left"] == []


def test_too_few_gpus_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from workers import vllm_engine

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    vllm_engine._check_devices(1, "cuda")
    vllm_engine._check_devices(2, "cpu")
    with pytest.raises(CellError, match="among 2 GPUs, and this worker has 1 → run `passk` with"):
        vllm_engine._check_devices(2, "cuda:0")
