"""Suites on the hub: every revision in its place, no file too many, and not a byte fetched."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cells import Checkpoint
from jobs.errors import StudyError
from jobs.hub_spec import HubSeries, HubSuite
from jobs.sources import HubFolder
from orchestrator import hub_questions
from orchestrator.hub_index import HubIndex
from orchestrator.hub_suites import MissingStep, _matching, hub_checkpoints
from tests.hub.server import LocalHub

TOKENIZER = {"tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}
CLUTTER = {
    ".gitattributes": b"*",
    "README.md": b"#",
    "generation_config.json": b"{}",
    "flax_model.msgpack": b"flax",
    "tf_model.h5": b"tf",
    "pytorch_model.bin": b"bin",
    "onnx/model.onnx": b"onnx",
    "original/model.safetensors": b"original",
    "model.fp16.safetensors": b"half",
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_questions, "FIRST_WAIT", 0.0)


def _files(weights: str = "weights", **more: bytes) -> dict[str, bytes]:
    return {"config.json": b"{}", "model.safetensors": weights.encode(), **TOKENIZER, **more}


def _series(hub: LocalHub, repository: str, names: list[str]) -> None:
    for name in [*names, "main"]:
        hub.model(repository).commit(name, _files(f"{repository} {name}"))


def _found(tmp_path: Path, **fields: Any) -> tuple[tuple[Checkpoint, ...], tuple[MissingStep, ...]]:
    fields = {"kind": "hub", "name": "s", "repository": "org/model", **fields}
    return hub_checkpoints(HubSuite.model_validate(fields), HubIndex(tmp_path / "memory"))


def _paths(folder: object) -> list[str]:
    assert isinstance(folder, HubFolder)
    return [file.path for file in folder.files]


def test_a_pattern_finds_checkpoints_in_the_order_of_their_steps(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    _series(local_hub, "org/model", ["step0", "step10", "step2", "step100", "other", "step2-old"])
    found, missing = _found(tmp_path, pattern="step{step}", tokens_per_step=64)
    assert [c.revision for c in found] == ["step0", "step2", "step10", "step100"]
    assert [c.step for c in found] == [0, 2, 10, 100]
    assert [c.tokens for c in found] == [0, 128, 640, 6400]
    assert {(c.suite, c.model, c.stage) for c in found} == {("s", "s", "pretrain")}
    assert missing == ()
    model = local_hub.model("org/model")
    for checkpoint in found:
        assert isinstance(checkpoint.source, HubFolder)
        assert checkpoint.source.repository == "org/model"
        assert checkpoint.source.commit == model.branches[checkpoint.revision]
    assert local_hub.sent() == 0


def test_rounded_labels_are_looked_up_and_never_counted(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    names = ["stage1-step1000-tokens5B", "stage1-step10000-tokens42B", "stage2-step1000-tokens5B"]
    _series(local_hub, "org/model", names)
    fields = {"pattern": "stage1-step{step}-tokens*", "schedule": [1000, 2000, 10000]}
    found, missing = _found(tmp_path, **fields, tokens_per_step=4_194_304)
    assert [c.revision for c in found] == names[:2]
    assert [c.tokens for c in found] == [4_194_304_000, 41_943_040_000]
    (gap,) = missing
    assert (gap.suite, gap.model, gap.stage, gap.step) == ("s", "s", "pretrain", 2000)
    assert (gap.repository, gap.revision) == ("org/model", "stage1-step2000-tokens*")
    assert {c.tokens for c in _found(tmp_path, **fields)[0]} == {None}


def test_series_are_joined_by_stage_and_step(local_hub: LocalHub, tmp_path: Path) -> None:
    _series(local_hub, "org/model", ["step50", "step60", "stage2-a-step10", "stage2-b-step10"])
    _series(local_hub, "org/early", ["step0", "step7"])
    _series(local_hub, "org/tuned", ["step_20", "step_40"])
    second = {"repository": "org/model", "first_step": 60, "first_token": 600}
    found, missing = _found(
        tmp_path,
        model="m",
        pattern="step{step}",
        tokens_per_step=10,
        more=[
            {"repository": "org/tuned", "pattern": "step_{step}", "stage": "rlvr"},
            {"repository": "org/tuned", "stage": "sft"},
            second | {"pattern": "stage2-a-step{step}", "tokens_per_step": 20},
            second
            | {"pattern": "stage2-b-step{step}", "model": "m-b", "schedule": [10, 20]}
            | {"tokens_per_step": 20},
            {"repository": "org/early", "pattern": "step{step}", "tokens_per_step": 10},
        ],
    )
    assert [(c.model, c.stage, c.revision, c.step, c.tokens) for c in found] == [
        ("m", "pretrain", "early@step0", 0, 0),
        ("m", "pretrain", "early@step7", 7, 70),
        ("m", "pretrain", "step50", 50, 500),
        ("m", "pretrain", "step60", 60, 600),
        ("m", "pretrain", "stage2-a-step10", 70, 800),
        ("m", "sft", "tuned@main", None, None),
        ("m", "rlvr", "tuned@step_20", 20, None),
        ("m", "rlvr", "tuned@step_40", 40, None),
        ("m-b", "pretrain", "stage2-b-step10", 70, 800),
    ]
    assert [(gap.model, gap.step) for gap in missing] == [("m-b", 80)]


def test_revisions_may_be_listed(local_hub: LocalHub, tmp_path: Path) -> None:
    _series(local_hub, "org/model", ["step5", "final"])
    commit = local_hub.model("org/model").branches["final"]
    found, _ = _found(tmp_path, revisions=["step5"], tokens_per_step=2)
    assert [(c.revision, c.step, c.tokens) for c in found] == [("step5", 5, 10)]
    found, _ = _found(tmp_path, revisions=[commit, "step5"], steps=[9, 5])
    assert [(c.revision, c.step) for c in found] == [("step5", 5), (commit, 9)]
    found, _ = _found(tmp_path)
    assert [(c.revision, c.step, c.tokens) for c in found] == [("main", None, None)]


def test_only_what_is_loaded_is_listed(local_hub: LocalHub, tmp_path: Path) -> None:
    model = local_hub.model("org/model")
    model.commit("main", CLUTTER | _files())
    ((whole,), _) = _found(tmp_path)
    assert _paths(whole.source) == ["config.json", "model.safetensors"]
    assert _paths(whole.tokenizer) == ["tokenizer.json", "tokenizer_config.json"]
    shards = {f"model-0000{n}-of-00002.safetensors": b"%d" % n for n in (1, 2)}
    index = {"model.safetensors.index.json": b"{}"}
    model.commit("main", CLUTTER | {"config.json": b"{}"} | shards | index | TOKENIZER)
    ((sharded,), _) = hub_checkpoints(
        HubSuite(name="s", repository="org/model"), HubIndex(tmp_path / "memory", refresh=True)
    )
    assert _paths(sharded.source) == ["config.json", *shards, *index]


def test_pytorch_files_are_listed_where_there_are_no_others(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    model = local_hub.model("org/model")
    shards = {f"pytorch_model-0000{n}-of-00002.bin": b"%d" % n for n in (1, 2)}
    index = {"pytorch_model.bin.index.json": b"{}"}
    model.commit("main", {"config.json": b"{}"} | shards | index | TOKENIZER)
    model.commit("step1", CLUTTER | _files())
    ((alone,), _) = _found(tmp_path)
    assert _paths(alone.source) == ["config.json", *shards, *index]
    ((safe,), _) = _found(tmp_path, allow_bin=True, revisions=["step1"])
    assert _paths(safe.source) == ["config.json", "model.safetensors"]


def test_a_revision_without_weights_is_left_to_the_audit(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    _series(local_hub, "org/model", ["step1", "step2"])
    model = local_hub.model("org/model")
    model.commit("step3", {"README.md": b"#"})
    model.commit("step4", {"config.json": b"{}", "model-00001-of-00002.safetensors": b"x"})
    found, _ = _found(tmp_path, pattern="step{step}")
    assert [_paths(c.source) for c in found[2:]] == [
        [],
        ["config.json", "model-00001-of-00002.safetensors"],
    ]


def test_a_tokenizer_is_the_suites_or_its_own_or_that_of_main(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    model = local_hub.model("org/model")
    main = model.commit("main", _files())
    own = model.commit("step1", _files())
    model.commit("step2", {"config.json": b"{}", "tokenizer_config.json": b"{}"})
    other = local_hub.model("org/tokenizer")
    tagged = other.commit("main", TOKENIZER)
    other.tag("v1", tagged)
    newest = other.commit("main", TOKENIZER | {"merges.txt": b"a b"})

    def places(**fields: Any) -> list[tuple[str, str]]:
        found, _ = _found(tmp_path, pattern="step{step}", **fields)
        assert all(isinstance(c.tokenizer, HubFolder) for c in found)
        return [(c.tokenizer.repository, c.tokenizer.commit) for c in found]  # type: ignore[union-attr]

    assert places() == [("org/model", own), ("org/model", main)]
    assert places(tokenizer="org/tokenizer") == [("org/tokenizer", newest)] * 2
    assert places(tokenizer="org/tokenizer@v1") == [("org/tokenizer", tagged)] * 2
    local_hub.model("org/none").commit("main", {"config.json": b"{}"})
    with pytest.raises(StudyError, match="suite 's': org/none holds no tokenizer at main → give"):
        places(tokenizer="org/none")


def test_equal_files_are_equal_whatever_their_commit(local_hub: LocalHub, tmp_path: Path) -> None:
    model = local_hub.model("org/model")
    model.commit("step1", _files("same"))
    model.commit("step2", _files("same") | {"README.md": b"more"})
    first, second = _found(tmp_path, pattern="step{step}")[0]
    assert first.source != second.source
    assert first.identity == second.identity


def test_a_second_time_nothing_is_asked(local_hub: LocalHub, tmp_path: Path) -> None:
    _series(local_hub, "org/model", ["step1", "step2"])
    fields = {"pattern": "step{step}", "schedule": ["1:3:1"]}
    first = _found(tmp_path, **fields)
    assert [gap.step for gap in first[1]] == [3]
    local_hub.close()
    asked = len(local_hub.requests)
    assert _found(tmp_path, **fields) == first
    assert len(local_hub.requests) == asked


def test_what_came_later_is_found_where_nothing_fits(local_hub: LocalHub, tmp_path: Path) -> None:
    _series(local_hub, "org/model", ["step1"])
    _found(tmp_path)
    _series(local_hub, "org/model", ["step2"])
    found, _ = _found(tmp_path, pattern="step{step}", schedule=[2])
    assert [c.step for c in found] == [2]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"repository": "org/none"}, "knows no model org/none"),
        ({"revisions": ["step3"]}, r"no revision 'step3' \(did you mean 'step\d'\?\)"),
        ({"pattern": "stp{step}"}, r"fits the pattern stp\{step\} → .* are final, main, step1"),
        ({"pattern": "step{step}", "schedule": [7]}, "for any step of the schedule → .*step1"),
        ({"pattern": "*step{step}*"}, "'step1' and 'x-step1' are both step 1 → narrow"),
        ({"revisions": ["final", "step1"]}, "cannot tell the training step of 'final' → give"),
        ({"more": [{"repository": "org/model"}]}, "cannot tell the training step of 'main'"),
        ({"revisions": ["step1", "x-step1"]}, "are both step 1"),
    ],
)
def test_a_mistake_gets_one_clear_line(
    local_hub: LocalHub, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    _series(local_hub, "org/model", ["step1", "step2", "x-step1", "final"])
    with pytest.raises(StudyError, match=said) as caught:
        _found(tmp_path, **fields)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@given(st.integers(0, 10**7), st.text("ab-*.{}[0-9", max_size=6), st.text("xyz", max_size=3))
def test_a_pattern_fits_the_name_made_from_it(step: int, before: str, label: str) -> None:
    if before[-1:].isdigit() or "{step}" in before:
        return
    series = HubSeries(repository="a/b", pattern=f"{before}{{step}}-*")
    name = f"{before.replace('*', label)}{step}-{label}"
    assert _matching(series, [name, f"{name}/x" if not label else "other"])[0] == (name, step)


@pytest.mark.parametrize(
    ("pattern", "name", "step"),
    [
        ("step{step}", "step7", 7),
        ("step{step}", "step007", 7),
        ("step{step}", "step7b", None),
        ("step{step}", "xstep7", None),
        ("*{step}", "a12", 12),
        ("s.{step}", "sx7", None),
    ],
)
def test_a_pattern_fits_whole_names(pattern: str, name: str, step: int | None) -> None:
    found = _matching(HubSeries(repository="a/b", pattern=pattern), [name])
    assert found == ([] if step is None else [(name, step)])
