"""Whose weights are whose, where several checkpoints share them."""

from dataclasses import replace

import pytest

from jobs.sources import HubFolder
from tests.workers.published import checkpoint_of, series_of, sharded, verdicts, whole
from workers.audit import audit


def test_final_weights_under_many_steps_belong_to_the_final_step() -> None:
    contents = {step: whole("final") for step in range(1000, 9000, 1000)}
    contents[3000] = whole("own")
    found = audit(series_of(contents), last_steps={"model": 8000})
    assert [c.step for c in found.checkpoints] == [3000, 8000]
    assert set(verdicts(found).values()) == {"duplicate"}
    first = found.findings[0]
    assert (first.step, first.other_step, first.other_revision) == (1000, 8000, "step8000")
    assert first.sentence == "it serves the weights of step 8000"


def test_the_last_step_of_a_cut_is_not_trusted() -> None:
    contents = {step: whole("final") for step in (1000, 2000, 3000)}
    # Nothing says that the last one listed is the last one there is; all three may be wrong.
    for last_steps in ({}, {"model": 143000}):
        assert len(audit(series_of(contents), last_steps=last_steps).refused) == 3


@pytest.mark.parametrize("steps", [(0, 1), (50, 60)])
def test_both_of_a_pair_are_refused(steps: tuple[int, int]) -> None:
    contents = {step: whole(step) for step in (0, 1, 50, 60, 70)} | {steps[1]: whole(steps[0])}
    found = audit(series_of(contents), last_steps={"model": 70})
    assert verdicts(found) == dict.fromkeys(steps, "duplicate")
    assert "which step they belong to cannot be told" in found.findings[0].sentence


def test_twins_that_are_wanted_are_measured_under_an_alias() -> None:
    checkpoints = series_of({0: whole("same"), 1: whole("same"), 2: whole("own")})
    found = audit(checkpoints, measure_duplicates=True)
    assert not found.refused
    assert [c.alias for c in found.checkpoints] == ["step0", "step1", None]
    assert len({c.digest for c in found.checkpoints}) == 3
    assert [(f.verdict, f.refused) for f in found.findings] == [("duplicate", False)] * 2
    # The one that is trusted is itself, with or without its followers.
    trusted = audit(checkpoints[:2], last_steps={"model": 1}, measure_duplicates=True)
    assert [c.alias for c in trusted.checkpoints] == ["step0", None]


def test_one_commit_under_two_names_is_told_and_measured() -> None:
    final = checkpoint_of(9, whole("final"))
    main = replace(final, revision="main", step=None)
    found = audit([main, checkpoint_of(1, whole("own")), final], last_steps={"model": 9})
    assert not found.refused
    (told,) = found.findings
    assert (told.revision, told.other_revision, told.refused) == ("main", "step9", False)
    early = replace(main, source=checkpoint_of(1, whole("own")).source)
    found = audit([early, checkpoint_of(1, whole("own")), final])
    assert verdicts(found) == {1: "duplicate"}
    assert found.findings[0].other_revision == "main"


def test_stages_are_told_apart_and_models_are_not_compared() -> None:
    sft = checkpoint_of(None, whole("x"), revision="main", stage="sft", repository="org/sft")
    dpo = checkpoint_of(None, whole("x"), revision="dpo@main", stage="dpo", repository="org/dpo")
    assert set(verdicts(audit([sft, dpo])).values()) == {"duplicate"}
    assert not audit([sft, replace(dpo, model="another")]).findings


def test_the_final_first_shard_under_other_steps() -> None:
    contents = {s: sharded(f"a{s}", f"b{s}", f"c{s}") for s in range(1000, 11000, 1000)}
    for step in (5000, 8000):
        contents[step] = sharded("a10000", f"b{step}", f"c{step}")
    found = audit(series_of(contents), last_steps={"model": 10000})
    assert verdicts(found) == {5000: "swapped_shard", 8000: "swapped_shard"}
    assert found.findings[0].file == "model-00001-of-00003.safetensors"
    assert found.findings[0].other_step == 10000
    measured = audit(series_of(contents), last_steps={"model": 10000}, measure_duplicates=True)
    assert verdicts(measured) == verdicts(found)


def test_a_shard_of_a_neighbour_is_not_taken_for_a_frozen_one() -> None:
    contents = {s: sharded(f"a{s}", f"b{s}") for s in range(1, 7)}
    contents[3] = sharded("a3", "b4")
    assert verdicts(audit(series_of(contents))) == {3: "swapped_shard", 4: "swapped_shard"}


def test_what_is_frozen_or_tiny_is_no_swap() -> None:
    frozen = {s: sharded("embeddings", f"b{s}") for s in range(1, 7)}
    assert not audit(series_of(frozen)).findings
    thawed = {s: sharded("embeddings" if s < 5 else f"a{s}", f"b{s}") for s in range(1, 7)}
    assert not audit(series_of(thawed)).findings
    twice = {s: sharded(f"a{s}", "rotary") for s in (1, 2)}
    found = audit(series_of(twice))
    assert len(found.refused) == 2
    small = []
    for checkpoint in series_of(twice):
        assert isinstance(checkpoint.source, HubFolder)
        files = tuple(
            replace(file, size=100) if "00002-of" in file.path else file
            for file in checkpoint.source.files
        )
        small.append(replace(checkpoint, source=replace(checkpoint.source, files=files)))
    assert not audit(small).findings


PYTHIA = [0, *(2**power for power in range(10)), *range(1000, 144000, 1000)]


def test_the_known_faults_of_public_series_are_found_and_nothing_else() -> None:
    """Those of the issues EleutherAI/pythia#205, #206, #83 and #198, and allenai/OLMo#915."""
    wrong = PYTHIA[40:126]
    final = {step: whole("143000" if step in wrong else f"{step}") for step in PYTHIA}
    found = audit(series_of(final), last_steps={"model": 143000})
    assert verdicts(found) == dict.fromkeys(wrong, "duplicate")
    assert (len(wrong), len(found.checkpoints), len(PYTHIA)) == (86, 68, 154)

    shards = {s: [f"{s}/{n}" for n in range(3)] for s in PYTHIA}
    for step in (50000, 58000):
        shards[step][0] = shards[143000][0]
    found = audit(
        series_of({s: sharded(*c) for s, c in shards.items()}), last_steps={"model": 143000}
    )
    assert verdicts(found) == {50000: "swapped_shard", 58000: "swapped_shard"}

    for pair in ((0, 1), (0, 2)):
        twins = {step: whole("0" if step in pair else f"{step}") for step in PYTHIA}
        found = audit(series_of(twins), last_steps={"model": 143000})
        assert verdicts(found) == dict.fromkeys(pair, "duplicate")

    olmo = {step: whole(f"{step}") for step in range(1000, 929000, 1000)}
    same = (101000, 175000, 300000)
    found = audit(
        series_of(olmo | dict.fromkeys(same, whole("same"))), last_steps={"model": 928000}
    )
    assert verdicts(found) == dict.fromkeys(same, "duplicate")
    assert len(found.findings) == len(found.refused)
