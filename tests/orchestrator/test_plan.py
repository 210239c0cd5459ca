"""Plans: every cell once and after its needs, with an identity that nobody changes by accident."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cells import Cell
from jobs.errors import StudyError
from jobs.streams import HubStream
from jobs.study import load_study
from jobs.work import SequencesWork
from orchestrator import suites
from orchestrator.hub_index import HubIndex
from orchestrator.plan import Plan, make_plan
from tests.conftest import Texts
from tests.hub.server import LocalHub
from tests.orchestrator.local_study import run_process, write_study

GOLDEN = Path(__file__).with_name("smoke_ids.json")


def _in_order(plan: Plan) -> bool:
    seen: set[str] = set()
    for cell in plan.cells:
        if cell.id in seen or not seen.issuperset(cell.needs):
            return False
        seen.add(cell.id)
    return True


@pytest.fixture
def local(tmp_path: Path, tiny_series: Path, texts: Texts) -> Plan:
    return make_plan(load_study(str(write_study(tmp_path, tiny_series, texts.txt))))


@pytest.mark.parametrize("name", ["pico", "smoke"])
def test_every_cell_comes_once_and_after_its_needs(name: str) -> None:
    plan = make_plan(load_study(name))
    assert len(plan.cells) > 10
    assert _in_order(plan)


def test_a_local_series_is_measured_in_every_way(local: Plan) -> None:
    assert _in_order(local)
    kinds = [cell.work.kind for cell in local.cells]
    assert kinds == ["audit", "sequences", *3 * ["checkpoint", "head", "geometry", "loss"]]
    assert len({cell.group for cell in local.cells}) == 5
    assert [c.checkpoint.step for c in local.cells if c.checkpoint][::4] == [0, 10, 100]


def test_only_keeps_a_stage_and_what_it_needs(local: Plan) -> None:
    geometry = local.only(["geometry"])
    assert _in_order(geometry)
    assert [c.work.kind for c in geometry.cells] == ["sequences", *3 * ["geometry"]]
    assert local.only(["fetch", "geometry", "head", "evals"]).cells == local.cells
    assert local.only([]).cells == ()
    fetched = [c.work.kind for c in make_plan(load_study("smoke")).only(["fetch"]).cells]
    assert fetched[:2] == ["corpus", "pretrain"]
    # Chains make checkpoints, too.
    assert set(fetched[2:]) == {"posttrain", "sequences", "checkpoint"}


def test_what_is_not_asked_for_is_not_planned(
    tmp_path: Path, tiny_series: Path, texts: Texts
) -> None:
    more = f'\n[datasets.unused]\nkind = "local"\npaths = ["{texts.jsonl}"]\nsequences = 9\n'
    path = write_study(tmp_path, tiny_series, texts.txt, more)
    plan = make_plan(load_study(str(path)))
    assert sum(cell.work.kind == "sequences" for cell in plan.cells) == 1


def _ids(*overrides: str, study: str = "smoke") -> list[str]:
    return [cell.id for cell in make_plan(load_study(study, overrides)).cells]


@pytest.mark.parametrize(
    "override",
    [
        "name=another",
        "description=another",
        "forward.batch_size=3",
        "suites.pico.models.pico-32.name=another",
        "evals.loss.datasets=['heldout', 'heldout']",
    ],
)
def test_names_and_resources_change_no_id(override: str) -> None:
    assert _ids(override) == _ids()


def test_the_names_of_suites_and_datasets_change_no_id(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    template = """
    name = "x"
    suites = [{{kind = "pico", name = "{suite}"}}]
    datasets = {{{data} = {{kind = "pico", suite = "{suite}"}}}}
    geometry = {{datasets = ["{data}"]}}
    head = {{unigram_dataset = "{data}"}}
    """
    found = []
    for suite, data in (("pico", "heldout"), ("other", "words")):
        path.write_text(template.format(suite=suite, data=data))
        found.append(_ids(study=str(path)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("suites.pico.corpus.seed=1", {"corpus", "pretrain", "sequences", "checkpoint"}),
        ("suites.pico.models.0.seed=1", {"pretrain", "checkpoint", "head", "geometry", "loss"}),
        ("suites.pico.models.0.threads=2", {"pretrain", "checkpoint"}),
        ("datasets.heldout.sequences=399", {"sequences", "head", "geometry", "loss"}),
        ("forward.dtype=bfloat16", {"geometry", "loss"}),
        ("geometry.layers=last", {"geometry"}),
        ("head.extreme_tokens=3", {"head"}),
        ("head.drop_zero_rows=true", {"head"}),
    ],
)
def test_a_parameter_changes_the_ids_of_what_it_is_about(override: str, changed: set[str]) -> None:
    before = {c.id for c in make_plan(load_study("smoke")).cells}
    after = make_plan(load_study("smoke", [override])).cells
    assert {c.work.kind for c in after if c.id not in before} >= changed


def test_identities_of_the_shipped_study_are_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are found by these ids: a change here makes every finished cell run again.

    After a wanted change (a new parameter or a raised version), write what `found` holds.
    """
    monkeypatch.setattr(suites, "source_fingerprint", lambda: "0" * 64)
    cells = make_plan(load_study("smoke")).cells
    found = {cell.label: cell.id for cell in cells}
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    assert found == golden


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("geometry.datasets=['heldouts']", "dataset 'heldouts', which it doesn't define"),
        ("head.unigram_dataset=none", "dataset 'none', which it doesn't define"),
        ("datasets.heldout.suite=olmo", "pico suite 'olmo', which the study lacks"),
        ("suites.pico.corpus.training_tokens=9007199254740993", "no stable bytes"),
    ],
)
def test_what_does_not_fit_together_is_named(override: str, said: str) -> None:
    study = load_study("smoke", [override])
    with pytest.raises(StudyError, match=said):
        make_plan(study)


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing.txt", "there is no file"), ("words.csv", "is neither .txt nor .jsonl")],
)
def test_a_wrong_file_is_named(tmp_path: Path, tiny_series: Path, name: str, said: str) -> None:
    (tmp_path / "words.csv").write_text("a,b\n")
    study = load_study(str(write_study(tmp_path, tiny_series, tmp_path / name)))
    with pytest.raises(StudyError, match=f"dataset 'words': .*{said}|{said}.*{name}"):
        make_plan(study)


