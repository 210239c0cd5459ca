"""Pretraining: the schedule of checkpoints, and resuming to the same bytes."""

import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.columns import KEYS
from jobs.errors import DataError, DivergedError
from jobs.pico_spec import PicoModel, PicoSuite
from jobs.records import TABLES
from workers.corpus import train_tokenizer, write_tokenizer
from workers.pretrain import batch, learning_rate, pretrain, target_weights

TINY = PicoModel(
    name="tiny",
    hidden_size=32,
    layers=1,
    heads=1,
    sequence_length=16,
    batch_size=4,
    last_step=40,
    learning_rate=3e-3,
    warmup_steps=8,
)
STEPS = (0, 1, 2, 4, 8, 16, 32, 40)

# The child kills itself while step 20 is done, or when the checkpoint of step 16 is
# published and its state isn't: the two places where a kill loses something.
CHILD = """
import os, signal, sys
from pathlib import Path
from jobs.pico_spec import PicoModel
from workers import pretrain
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
step, save = pretrain._optimizer_step, pretrain._save_state
def slain_step(*arguments):
    kill() if sys.argv[4] == "step" and arguments[-1] == 20 else None
    return step(*arguments)
def slain_save(path, number, *arguments):
    kill() if sys.argv[4] == "state" and number == 16 else None
    save(path, number, *arguments)
pretrain._optimizer_step, pretrain._save_state = slain_step, slain_save
model = PicoModel.model_validate_json(sys.argv[1])
pretrain.pretrain(model, Path(sys.argv[2]), Path(sys.argv[3]), lambda done, last: None)
"""


def _silent(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    texts = [f"{word} follows {word}, and 12+34=46" for word in "abcdefghij"] * 3
    tokenizer = train_tokenizer(texts, 300)
    write_tokenizer(tokenizer, folder / "tokenizer")
    ids = [token for text in texts for token in [*tokenizer.encode(text).ids, 0]]
    save_file({"tokens": np.array(ids, dtype=np.uint16)}, folder / "train.safetensors")
    return folder


@pytest.fixture(scope="module")
def finished(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, object]]]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, pretrain(TINY, corpus, folder, _silent)


def _weights(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_schedule_of_checkpoints() -> None:
    assert TINY.checkpoint_steps == STEPS
    model = PicoModel(last_step=1100)
    assert model.checkpoint_steps == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1100)
    for model in PicoSuite().models:
        assert model.checkpoint_steps[-1] == model.last_step
        assert np.diff(model.checkpoint_steps[10:]).tolist() == [256] * (
            len(model.checkpoint_steps) - 11
        )
        assert model.last_step * model.tokens_per_step <= 3_000_000


def test_checkpoints_appear_at_the_schedule_and_load(
    finished: tuple[Path, list[dict[str, object]]],
) -> None:
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == {f"step{step}" for step in STEPS}
    for step in STEPS:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder / f"step{step}", output_loading_info=True
        )
        assert not loading["missing_keys"]
        assert not loading["unexpected_keys"]
        assert model.dtype == torch.float32
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        assert head.weight.data_ptr() != embedding.weight.data_ptr()
        tokenizer = AutoTokenizer.from_pretrained(folder / f"step{step}")
        assert len(tokenizer) == head.weight.shape[0]
        assert tokenizer.tokenize("12+34=46") == list("12+34=46")


def test_the_first_checkpoint_is_the_standard_initialization(
    finished: tuple[Path, list[dict[str, object]]],
) -> None:
    model = AutoModelForCausalLM.from_pretrained(finished[0] / "step0")
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
        else:
            assert torch.all(parameter == float("norm" in name and "weight" in name)), name


def test_the_log_has_a_row_for_every_step_and_the_loss_falls(
    finished: tuple[Path, list[dict[str, object]]],
) -> None:
    folder, rows = finished
    own = set(TABLES["training_log"].names) - {column.name for column in KEYS}
    assert all(set(row) == own | {"step", "tokens", "stage"} for row in rows)
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert [row["tokens"] for row in rows] == [64 * step for step in range(1, 41)]
    losses = [float(str(row["loss"])) for row in rows]
    vocabulary = AutoModelForCausalLM.from_pretrained(folder / "step0").config.vocab_size
    assert losses[0] == pytest.approx(math.log(vocabulary), abs=0.1)
    assert losses[-1] < losses[0] - 1
    assert [row["learning_rate"] for row in rows] == [
        learning_rate(TINY, step) for step in range(1, 41)
    ]


