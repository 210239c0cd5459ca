"""Suites on disk: steps are read off names in their natural order, and damage is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.cells import Checkpoint
from jobs.errors import StudyError
from jobs.identity import FileHashes
from jobs.spec import LocalSuite
from orchestrator.audits import audit_suite
from orchestrator.hub_index import HubIndex
from orchestrator.suites import local_checkpoints, step_of


def _fake(folder: Path, content: str = "", tokenizer: bool = True) -> Path:
    """Writes files that look like a checkpoint; a plan reads nothing but their bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(content or folder.name)
    if tokenizer:
        (folder / "tokenizer.json").write_text("{}")
    return folder


def _checkpoints(tmp_path: Path, **fields: Any) -> tuple[Checkpoint, ...]:
    suite = LocalSuite.model_validate({"kind": "local", "name": "s", **fields})
    return local_checkpoints(suite, FileHashes(tmp_path / "cache"))[0]


def _findings(tmp_path: Path, **fields: Any) -> list[tuple[int | None, str, str]]:
    """Returns step, verdict and sentence of all that an audit refuses; the rest must go on."""
    suite = LocalSuite.model_validate({"kind": "local", "name": "s", **fields})
    found = audit_suite(suite, FileHashes(tmp_path / "cache"), HubIndex(tmp_path / "index"))
    every = _checkpoints(tmp_path, **fields)
    assert len(found.checkpoints) == len(every) - len(found.refused)
    return [(f.step, f.verdict, f.sentence) for _, f in found.refused]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step1000", 1000),
        ("step-1000", 1000),
        ("step_0", 0),
        ("Step7", 7),
        ("checkpoint-1000", 1000),
        ("ckpt_12", 12),
        ("global_step500", 500),
        ("iter_0001000", 1000),
        ("iteration-12", 12),
        ("stage1-step1000-tokens5B", 1000),
        ("stage2-ingredient1-step23852-tokens51B", 23852),
        ("epoch3-step20", 20),
        ("epoch=3-step=20", 20),
        ("pythia-70m-step1000", 1000),
        ("checkpoint-step-9", 9),
        ("7", 7),
        ("0001000", 1000),
        ("final", None),
        ("main", None),
        ("pythia-70m", None),
        ("stage1", None),
        ("tokens5B", None),
        ("v2-instruct", None),
    ],
)
def test_steps_are_read_off_names(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_checkpoints_come_in_the_natural_order_of_their_steps(tmp_path: Path) -> None:
    for step in (10, 2, 0, 100, 1):
        _fake(tmp_path / "models" / f"step{step}")
    (tmp_path / "models" / "logs").mkdir()
    (tmp_path / "models" / "README.md").write_text("no checkpoint")
    found = _checkpoints(tmp_path, path=str(tmp_path / "models"), tokens_per_step=64, stage="sft")
    assert [c.step for c in found] == [0, 1, 2, 10, 100]
    assert [c.tokens for c in found] == [0, 64, 128, 640, 6400]
    assert [c.revision for c in found] == ["step0", "step1", "step2", "step10", "step100"]
    assert {(c.suite, c.model, c.stage) for c in found} == {("s", "s", "sft")}


def test_given_steps_win_over_names(tmp_path: Path) -> None:
    paths = [str(_fake(tmp_path / name)) for name in ("final", "step3")]
    found = _checkpoints(tmp_path, paths=paths, steps=[50, 20], model="m")
    assert [(c.revision, c.step, c.tokens, c.model) for c in found] == [
        ("step3", 20, None, "m"),
        ("final", 50, None, "m"),
    ]


@pytest.mark.parametrize(("name", "step"), [("final", None), ("pythia-70m", None), ("step8", 8)])
def test_one_checkpoint_needs_no_step(tmp_path: Path, name: str, step: int | None) -> None:
    (found,) = _checkpoints(tmp_path, path=str(_fake(tmp_path / name)), tokens_per_step=2)
    assert found.step == step
    assert found.tokens == (None if step is None else 2 * step)


def test_a_checkpoint_is_its_bytes(tmp_path: Path) -> None:
    one = _fake(tmp_path / "one" / "step1", "weights")
    shutil.copytree(one, tmp_path / "two" / "step5")
    (tmp_path / "two" / "step5" / "optimizer.bin").write_text("not read")
    (first,) = _checkpoints(tmp_path, path=str(tmp_path / "one"))
    (second,) = _checkpoints(tmp_path, path=str(tmp_path / "two"))
    assert first.source.identity == second.source.identity
    assert first.tokenizer.identity == second.tokenizer.identity
    assert first.source != second.source


def test_a_tokenizer_of_the_suite_serves_all(tmp_path: Path) -> None:
    for step in (1, 2):
        _fake(tmp_path / "models" / f"step{step}", tokenizer=False)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    found = _checkpoints(tmp_path, path=str(tmp_path / "models"), tokenizer=str(tokenizer))
    assert len({str(c.tokenizer) for c in found}) == 1


def test_an_index_names_the_shards_that_count(tmp_path: Path) -> None:
    folder = _fake(tmp_path / "step1")
    (folder / "model.safetensors").rename(folder / "part1.safetensors")
    index = {"weight_map": {"a": "part1.safetensors", "b": "part2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert _findings(tmp_path, path=str(folder)) == [
        (1, "incomplete", "it lacks part2.safetensors, which its index names")
    ]
    (folder / "part2.safetensors").write_text("two")
    (folder / "stray.safetensors").write_text("not named")
    (found,) = _checkpoints(tmp_path, path=str(folder))
    names = list(found.source.identity["files"])  # type: ignore[call-overload]
    assert names == [
        "config.json",
        "model.safetensors.index.json",
        "part1.safetensors",
        "part2.safetensors",
    ]
    (folder / "model.safetensors").write_text("whole")
    (found,) = _checkpoints(tmp_path, path=str(folder))
    names = list(found.source.identity["files"])  # type: ignore[call-overload]
    assert names == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 3}', "\xff", "[" * 100_000])
def test_a_malformed_index_is_named(tmp_path: Path, index: str) -> None:
    folder = _fake(tmp_path / "step1")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index, encoding="latin-1")
    ((step, verdict, sentence),) = _findings(tmp_path, path=str(folder))
    assert (step, verdict) == (1, "incomplete")
    assert "model.safetensors.index.json is malformed" in sentence


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "x" * 300, "x/" * 3000])
def test_a_path_that_cannot_be_is_named(tmp_path: Path, path: str) -> None:
    for fields in ({"path": path}, {"paths": [path]}):
        with pytest.raises(StudyError, match=r"suite 's': the path .* is of no use") as told:
            _checkpoints(tmp_path, **fields)
        assert told.value.remedy
    with pytest.raises(StudyError, match=r"suite 's': the path .* is of no use"):
        _checkpoints(tmp_path, path=str(_fake(tmp_path / "step1")), tokenizer=path)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    folder = _fake(tmp_path / "step1")
    monkeypatch.setattr("orchestrator.suites._weight_files", refuse)
    with pytest.raises(StudyError, match=r"suite 's' cannot be listed: .*Permission denied"):
        _checkpoints(tmp_path, path=str(folder))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    with pytest.raises(StudyError, match=f"there is no folder {missing}"):
        _checkpoints(tmp_path, path=missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match=r"no config\.json"):
        _checkpoints(tmp_path, path=str(tmp_path / "empty"))
    with pytest.raises(StudyError, match=r"empty holds no transformers checkpoint"):
        _checkpoints(tmp_path, paths=[str(_fake(tmp_path / "step1")), str(tmp_path / "empty")])
    (tmp_path / "step1" / "model.safetensors").rename(tmp_path / "step1" / "pytorch_model.bin")
    ((_, verdict, _),) = _findings(tmp_path, path=str(tmp_path / "step1"))
    assert verdict == "no_safetensors"