HUB = """
[datasets.web]
kind = "hub"
repository = "org/texts"
sequences = 10
"""


@pytest.fixture
def web(
    local_hub: LocalHub,
    tmp_path: Path,
    tiny_series: Path,
    texts: Texts,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A study that measures on a text of the hub."""
    monkeypatch.setenv("EIGENTRACE_CACHE", str(tmp_path / "cache"))
    local_hub.dataset("org/texts").commit("main", {"train.jsonl": b'{"text": "x"}'})
    path = write_study(tmp_path, tiny_series, texts.txt, HUB)
    path.write_text(path.read_text().replace('datasets = ["words"]', 'datasets = ["web"]'))
    return str(path)


def _streams(study: str, *overrides: str) -> dict[str, HubStream]:
    works = [cell.work for cell in make_plan(load_study(study, overrides)).cells]
    drawn = [work for work in works if isinstance(work, SequencesWork)]
    return {work.dataset: work.text for work in drawn if isinstance(work.text, HubStream)}


def test_a_text_of_the_hub_is_pinned_to_a_commit(local_hub: LocalHub, web: str) -> None:
    first = local_hub.dataset("org/texts").branches["main"]
    assert _streams(web) == {"web": HubStream("org/texts", None, "train", first, "text", 40)}
    ids = _ids(study=web)
    second = local_hub.dataset("org/texts").commit("main", {"train.jsonl": b'{"text": "y"}'})
    assert _streams(web)["web"].commit == first
    make_plan(load_study(web), HubIndex(refresh=True))
    assert _streams(web)["web"].commit == second
    assert set(_ids(study=web)) != set(ids)
    assert _ids(f"datasets.web.revision={first}", study=web) == ids
    assert _ids(f"datasets.web.revision={first}", "datasets.web.documents=40", study=web) == ids
    for name, value in {"config": "c", "split": "s", "field": "f", "documents": "41"}.items():
        override = f"datasets.web.{name}={value}"
        assert _ids(f"datasets.web.revision={first}", override, study=web) != ids
    assert local_hub.sent() == 0


def test_a_second_plan_needs_no_hub(local_hub: LocalHub, web: str) -> None:
    ids = _ids(study=web)
    local_hub.close()
    assert _ids(study=web) == ids


def test_the_hub_is_not_asked_for_what_nothing_reads(local_hub: LocalHub, web: str) -> None:
    unused = [f"{place}.datasets=['words']" for place in ("geometry", "evals.loss")]
    assert _streams(web, *unused) == {}
    assert local_hub.requests == []


def test_files_hashed_for_a_refused_plan_are_remembered(
    tmp_path: Path, tiny_series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENTRACE_CACHE", str(tmp_path / "cache"))
    study = load_study(str(write_study(tmp_path, tiny_series, tmp_path / "missing.txt")))
    with pytest.raises(StudyError):
        make_plan(study)
    known = json.loads((tmp_path / "cache" / "file-hashes.json").read_text())
    weights = tiny_series / "step0" / "model.safetensors"
    assert known[str(weights.resolve())][2] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_changed_weights_change_ids(copy_series: Path, tmp_path: Path, texts: Texts) -> None:
    path = str(write_study(tmp_path, copy_series, texts.txt))
    before = make_plan(load_study(path)).cells
    weights = copy_series / "step10" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    after = make_plan(load_study(path)).cells

    def changed(cells: tuple[Cell, ...], others: tuple[Cell, ...]) -> set[int | None]:
        known = {cell.id for cell in others}
        return {c.checkpoint.step for c in cells if c.id not in known and c.checkpoint}

    assert changed(after, before) == changed(before, after) == {10}


def test_a_refused_checkpoint_is_recorded_and_not_measured(
    copy_series: Path, tmp_path: Path, texts: Texts
) -> None:
    weights = (copy_series / "step0" / "model.safetensors").read_bytes()
    (copy_series / "step10" / "model.safetensors").write_bytes(weights)
    path = write_study(tmp_path, copy_series, texts.txt)
    plan = make_plan(load_study(str(path)))
    assert _in_order(plan)
    kinds = [cell.work.kind for cell in plan.cells]
    assert kinds[:4] == ["audit", "checkpoint", "checkpoint", "sequences"]
    assert {c.checkpoint.step for c in plan.cells if c.checkpoint} == {100}
    # Nothing can fetch or load what has no checkpoint.
    assert all(not cell.needs and cell.checkpoint is None for cell in plan.cells[:3])
    assert plan.cells[1].label == "refused checkpoint series/series@step0"
    ((suite, work),) = plan.audits
    assert (suite, work.checkpoints, work.refused, len(work.findings)) == ("series", 3, 2, 2)
    study = load_study(str(path), ["suites.series.measure_duplicates=true"])
    measured = make_plan(study)
    assert [c.checkpoint.step for c in measured.cells if c.checkpoint][::4] == [0, 10, 100]


def test_a_plan_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    done = run_process(
        *("plan", "--json", "--results", str(tmp_path / "results")),
        before="import time; began = time.perf_counter()",
        after="print(round(time.perf_counter() - began, 2), sorted({'torch', 'ray', "
        "'transformers', 'datasets', 'pandas', 'altair'} & set(sys.modules)), file=sys.stderr)",
    )
    assert done.code == 0
    assert done.last["cells"] > 100
    seconds, loaded = done.err.splitlines()[-1].split(maxsplit=1)
    print(f"plan answers in {seconds} s")
    assert loaded == "[]"
    assert not (tmp_path / "results").exists()