def test_the_logged_loss_is_that_of_the_checkpoint_before_the_step(
    corpus: Path, finished: tuple[Path, list[dict[str, object]]]
) -> None:
    from safetensors.numpy import load_file

    folder, rows = finished
    sequences = batch(load_file(corpus / "train.safetensors")["tokens"], TINY, 17)
    model = AutoModelForCausalLM.from_pretrained(folder / "step16")
    with torch.no_grad():
        logits = model(sequences[:, :-1]).logits.double()
    chosen = logits.log_softmax(-1).gather(2, sequences[:, 1:, None])
    assert rows[16]["loss"] == pytest.approx(-chosen.mean().item(), rel=1e-5)


@pytest.mark.parametrize("place", ["step", "state"])
def test_a_killed_run_ends_in_the_same_bytes(
    place: str,
    corpus: Path,
    finished: tuple[Path, list[dict[str, object]]],
    tmp_path: Path,
) -> None:
    arguments = [TINY.model_dump_json(), str(corpus), str(tmp_path), place]
    child = subprocess.run([sys.executable, "-c", CHILD, *arguments], check=False)
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "step16" / "model.safetensors").exists()
    assert (tmp_path / "state").is_dir()
    (tmp_path / ".step32.tmp").mkdir()
    assert pretrain(TINY, corpus, tmp_path, _silent) == finished[1]
    assert _weights(tmp_path) == _weights(finished[0])


def test_a_loss_that_is_no_number_is_an_error_that_names_the_step(
    corpus: Path, tmp_path: Path
) -> None:
    wild = TINY.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(DivergedError, match=r"tiny: loss (nan|inf).* at step \d+") as caught:
        pretrain(wild, corpus, tmp_path, _silent)
    assert "learning_rate" in caught.value.remedy


def test_a_stream_without_one_sequence_is_refused(corpus: Path, tmp_path: Path) -> None:
    long = TINY.model_copy(update={"sequence_length": 100_000})
    with pytest.raises(DataError, match="training tokens"):
        pretrain(long, corpus, tmp_path, _silent)


def test_threads_and_random_state_are_left_as_they_were(corpus: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen = []
    try:
        torch.set_num_threads(3)
        state = torch.get_rng_state()
        pretrain(
            TINY.model_copy(update={"last_step": 1}),
            corpus,
            tmp_path,
            lambda done, last: seen.append(torch.get_num_threads()),
        )
        assert set(seen) == {TINY.threads}
        assert torch.get_num_threads() == 3
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)


def test_an_epoch_visits_every_sequence_once_in_an_order_of_its_own() -> None:
    model = TINY.model_copy(update={"batch_size": 5})
    # Eight sequences: epochs end inside batches.
    tokens = np.arange(8 * 16 + 1, dtype=np.uint16)
    rows = torch.cat([batch(tokens, model, step) for step in range(1, 9)])
    assert rows.shape == (40, 17)
    assert torch.equal(rows[:, 1:], rows[:, :-1] + 1)
    epochs = (rows[:, 0] // 16).reshape(5, 8).tolist()
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    other = torch.cat([batch(tokens, model.model_copy(update={"seed": 1}), s) for s in (1, 2)])
    assert not torch.equal(other, rows[:10])


def test_the_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [learning_rate(TINY, step) for step in range(1, TINY.last_step + 1)]
    assert rates[:8] == pytest.approx([TINY.learning_rate * step / 8 for step in range(1, 9)])
    assert rates[-1] == pytest.approx(TINY.learning_rate / 10)
    assert rates[23] == pytest.approx(0.55 * TINY.learning_rate)
    constant = TINY.model_copy(update={"schedule": "constant"})
    assert learning_rate(constant, 40) == TINY.learning_rate


def test_weights_by_inverse_frequency_balance_the_tokens() -> None:
    tokens = np.array([5, 5, 5, 5, 2, 2, 9], dtype=np.uint16)
    balanced = TINY.model_copy(update={"target_weights": "inverse_frequency"})
    weights = target_weights(tokens, balanced, 12)
    assert weights is not None
    mass = {token: float(weights[token]) * (tokens == token).sum() for token in (2, 5, 9)}
    assert set(np.round(list(mass.values()), 5)) == {round(7 / 3, 5)}
    assert float(weights[torch.from_numpy(tokens.astype(np.int64))].mean()) == pytest.approx(1)
    assert float(weights.sum()) == pytest.approx(sum(float(weights[t]) for t in (2, 5, 9)))
    assert target_weights(tokens, TINY, 12) is None


def test_a_model_of_balanced_tokens_is_another_one(
    corpus: Path, finished: tuple[Path, list[dict[str, object]]], tmp_path: Path
) -> None:
    balanced = TINY.model_copy(update={"target_weights": "inverse_frequency", "last_step": 4})
    rows = pretrain(balanced, corpus, tmp_path, _silent)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert _weights(tmp_path / "step0") == _weights(finished[0] / "step0")
    assert _weights(tmp_path / "step4") != _weights(finished[0] / "step4")