@pytest.mark.parametrize("left", [[], ["tokenizer_config.json", "special_tokens_map.json"]])
def test_a_missing_tokenizer_is_named(tmp_path: Path, left: list[str]) -> None:
    folder = _fake(tmp_path / "step1", tokenizer=False)
    for name in left:
        (folder / name).write_text("{}")
    with pytest.raises(StudyError, match="step1 holds no tokenizer"):
        _checkpoints(tmp_path, path=str(folder))


def test_steps_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    for name in ("step1", "final"):
        _fake(tmp_path / "models" / name)
    with pytest.raises(StudyError, match="cannot tell the training step of 'final'"):
        _checkpoints(tmp_path, path=str(tmp_path / "models"))
    with pytest.raises(StudyError, match="in no set order"):
        _checkpoints(tmp_path, path=str(tmp_path / "models"), steps=[1, 2])
    (tmp_path / "models" / "final").rename(tmp_path / "models" / "checkpoint-1")
    with pytest.raises(StudyError, match="two checkpoints at step 1"):
        _checkpoints(tmp_path, path=str(tmp_path / "models"))
    paths = [str(path) for path in (tmp_path / "models").iterdir()]
    with pytest.raises(StudyError, match="1 steps for 2 folders"):
        _checkpoints(tmp_path, paths=paths, steps=[1])


def test_two_steps_with_the_same_weights_are_refused(tmp_path: Path) -> None:
    for step, content in ((0, "equal"), (1, "equal"), (2, "own")):
        _fake(tmp_path / "models" / f"step{step}", content)
    path = str(tmp_path / "models")
    found = _findings(tmp_path, path=path)
    assert [(step, verdict) for step, verdict, _ in found] == [(0, "duplicate"), (1, "duplicate")]
    assert _findings(tmp_path, path=path, measure_duplicates=True) == []


def test_a_damaged_checkpoint_costs_only_itself(tmp_path: Path) -> None:
    for step in range(4):
        _fake(tmp_path / "models" / f"step{step}")
    (tmp_path / "models" / "step1" / "config.json").unlink()
    (tmp_path / "models" / "step2" / "model.safetensors").unlink()
    found = _findings(tmp_path, path=str(tmp_path / "models"))
    assert [(step, verdict) for step, verdict, _ in found] == [(1, "incomplete"), (2, "incomplete")]


@pytest.mark.parametrize("fields", [{}, {"path": "a", "paths": ["b"]}])
def test_path_or_paths(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match="either `path` or `paths`"):
        _checkpoints(tmp_path, **fields)
