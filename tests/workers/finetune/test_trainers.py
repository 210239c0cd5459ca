"""What the trainers are set to, where a plain loop can tell."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.workers.finetune.staging import RECORDS, records_in, run, stage_work
from workers.hub import load_tokenizer


@pytest.mark.parametrize("normalized", [False, True])
def test_preferences_are_compared_token_by_token_where_asked(
    tiny_series: Path, tmp_path: Path, normalized: bool
) -> None:
    """All pairs are in one batch, so that their order plays no role."""
    first = tiny_series / "step100"
    records = RECORDS["dpo"][:8]
    work = stage_work(
        records_in(tmp_path / "data", records),
        "dpo",
        steps=2,
        save_steps=(1,),
        beta=0.5,
        length_normalized=normalized,
        learning_rate=1e-2,
    )
    rows = run(work, first, tmp_path / "made")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    words = load_tokenizer(first)
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(folder)
        for folder in (tmp_path / "made" / "step1", first)
    )
    losses = []
    for record in records:
        scores = []
        for answer in (record["chosen"], record["rejected"]):
            asked, said = (
                words(text)["input_ids"] for text in (record["prompt"], answer + words.eos_token)
            )
            with torch.no_grad():
                gained, before = (
                    model(torch.tensor([asked + said]))
                    .logits[0, len(asked) - 1 : -1]
                    .log_softmax(-1)
                    .gather(1, torch.tensor(said)[:, None])
                    .sum()
                    for model in (policy, reference)
                )
            scores.append((gained - before) / (len(said) if normalized else 1))
        losses.append(-torch.nn.functional.logsigmoid(0.5 * (scores[0] - scores[1])))
    expected = float(torch.stack(losses).mean())
    assert expected != pytest.approx(math.log(2), abs=1e-3)
    assert rows[1]["loss"] == pytest.approx(expected, rel=1e-4)
