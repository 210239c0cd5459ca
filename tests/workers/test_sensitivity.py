"""Noise on the weights: what it is, that it goes away again, and the loss that it costs."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.capability_spec import Evals, Loss
from jobs.errors import DataError
from jobs.events import Failed, Finished
from jobs.finetune_spec import Sensitivity
from jobs.finetune_work import SensitivityWork
from jobs.records import rows_table
from jobs.spec import Geometry
from tests.conftest import Texts
from tests.workers.measured import COUNT, SEQUENCES, measure_pass, own
from tests.workers.models import ARCHITECTURES, build, silent, token_sequences
from tests.workers.tasks import kinds, prepare, raising, run_cells, small_study
from workers import checkpoint_task, features, sensitivity
from workers.hub import LoadedCheckpoint, load_checkpoint
from workers.measure import Rows
from workers.sensitivity import noise_added, sensitivity_rows
from workers.sequences import TokenSequences

READ = 50
WORK = SensitivityWork("sample", "0" * 64, READ, (0.05, 0.5), (0, 1), "float32")


def rows_of(
    checkpoint: LoadedCheckpoint,
    batch_size: int = 16,
    sequences: TokenSequences = SEQUENCES,
    report: Callable[[int, int], None] = silent,
    **changes: Any,
) -> Rows:
    work = replace(WORK, **changes)
    return sensitivity_rows(work, checkpoint, sequences, batch_size, report)


def bytes_of(model: Any) -> dict[str, bytes]:
    return {
        name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in model.state_dict().items()
    }


def test_rows_have_the_columns_of_their_table(checkpoint: LoadedCheckpoint) -> None:
    rows = rows_of(checkpoint)
    assert rows_table("sensitivity", rows).num_rows == len(rows) == 4
    assert all(set(row) == own("sensitivity") for row in rows)
    assert [(row["scale"], row["seed"]) for row in rows] == [
        (scale, seed) for scale in WORK.scales for seed in WORK.seeds
    ]
    assert {row["sequences_fingerprint"] for row in rows} == {SEQUENCES.fingerprint}


def test_the_increase_is_over_the_loss_of_the_first_sequences(
    checkpoint: LoadedCheckpoint,
) -> None:
    passed = measure_pass(checkpoint, SEQUENCES)
    assert passed.loss_sums is not None
    count = int(passed.loss_counts[:READ].sum())
    before = float(passed.loss_sums[:READ].sum()) / count
    for row in rows_of(checkpoint):
        assert row["n"] == count
        assert row["loss"] - row["loss_increase"] == pytest.approx(before, abs=1e-6)
    whole = rows_of(checkpoint, dataset_sequences=10 * COUNT)
    assert whole[0]["n"] == int(passed.loss_counts.sum())


def test_the_loss_is_that_of_noise_added_by_hand(checkpoint: LoadedCheckpoint) -> None:
    (row,) = rows_of(checkpoint, scales=(0.5,), seeds=(3,))
    model = build(ARCHITECTURES["neox"])  # Any module of the same class, to be filled.
    model = type(model)(checkpoint.model.config)
    model.load_state_dict(checkpoint.model.state_dict())
    place = 0
    with torch.no_grad():
        for parameter in model.eval().parameters():
            if parameter.ndim < 2:
                continue
            z = np.random.default_rng([3, place]).standard_normal(parameter.shape, dtype="float32")
            parameter += 0.5 * parameter.double().square().mean().sqrt() * torch.from_numpy(z)
            place += 1
        total, parts = 0.0, SEQUENCES.ids.split(SEQUENCES.lengths.tolist())[:READ]
        for ids in parts:
            if len(ids) > 1:
                losses = torch.nn.functional.cross_entropy(
                    model(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="sum"
                )
                total += float(losses)
    assert row["loss"] == pytest.approx(total / row["n"], abs=1e-5)


def test_little_noise_costs_little_and_much_more(checkpoint: LoadedCheckpoint) -> None:
    tiny, small, large = rows_of(checkpoint, scales=(1e-6, 1e-3, 2.0), seeds=(0,))
    assert abs(tiny["loss_increase"]) < 1e-5
    assert abs(small["loss_increase"]) < 1e-2
    assert large["loss_increase"] > 0.05


def test_rows_are_the_same_twice_and_weights_as_before(checkpoint: LoadedCheckpoint) -> None:
    before = bytes_of(checkpoint.model)
    rows = rows_of(checkpoint)
    assert bytes_of(checkpoint.model) == before
    assert rows_of(checkpoint) == rows
    assert rows_of(checkpoint, seeds=(1, 0))[0] == rows[1]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_does_not_matter(checkpoint: LoadedCheckpoint, batch_size: int) -> None:
    for one, other in zip(rows_of(checkpoint, batch_size), rows_of(checkpoint), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["loss_increase"] == pytest.approx(other["loss_increase"], abs=1e-6)


def test_weights_are_restored_after_an_error(
    checkpoint: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bytes_of(checkpoint.model)
    given = features.forward_pass

    def failing(model: Any, *args: Any, **options: Any) -> Any:
        if bytes_of(model) != before:
            raise RuntimeError("out of luck")
        return given(model, *args, **options)

    monkeypatch.setattr(sensitivity, "forward_pass", failing)
    with pytest.raises(RuntimeError, match="out of luck"):
        rows_of(checkpoint)
    assert bytes_of(checkpoint.model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_matrices_alone_get_noise_relative_to_their_size(name: str, dtype: torch.dtype) -> None:
    model = build(ARCHITECTURES[name]).to(dtype)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    stored = bytes_of(model)
    with noise_added(model, 0.25, 7):
        for name, weight in model.named_parameters():
            moved = weight.detach().double() - before[name].double()
            if weight.ndim < 2:
                assert not moved.any()
                continue
            relative = float(
                moved.square().mean().sqrt() / before[name].double().square().mean().sqrt()
            )
            assert relative == pytest.approx(0.25, rel=5 / math.sqrt(2 * weight.numel()))
            assert abs(float(moved.mean())) < 5 * float(moved.std()) / math.sqrt(weight.numel())
    assert bytes_of(model) == stored


def test_a_tied_matrix_gets_noise_once() -> None:
    model = build(ARCHITECTURES["llama"], tie_word_embeddings=True)
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head is embedding
    before = head.detach().clone()
    with noise_added(model, 0.1, 0):
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        moved = float(
            (head.detach() - before).square().mean().sqrt() / before.square().mean().sqrt()
        )
        assert moved == pytest.approx(0.1, rel=0.1)
    assert torch.equal(head, before)


def test_scales_share_their_draws() -> None:
    model = build(ARCHITECTURES["neox"])
    head = model.get_output_embeddings().weight
    before, moved = head.detach().clone(), []
    for scale in (0.1, 0.2):
        with noise_added(model, scale, 5):
            moved.append((head - before).detach().clone())
    torch.testing.assert_close(moved[1], 2 * moved[0], rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_no_number_is_null(checkpoint: LoadedCheckpoint) -> None:
    for row in rows_of(checkpoint, scales=(1e38,), seeds=(0,)):
        assert (row["loss"], row["loss_increase"]) == (None, None)


def test_what_cannot_be_measured_is_refused(
    checkpoint: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"single token.* → raise the dataset's"):
        rows_of(checkpoint, sequences=token_sequences([[1], [2]], 12))
    given = features.forward_pass

    def infinite(*args: Any, **options: Any) -> Any:
        found = given(*args, **options)
        return replace(found, loss_sums=torch.full((READ,), math.inf))

    monkeypatch.setattr(sensitivity, "forward_pass", infinite)
    with pytest.raises(DataError, match=r"the loss without noise is inf → try forward\.dtype"):
        rows_of(checkpoint)


def test_progress_is_told_over_all_passes(checkpoint: LoadedCheckpoint) -> None:
    told: list[tuple[int, int]] = []
    rows_of(checkpoint, report=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {5 * READ}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (5 * READ, 5 * READ)


def test_one_load_serves_it_too_and_nothing_else_sees_the_noise(
    tiny_series: Path, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Evals(loss=Loss(datasets=("one",)))
    noise = Sensitivity(dataset="one", dataset_sequences=20, scales=(0.1,), seeds=(0, 1))
    geometry = Geometry(datasets=("one",))
    study = small_study(tiny_series, texts, evals=loss, geometry=geometry, sensitivity=noise)
    (cells, *_) = prepare(study, tmp_path)
    # However they are ordered.
    cells = sorted(cells, key=lambda cell: cell.work.kind != "sensitivity")
    loads: list[Path] = []

    def counted(*args: Any) -> Any:
        loads.append(args[0])
        return load_checkpoint(*args)

    monkeypatch.setattr(checkpoint_task, "load_checkpoint", counted)
    monkeypatch.setattr("workers.hub.load_checkpoint", raising(AssertionError("a second way")))
    events = run_cells(cells, tmp_path)
    assert kinds(events, Failed) == []
    assert len(loads) == 1
    finished = {event.cell_id: dict(event.tables) for event in kinds(events, Finished)}
    assert set(finished) == {cell.id for cell in cells}
    assert list(finished)[-1] == cells[0].id
    assert finished[cells[0].id]["sensitivity"].num_rows == 2
    alone = run_cells([c for c in cells if c.work.kind != "sensitivity"], tmp_path)
    for event in kinds(alone, Finished):
        assert dict(event.tables) == finished[event.cell_id]
