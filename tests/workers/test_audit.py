"""Audits: planted faults are found, all of them and nothing else, from names and hashes alone."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cells import Cell, Checkpoint
from jobs.findings import Finding
from jobs.records import rows_table
from jobs.sources import Folder
from jobs.work import CheckpointWork
from tests.workers.published import Files, checkpoint_of, series_of, sha, sharded, verdicts, whole
from workers.audit import audit, known_rows, refusal
from workers.weight_files import fingerprint


@st.composite
def _clean_series(draw: st.DrawFn) -> dict[int, list[str]]:
    """A series of steps with a log-spaced start or none, and the shards of each, all different."""
    stride = draw(st.integers(1, 5000))
    count = draw(st.integers(0, 30))
    powers = draw(st.integers(0, 12))
    first = stride if powers == 0 else (1 << powers >> 1) // stride * stride + stride
    steps = {0} if draw(st.booleans()) else set()
    steps |= {1 << power for power in range(powers)}
    steps |= {first + stride * place for place in range(count)}
    if draw(st.booleans()):  # The last one is seldom a multiple.
        steps.add(first + stride * count + draw(st.integers(0, stride - 1)))
    shards = draw(st.integers(1, 4))
    return {step: [f"{step}/{shard}" for shard in range(shards)] for step in sorted(steps)}


def _made(shards: Mapping[int, Sequence[object]]) -> list[Checkpoint]:
    return series_of(
        {s: whole(found[0]) if len(found) == 1 else sharded(*found) for s, found in shards.items()}
    )


@given(_clean_series())
def test_a_clean_series_raises_no_alarm(shards: dict[int, list[str]]) -> None:
    checkpoints = _made(shards)
    found = audit(checkpoints, last_steps={"model": max(shards, default=0)})
    assert (found.findings, found.refused) == ((), ())
    assert list(found.checkpoints) == checkpoints


@given(_clean_series(), st.data())
def test_planted_faults_are_found_exactly(
    shards: dict[int, list[str]], data: st.DataObject
) -> None:
    shards = dict(shards) or {0: ["0"]}
    steps = list(shards)
    last = steps[-1]
    expected: dict[object, str] = {}
    left = list(steps)

    def take() -> int:
        return left.pop(data.draw(st.integers(0, len(left) - 1)))

    for fault in data.draw(st.lists(st.sampled_from(["twin", "final", "swap", "final shard"]))):
        # A fault needs steps of its own; the last one is not taken for those in the middle.
        if len(left) < (2 if fault.startswith("final") else 3):
            continue
        if last not in left:
            left.append(last)
        left.remove(last)
        one = take()
        if fault == "final":
            shards[one] = shards[last]
            expected[one] = "duplicate"
        elif fault == "final shard" and len(shards[one]) > 1:
            shards[one] = [shards[last][0], *shards[one][1:]]
            expected[one] = "swapped_shard"
        elif fault == "twin" and left:
            two = take()
            shards[one] = shards[two]
            expected |= {one: "duplicate", two: "duplicate"}
        elif fault == "swap" and left and len(shards[one]) > 1:
            two = take()
            shards[one] = [*shards[one][:-1], shards[two][-1]]
            expected |= {one: "swapped_shard", two: "swapped_shard"}
        left.append(last)
    checkpoints = _made(shards)
    found = audit(checkpoints, last_steps={"model": last})
    shared = sum(
        1 for step in steps if len(shards[step]) > 1 and shards[step][0] == shards[last][0]
    )
    if shared * 2 >= len(steps) and shared > 2 and "swapped_shard" in expected.values():
        return  # So many that their first shard passes for a frozen one.
    assert verdicts(found) == expected
    assert [c.step for c in found.checkpoints] == [s for s in steps if s not in expected]


@pytest.mark.parametrize(
    ("files", "verdict", "said"),
    [
        ({"pytorch_model.bin": 1}, "no_safetensors", "in pytorch_model.bin, not in safetensors"),
        ({}, "incomplete", "no weights in safetensors"),
        ({"model.safetensors": 1, "config.json": None}, "incomplete", "no config.json"),
        (
            {**sharded(1, 2, 3), "model-00002-of-00003.safetensors": None},
            "incomplete",
            "lacks model-00002-of-00003.safetensors",
        ),
        (
            {**sharded(1, 2), "model.safetensors.index.json": None},
            "incomplete",
            "lacks model.safetensors.index.json",
        ),
        (
            {"model-00001-of-99999999999.safetensors": 1},
            "incomplete",
            "lacks model-00000000002-of-99999999999.safetensors",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused(files: Files, verdict: str, said: str) -> None:
    found = audit([checkpoint_of(1, whole("own")), checkpoint_of(2, files)])
    assert verdicts(found) == {2: verdict}
    assert said in found.findings[0].sentence


def test_what_is_damaged_inside_is_refused() -> None:
    one, two = series_of({1: whole(1), 2: whole(2)})
    found = audit([one, two], damage={two.source: "its index is malformed"})
    assert [(f.verdict, f.step, f.sentence) for f in found.findings] == [
        ("incomplete", 2, "its index is malformed")
    ]


def test_pickles_are_taken_where_the_study_allows_them() -> None:
    names = {f"pytorch_model-0000{n}-of-00002.bin": n for n in (1, 2)}
    index = {"pytorch_model.bin.index.json": "x"}
    assert not audit([checkpoint_of(1, {**names, **index})], allow_bin=True).findings
    lacking = audit([checkpoint_of(1, names)], allow_bin=True)
    assert lacking.findings[0].file == "pytorch_model.bin.index.json"
    both = checkpoint_of(1, {**whole(1), "pytorch_model.bin": 2})
    assert not audit([both]).findings
    assert fingerprint(both.source) == fingerprint(checkpoint_of(1, whole(1)).source)


def test_rows_of_an_audit_and_of_a_refusal() -> None:
    checkpoints = series_of({s: whole(s) for s in (1, 2, 3, 5, 6)} | {6: whole(5)})
    found = audit(checkpoints)
    summary, *rows = known_rows(found.work)
    assert (summary["n_checkpoints"], summary["n_refused"], summary["n_findings"]) == (5, 2, 3)
    assert [(row["verdict"], row["step"]) for row in rows] == [
        ("duplicate", 5),
        ("duplicate", 6),
        ("gap", 4),
    ]
    assert rows_table("audit", [summary, *rows]).num_rows == 4
    checkpoint, finding = found.refused[1]
    (row,) = known_rows(refusal(checkpoint, finding))
    assert row["refused"]
    assert row["fingerprint"] == fingerprint(checkpoint.source)
    assert (row["repository"], row["commit"]) == ("org/model", sha(6)[:40])
    assert (row["revision"], row["step"], row["finding"]) == ("step6", 6, finding.sentence)
    assert rows_table("checkpoints", [row]).num_rows == 1


def test_identities_of_what_is_recorded() -> None:
    found = audit(series_of({1: whole("x"), 2: whole("x")}))
    cells = [Cell(CheckpointWork(refusal(*pair))) for pair in found.refused]
    assert len({cell.id for cell in cells}) == 2
    other = audit(series_of({1: whole("x"), 3: whole("x")}))
    assert len({Cell(a.work).id for a in (found, other, audit(()))}) == 3
    renamed = [replace(c, model="renamed") for c in series_of({1: whole("x"), 2: whole("x")})]
    assert Cell(audit(renamed).work).id == Cell(found.work).id


def test_local_folders_are_audited_too() -> None:
    def local(step: int, weights: str) -> Checkpoint:
        files = (("config.json", sha(step)), ("model.safetensors", sha(weights)))
        return replace(checkpoint_of(step, {}), source=Folder(f"/{step}", files))

    found = audit([local(1, "a"), local(2, "b"), local(3, "a")])
    assert verdicts(found) == {1: "duplicate", 3: "duplicate"}
    assert isinstance(found.findings[0], Finding)


def test_an_audit_is_light() -> None:
    code = (
        "import sys, workers.audit; print(sorted({'torch', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
