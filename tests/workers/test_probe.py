"""A head with adapters is what it multiplies by, and nothing is left of a measurement."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.workers.models import ARCHITECTURES, VOCABULARY, build
from workers.probe import bare_model, measurable, undisturbed


@pytest.mark.parametrize(
    "adapter",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["lm_head"], "use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_the_head_is_measured_with_its_adapters(adapter: dict[str, Any]) -> None:
    model = build(ARCHITECTURES["llama"])
    before = model.get_output_embeddings().weight.detach().clone()
    adapted = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **adapter))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    adapted.train()
    bare = bare_model(adapted)
    with undisturbed(bare):
        found = measurable(bare, range(VOCABULARY))
    assert not found.tied
    assert adapted.training
    whole: Any = adapted
    merged = whole.merge_and_unload().get_output_embeddings().weight
    torch.testing.assert_close(found.head, merged.detach(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found.head, before)


def test_nothing_is_left_of_a_measurement_that_fails() -> None:
    model = build(ARCHITECTURES["neox"]).train()
    model.gpt_neox.layers[0].eval()
    modes = [module.training for module in model.modules()]
    seeds = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]

    def fail() -> None:
        with undisturbed(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            random.random(), np.random.rand(), torch.rand(3)
            raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        fail()
    assert modes == [module.training for module in model.modules()]
    assert torch.is_grad_enabled()
    assert random.getstate() == seeds[0]
    assert np.random.get_state()[1].tolist() == seeds[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), seeds[2])
