"""Sizes of models: exact where the model is made here or was recorded, sober guesses elsewhere."""

from pathlib import Path

import pytest
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from jobs.cells import Cell
from jobs.pico_spec import PicoCorpus, PicoModel, PicoSuite
from jobs.sources import Folder
from jobs.work import CorpusWork, PretrainWork
from orchestrator.hardware import GPUS, cpu
from orchestrator.model_sizes import (
    ModelSizes,
    assumed_size,
    pretrained_size,
    size_notes,
    weight_bytes,
)
from orchestrator.suites import pico_cells
from tests.orchestrator.hub_cells import checkpoint


def test_the_size_of_a_pico_model_is_exact() -> None:
    model = PicoModel(hidden_size=32, layers=3, heads=1)
    found = pretrained_size(PretrainWork(model, "corpus"), rows=300)
    network = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=300,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=1,
            intermediate_size=128,
            tie_word_embeddings=False,
        )
    )
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.body == found.parameters - 2 * 300 * 32
    assert (found.weight_bytes, found.known) == (4 * found.parameters, True)


def test_checkpoints_have_the_size_of_the_model_that_is_trained() -> None:
    models = (PicoModel(name="a"), PicoModel(name="b", hidden_size=128, heads=4))
    cells, made = pico_cells(PicoSuite(corpus=PicoCorpus(vocabulary_size=512), models=models))
    sizes = ModelSizes(tuple(cells))
    assert {(c.model, sizes.of(c).width, sizes.of(c).rows) for c in made} == {
        ("a", 64, 512),
        ("b", 128, 512),
    }
    trained = [c for c in cells if isinstance(c.work, PretrainWork)]
    assert [sizes.trained(c.id).width for c in trained] == [64, 128]
    assert isinstance(cells[0].work, CorpusWork)


@pytest.mark.parametrize(
    ("named", "size", "billions", "width"),
    [  # As published: parameters and width of Pythia, OLMo 2 and Llama, bytes of their weights.
        ("EleutherAI/pythia-70m", 0.141e9, 0.070, 512),
        ("EleutherAI/pythia-1.4b-deduped", 2.83e9, 1.41, 2048),
        ("EleutherAI/pythia-12b", 23.7e9, 11.85, 5120),
        ("allenai/OLMo-2-0425-1B", 5.94e9, 1.485, 2048),
        ("allenai/OLMo-2-1124-7B", 29.2e9, 7.3, 4096),
        ("allenai/Llama-3.1-Tulu-3-8B-SFT", 16.06e9, 8.03, 4096),
    ],
)
def test_published_models_are_guessed_well(
    named: str, size: float, billions: float, width: int
) -> None:
    found = assumed_size(int(size), named)
    assert found.parameters == pytest.approx(billions * 1e9, rel=0.02)
    assert found.width == pytest.approx(width, rel=0.25)
    assert not found.known


def test_without_a_name_half_precision_is_assumed() -> None:
    assert assumed_size(548_000_000, "openai-community/gpt2").parameters == 274_000_000
    assert assumed_size(0, "empty").body == 0


def test_a_recorded_checkpoint_tells_its_model() -> None:
    row = {"n_parameters": 10, "d": 2, "n_layers": 1, "head_rows": 3, "tied": True}
    sizes = ModelSizes((), {("suite", "model-1b"): {**row, "weight_bytes": 5}})
    found = sizes.of(checkpoint(1, weights=40))
    assert (found.parameters, found.body, found.weight_bytes, found.known) == (10, 4, 40, True)
    assert not sizes.of(checkpoint(1, model="other")).known


def test_weights_on_disk_are_counted(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    (tmp_path / "config.json").write_bytes(b"{}")
    names = ("config.json", "gone.safetensors", "model.safetensors")
    assert weight_bytes(Folder(str(tmp_path), tuple((n, "0" * 64) for n in names))) == 5


def test_assumed_and_too_large_models_are_named() -> None:
    sizes = ModelSizes(())
    large = [checkpoint(step, 14_000_000_000, model="large-7b") for step in range(3)]
    assert list(size_notes(large, sizes, GPUS["t4"], "float32")) == [
        "parameters assumed from the bytes of the weights: large-7b 7 billion",
        "large-7b takes 28.0 GB in float32, more than the 16.0 GB of a t4",
    ]
    assert len(list(size_notes(large, sizes, GPUS["t4"], "bfloat16"))) == 1
    assert len(list(size_notes(large, sizes, cpu(1), "float32"))) == 1
    many = [checkpoint(0, model=f"m{number}") for number in range(9)]
    assert next(iter(size_notes(many, sizes, cpu(1), "float32"))).endswith("and 3 more")


def test_every_cell_of_a_plan_may_be_given() -> None:
    assert ModelSizes((Cell(CorpusWork(PicoCorpus(), "source")),)).of(checkpoint(1)).width > 0
