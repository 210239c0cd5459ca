"""Sampling from checkpoints one after another, beside vLLM alone and an engine for each of them."""

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.limits import Figure, alone, median_of
from benchmarks.peers import took
from jobs.cells import Cell, Checkpoint
from jobs.events import Event, Failed
from jobs.pico_spec import PicoModel, PicoSuite
from jobs.posttrain_work import PicoRecords, SampleWork, Sampling
from jobs.sources import Produced
from jobs.spec import Study
from jobs.work import CorpusWork, PretrainWork
from orchestrator.plan import make_plan
from workers import engines
from workers.artifacts import SharedFiles, locate
from workers.run import run_task
from workers.sample import sample_checkpoint
from workers.telling import Task
from workers.threads import fixed_threads

_CHECKPOINTS = 8
_ROUNDS = 3
_ENGINE_ROUNDS = 2
_SAMPLES, _PROBLEMS = 128, 32
"""A quarter of what a cell samples unless told otherwise."""
_FEW_SAMPLES, _FEW = 16, 4
"""Of the comparison with engines that are started anew: the more is sampled, the less that counts.

New engines start in one process here; a process of its own would take another 12 s for its imports.
"""


def figures() -> list[Figure]:
    """Shares of the time that vLLM's own generation takes, and times of engines."""
    shares, engines_rounds = alone(_measure)
    swapped = min(one for one, _ in engines_rounds)
    what = f"LLM.generate and decoding, {_PROBLEMS} × {_SAMPLES} answers, over a whole sample cell"
    return [
        median_of(what, shares, "×", "≥ 0.95"),
        Figure(
            f"{_CHECKPOINTS} checkpoints, {_FEW} × {_FEW_SAMPLES} answers, from one engine",
            swapped,
            "s",
        ),
        median_of(
            "a new engine for each, over that",
            *([each / one for one, each in engines_rounds], "×", "≥ 5"),
        ),
    ]


def _measure() -> tuple[list[float], list[tuple[float, float]]]:
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eigentrace-bench-")))
        stack.callback(engines.let_go)
        files = SharedFiles(root)
        corpus, checkpoints = _trained(files)

        def cell(checkpoint: Checkpoint, problems: int, samples: int) -> Cell:
            records = PicoRecords("sums", corpus, "heldout_problems", problems)
            sampling = Sampling(samples, 1.0, 1.0, 16, 0, "vllm", 1, 5.0, "float32")
            return Cell(SampleWork(records, 0, problems, sampling), (), checkpoint)

        def sample(asked: Cell) -> None:
            shutil.rmtree(root / "artifacts" / asked.id, ignore_errors=True)
            sample_checkpoint(Task((asked,), "cpu", 1, 32), files, _report)

        last = cell(checkpoints[-1], _PROBLEMS, _SAMPLES)
        sample(last)
        plain = _plain(files, corpus, checkpoints[-1])
        plain()
        rounds = [(took(lambda: sample(last)), took(plain)) for _ in range(_ROUNDS)]
        shares = [bare / ours for ours, bare in rounds]
        few = [cell(checkpoint, _FEW, _FEW_SAMPLES) for checkpoint in checkpoints]

        def one_for_all() -> None:
            engines.let_go()
            for each in few:
                sample(each)

        def one_for_each() -> None:
            for each in few:
                engines.let_go()
                sample(each)

        one_for_all()
        return shares, [(took(one_for_all), took(one_for_each)) for _ in range(_ENGINE_ROUNDS)]


def _trained(files: SharedFiles) -> tuple[str, list[Checkpoint]]:
    """Makes a corpus and trains a small model; returns the corpus and the last checkpoints."""
    study = Study(
        name="sampling", suites=(PicoSuite(models=(PicoModel(name="pico-64", last_step=64),)),)
    )
    cells = make_plan(study).cells
    (made,) = (each for each in cells if isinstance(each.work, CorpusWork))
    (trained,) = (each for each in cells if isinstance(each.work, PretrainWork))
    for each in (made, trained):
        run_task(Task((each,), "cpu", 1, 32), files, _report)
    steps = sorted(
        (path.name for path in (files.artifact(trained.id) or Path()).glob("step*")),
        key=lambda name: int(name.removeprefix("step")),
    )
    assert len(steps) >= _CHECKPOINTS
    sources = [Produced(trained.id, step) for step in steps[-_CHECKPOINTS:]]
    return made.id, [
        Checkpoint("pico", "pico-64", each.folder, None, None, "pretrain", each, each)
        for each in sources
    ]


def _plain(files: SharedFiles, corpus: str, checkpoint: Checkpoint) -> Callable[[], object]:
    """Returns what samples by LLM.generate alone, without verdicts and files."""
    from transformers import AutoTokenizer
    from vllm import SamplingParams

    from workers.vllm_engine import VllmEngine

    (engine,) = engines._held
    assert isinstance(engine, VllmEngine)
    folder = locate(files, checkpoint.source)  # type: ignore[arg-type]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    lines = (locate(files, Produced(corpus, "arithmetic_heldout.jsonl"))).read_text().splitlines()
    ids = [tokenizer(json.loads(line)["problem"])["input_ids"] for line in lines[:_PROBLEMS]]
    settings = [
        SamplingParams(
            n=_SAMPLES,
            seed=place,
            max_tokens=16,
            detokenize=False,
            stop_token_ids=[tokenizer.eos_token_id],
        )
        for place in range(len(ids))
    ]
    prompts = [{"prompt_token_ids": each} for each in ids]

    def plain() -> None:
        with fixed_threads(1):
            for output in engine.llm.generate(prompts, settings, use_tqdm=False):
                tokenizer.batch_decode([sample.token_ids for sample in output.outputs])

    return plain


def _report(event: Event) -> None:
    if isinstance(event, Failed):
        raise RuntimeError(event.message)
