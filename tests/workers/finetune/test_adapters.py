"""Where adapters go, what they start as, and that nothing of them stays."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from jobs.errors import DataError
from jobs.finetune_spec import Method
from tests.workers.finetune.adapting import (
    TOKENS,
    batch,
    loaded,
    logits,
    other,
    recipe,
    tiny,
    train,
)
from tests.workers.models import VOCABULARY
from workers.features import check_logits
from workers.finetune.adapters import adapted, intervened_head
from workers.finetune.targets import adapted_layers
from workers.hub import LoadedCheckpoint

BOTH = ("attention", "head")
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
PROJECTIONS = ("k_proj", "q_proj", "v_proj")


@contextmanager
def unchanged(checkpoint: LoadedCheckpoint) -> Iterator[None]:
    """Asserts that a block leaves a model module for module and byte for byte what it was."""
    model = checkpoint.model
    attributes = set(vars(model))
    modules = [(name, id(module)) for name, module in model.named_modules()]
    parameters = [(n, id(p), p.data_ptr()) for n, p in model.named_parameters()]
    state = copy.deepcopy(model.state_dict())
    random = torch.random.get_rng_state()
    yield
    assert set(vars(model)) == attributes
    assert [(name, id(module)) for name, module in model.named_modules()] == modules
    assert [(n, id(p), p.data_ptr()) for n, p in model.named_parameters()] == parameters
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), random)


@pytest.mark.parametrize("name", ["neox", "gpt2", "llama"])
@pytest.mark.parametrize("method", ["lora", "dora", "norm_group_lora"])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_undone(name: str, method: Method, fails: bool) -> None:
    checkpoint = tiny(name)
    asked = recipe(method=method, intervention="equalize", targets=BOTH, groups=3, dropout=0.1)
    with unchanged(checkpoint):
        try:
            with intervened_head(checkpoint, asked), adapted(checkpoint, asked) as has:
                train(has, 2)
                has.train(True)
                if fails:
                    raise InterruptedError
        except InterruptedError:
            assert fails


@pytest.mark.parametrize("name", ["neox", "gpt2", "llama", "gemma"])
@pytest.mark.parametrize("method", ["lora", "dora", "norm_lr", "norm_group_lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fresh_adapters_change_nothing(name: str, method: Method, dtype: torch.dtype) -> None:
    checkpoint, ids = tiny(name, dtype), batch(0)
    asked = recipe(method=method, targets=BOTH, groups=3, dropout=0.1)
    before = logits(checkpoint.model, ids)
    with adapted(checkpoint, asked) as has:
        assert torch.equal(logits(checkpoint.model, ids), before)
        check_logits(checkpoint.model)
        update = has.head_update()
        assert update is not None
        assert not update.any()
        assert all(p.dtype == torch.float32 and p.requires_grad for p in has.parameters)
        assert {id(p) for p in checkpoint.model.parameters() if p.requires_grad} == {
            id(p) for p in has.parameters
        }
        train(has, 3)
        assert not torch.equal(logits(checkpoint.model, ids), before)
        assert all(bool(torch.isfinite(p).all()) for p in has.parameters)


def test_adapters_depend_on_the_seed_alone() -> None:
    def starts(dtype: torch.dtype = torch.float32, **changes: Any) -> list[torch.Tensor]:
        with adapted(tiny(dtype=dtype), recipe(**changes)) as has:
            return [parameter.detach().clone() for parameter in has.parameters]

    plain, whole, other_seed = starts(), starts(targets=BOTH), starts(seed=6)
    rounded = starts(dtype=torch.bfloat16)
    assert len(whole) == len(plain) + 2
    for ours, same, low, different in zip(plain, whole, rounded, other_seed, strict=False):
        assert torch.equal(ours, same)
        assert torch.equal(ours, low)
        assert not ours.any() or not torch.equal(ours, different)
    # As PEFT draws them: uniform within 1/√d.
    assert 0.9 * 24**-0.5 < max(float(a.abs().max()) for a in plain) <= 24**-0.5


@pytest.mark.parametrize("name", ["neox", "gpt2", "llama"])
def test_only_adapters_drop_out(name: str) -> None:
    checkpoint, ids = tiny(name), batch(0)
    if name == "gpt2":
        assert checkpoint.model.config.resid_pdrop == 0.1
    with adapted(checkpoint, recipe(targets=BOTH, dropout=0.5)) as has:
        train(has, 2)
        assert torch.equal(logits(has.model, ids), logits(has.model, ids))
        has.train(True)
        assert not torch.equal(logits(has.model, ids), logits(has.model, ids))
        on = [m for m in has.model.modules() if isinstance(m, nn.Dropout) and m.training]
        assert len(on) == len(has.modules)
        has.train(False)
        assert torch.equal(logits(has.model, ids), logits(has.model, ids))


@pytest.mark.parametrize(
    ("config", "options", "names"),
    [
        ("GPTNeoXConfig", {**SMALL, "intermediate_size": 40}, {"query_key_value"}),
        ("GPT2Config", {"n_embd": 24, "n_layer": 2, "n_head": 3}, {"c_attn"}),
        ("LlamaConfig", {**SMALL, "intermediate_size": 40}, set(PROJECTIONS)),
        ("Olmo2Config", {**SMALL, "intermediate_size": 40}, set(PROJECTIONS)),
        ("Phi3Config", {**SMALL, "intermediate_size": 40}, {"qkv_proj"}),
        ("BloomConfig", {"hidden_size": 24, "n_layer": 2, "n_head": 3}, {"query_key_value"}),
        ("FalconConfig", SMALL, {"query_key_value"}),
        ("MptConfig", {"d_model": 24, "n_layers": 2, "n_heads": 4}, {"Wqkv"}),
        ("CodeGenConfig", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}, {"qkv_proj"}),
        (
            "OPTConfig",
            {**SMALL, "ffn_dim": 40, "word_embed_proj_dim": 24},
            set(PROJECTIONS),
        ),
        (
            "BertConfig",
            {**SMALL, "intermediate_size": 40, "is_decoder": True},
            {"query", "key", "value"},
        ),
    ],
)
def test_attention_is_found_in_any_architecture(
    config: str, options: dict[str, Any], names: set[str]
) -> None:
    model = other(config, **options)
    found = adapted_layers(model, ("attention",), 2)
    assert {name.rpartition(".")[2] for name in found} == names
    assert len(found) == 2 * len(names)
    assert list(adapted_layers(model, ("head", "attention", "attention"), 2)) == [
        *found,
        next(n for n, m in model.named_modules() if m is model.get_output_embeddings()),
    ]


def test_layers_can_be_named() -> None:
    checkpoint = tiny()
    with adapted(checkpoint, recipe(targets=("dense_4h_to_h", "layers.0.attention.dense"))) as has:
        ends = [name.partition("layers.")[2] for name in has.modules]
        assert ends == ["0.attention.dense", "0.mlp.dense_4h_to_h", "1.mlp.dense_4h_to_h"]
        assert has.head_update() is None
        assert not has.head_untied
    head = next(iter(adapted_layers(checkpoint.model, ("head",), 1)))
    with adapted(checkpoint, recipe(targets=(head,))) as has:
        assert has.head_update() is not None


def test_targets_that_do_not_fit_are_refused() -> None:
    checkpoint = tiny()

    def refused(words: str, **changes: Any) -> None:
        with (
            unchanged(checkpoint),
            pytest.raises(DataError, match=words),
            adapted(checkpoint, recipe(**changes)),
        ):
            pass

    refused("no module 'q_proj'", targets=("q_proj",))
    nearest = r"no module 'query_key' \(did you mean 'query_key_value'\?\).*linear ones.*dense"
    refused(nearest, targets=("attention", "query_key"))
    refused("no module ''", targets=("",))
    refused(r"final_layer_norm is a LayerNorm", targets=("final_layer_norm",))
    refused(r"embed_in is a Embedding", targets=("embed_in",))
    refused(
        r"rank 25 is above 24, the smaller side of gpt_neox.*query_key_value \(72, 24\)", rank=25
    )
    many = {"method": "norm_group_lora", "groups": TOKENS + 1}
    refused(f"tiny: groups must be between 1 and {TOKENS}", targets=BOTH, **many)
    recurrent = loaded(
        other("RwkvConfig", hidden_size=24, num_hidden_layers=2, attention_hidden_size=24)
    )
    with (
        pytest.raises(DataError, match=re.escape("were found in RwkvForCausalLM")) as caught,
        adapted(recurrent, recipe()),
    ):
        pass
    assert "receptance" in caught.value.remedy


def test_zero_rows_are_refused_where_norms_count() -> None:
    checkpoint = tiny()
    head = checkpoint.model.get_output_embeddings().weight
    head.data[[3, 8]] = 0
    for method in ("norm_lr", "inverse_norm_lr"):
        asked = recipe(method=method, targets=BOTH)
        with pytest.raises(DataError, match="token ids 3, 8"), adapted(checkpoint, asked):
            pass
    asked = recipe(method="dora", targets=BOTH)
    with (
        unchanged(checkpoint),
        pytest.raises(DataError, match=r"2 rows of .* are zero, first 3, and DoRA"),
        adapted(checkpoint, asked),
    ):
        pass
    for change in ("equalize", "shuffle", "clip"):
        asked = recipe(intervention=change, clip=0.1 if change == "clip" else None)
        with (
            unchanged(checkpoint),
            pytest.raises(DataError, match=r"tiny: .*token ids 3, 8"),
            intervened_head(checkpoint, asked),
        ):
            pass
    with intervened_head(checkpoint, recipe()), adapted(checkpoint, recipe(targets=BOTH)) as has:
        train(has, 1)
    # Padding rows have no say in rates, groups or interventions.
    checkpoint = tiny()
    checkpoint.model.get_output_embeddings().weight.data[TOKENS:] = 0
    asked = recipe(method="inverse_norm_lr", intervention="equalize", targets=BOTH)
    with intervened_head(checkpoint, asked), adapted(checkpoint, asked) as has:
        train(has, 1)
        assert len(has.head) == TOKENS < VOCABULARY
