"""The whole command line on a really trained model: stories260K, a Llama of 260,032 parameters."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from orchestrator.run import main
from tests import references

DATA = Path(__file__).parents[3] / "shared" / "data"
MODEL = DATA / "models" / "stories260K"
TEXTS = {
    "tinystories": ("tinystories_sample.txt", "<|endoftext|>"),
    "wikitext": ("wikitext-2_valid.txt", "\n \n"),
    "c4": ("c4_300docs.jsonl", ""),
}
COUNT, LENGTH = 120, 64
MINIMUM = 8

pytestmark = pytest.mark.skipif(
    not MODEL.is_dir(), reason="the trained model of ../shared/data is not beside the repository"
)

STUDY = f"""
name = "stories"
geometry = {{datasets = {list(TEXTS)}, layers = "all"}}
head = {{unigram_dataset = "tinystories"}}
evals = {{loss = {{datasets = {list(TEXTS)}}}}}
suites = [{{kind = "local", name = "stories", model = "stories260K", path = '{MODEL}'}}]
[datasets]
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("stories")
    lines = [
        f"{name} = {{kind = 'local', paths = ['{DATA / 'text' / file}'], sequences = {COUNT}, "
        f"sequence_length = {LENGTH}, minimum_length = {MINIMUM}"
        + (f", separator = {json.dumps(separator)}}}" if separator else "}")
        for name, (file, separator) in TEXTS.items()
    ]
    (folder / "study.toml").write_text(STUDY + "\n".join(lines))
    results = folder / "results"
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    try:
        code = main(
            f"full --executor inline --device cpu --threads 1 --study {folder / 'study.toml'} "
            f"--results {results}".split()
        )
    finally:
        signal.signal(signal.SIGTERM, handler)
        torch.set_num_threads(threads)
    return {"code": code, "results": results}


def _rows(outcome: dict[str, Any], table: str) -> list[dict[str, Any]]:
    files = sorted((outcome["results"] / table).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def _losses(outcome: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["task"]: row for row in _rows(outcome, "evals")}


def test_the_run_succeeds_and_draws_the_report(outcome: dict[str, Any]) -> None:
    assert outcome["code"] == 0
    assert _rows(outcome, "failures") == []
    assert (outcome["results"] / "report.html").stat().st_size > 0


def test_what_the_checkpoint_is(outcome: dict[str, Any]) -> None:
    (row,) = _rows(outcome, "checkpoints")
    assert row["tied"] is True
    assert row["n_parameters"] == 260_032
    assert (row["d"], row["n_layers"], row["vocabulary_size"]) == (64, 5, 512)
    assert row["architecture"] == "LlamaForCausalLM"


def test_the_loss_is_what_the_model_was_trained_to(outcome: dict[str, Any]) -> None:
    # The model's SOURCE.txt: 1.413 on windows of 512 tokens, 1.297 published, 6.25 untrained;
    # short windows from the beginning of a story have less context.
    losses = _losses(outcome)
    assert 1.2 < losses["tinystories"]["value"] < 1.9
    assert losses["tinystories"]["value"] + 0.5 < losses["c4"]["value"] < np.log(512) + 1
    assert losses["tinystories"]["value"] + 0.5 < losses["wikitext"]["value"] < np.log(512) + 1
    for row in losses.values():
        assert 0 < row["stderr"] < 0.1 * row["value"]
        assert COUNT * (MINIMUM - 1) <= row["n"] <= COUNT * (LENGTH - 1)


def test_the_geometry_is_plausible(outcome: dict[str, Any]) -> None:
    rows = _rows(outcome, "geometry")
    assert {(row["dataset"], row["layer"]) for row in rows} == {
        (name, layer) for name in TEXTS for layer in range(-1, 6)
    }
    for row in rows:
        assert 1 < row["rankme"] <= 64
        assert 1 < row["participation_ratio"] <= row["rankme"]
        assert row["alpha_req"] > 0
        assert len(row["spectrum"]) == 64
    (head,) = _rows(outcome, "head")
    assert head["tied"] is True
    assert head["n_tokens"] == len(head["token_norms"]) == 512


def test_rows_equal_an_independent_computation(outcome: dict[str, Any]) -> None:
    file, separator = TEXTS["tinystories"]
    text = (DATA / "text" / file).read_text(encoding="utf-8")
    stories = [story for story in text.split(separator) if story.strip()]
    order = np.random.default_rng(0).permutation(len(stories))
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL).double()
    features: list[Any] = []
    middle: list[Any] = []
    total, count = 0.0, 0
    tokens: list[int] = []
    with torch.no_grad():
        for place in order:
            sequence = tokenizer.encode(stories[place])[:LENGTH]
            if len(sequence) < MINIMUM:
                continue
            ids = torch.tensor([sequence])
            out = model(ids, labels=ids, output_hidden_states=True)
            features.append(out.hidden_states[-1][0, -1].numpy())
            middle.append(out.hidden_states[3][0, -1].numpy())
            total += float(out.loss) * (len(sequence) - 1)
            count += len(sequence) - 1
            tokens += sequence
            if len(features) == COUNT:
                break
    rows = {
        row["layer"]: row for row in _rows(outcome, "geometry") if row["dataset"] == "tinystories"
    }
    for layer, gathered in ((-1, features), (3, middle)):
        values = references.eigenvalues(np.array(gathered))
        assert rows[layer]["rankme"] == pytest.approx(references.rankme(values), rel=1e-5)
        alpha, r2 = references.alpha_req(values, COUNT)
        assert rows[layer]["alpha_req"] == pytest.approx(alpha, rel=1e-4)
        assert rows[layer]["alpha_r2"] == pytest.approx(r2, rel=1e-4)
    head = model.get_output_embeddings().weight.detach().numpy()
    logits = references.rankme_logits(np.array(features), head)
    assert rows[-1]["rankme_logits"] == pytest.approx(logits, rel=1e-5)
    loss = _losses(outcome)["tinystories"]
    assert loss["n"] == count
    assert loss["value"] == pytest.approx(total / count, rel=1e-5)
    (row,) = _rows(outcome, "head")
    norms, cosines = references.norms(head), references.cosines(head)
    assert row["norm_cv"] == pytest.approx(norms.std() / norms.mean(), rel=1e-6)
    assert row["overlap_mean"] == pytest.approx(cosines.mean(), rel=1e-5)
    counts = np.bincount(tokens, minlength=512)
    expected = np.corrcoef(norms, np.log1p(counts))[0, 1]
    assert row["pearson_norm_unigram"] == pytest.approx(expected, rel=1e-5)
