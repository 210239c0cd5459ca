"""What checkpoints can do, as cells: shared by tokenizer, known by contents, refused in words."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest

from jobs.capability_work import AblationWork, EvalWork, ForeignIndex, InfinigramWork
from jobs.cells import Cell
from jobs.errors import StudyError
from jobs.questions import HarnessQuestions, HubData
from jobs.study import load_study
from orchestrator.plan import make_plan
from tests.conftest import Texts
from tests.hub.server import LocalHub
from tests.orchestrator.local_study import write_study

ASKING = """
[tasks.sciq]
kind = "harness"
data = ["{records}"]

[tasks.renamed]
kind = "harness"
task = "sciq"
data = ["{records}"]

[evals]
tasks = ["sciq"]

[ablation]
tasks = ["sciq"]
dataset = "words"
ranks = [2, 1, 2]

[memorization]
tasks = ["sciq"]
corpus = {{ kind = "local", paths = ["{text}"] }}

[generate]
new_tokens = 4
"""
CAPABILITIES = {"eval", "ablation", "memorization", "generate"}


@pytest.fixture
def asking(tmp_path: Path, tiny_series: Path, texts: Texts) -> str:
    """A study of three checkpoints that asks everything."""
    records = tmp_path / "sciq.jsonl"
    records.write_text('{"question": "q"}\n')
    path = write_study(tmp_path, tiny_series, texts.txt)
    path.write_text(
        path.read_text().replace('[evals.loss]\ndatasets = ["words"]\n', "")
        + ASKING.format(records=records, text=texts.txt)
    )
    return str(path)


def _cells(study: str, *overrides: str) -> tuple[Cell, ...]:
    return make_plan(load_study(study, overrides)).cells


def test_what_is_looked_up_is_shared_by_the_checkpoints_of_a_tokenizer(asking: str) -> None:
    cells = _cells(asking)
    counts = Counter(cell.work.kind for cell in cells)
    assert {kind: counts[kind] for kind in CAPABILITIES} == dict.fromkeys(CAPABILITIES, 3)
    assert counts["index"] == counts["infinigram"] == 1
    by_id = {cell.id: cell for cell in cells}
    for cell in cells:
        assert set(cell.needs) <= set(by_id)
        if cell.work.kind == "memorization":
            (answers,) = cell.needs
            assert [by_id[need].work.kind for need in by_id[answers].needs] == ["index"]


def test_everything_about_a_checkpoint_is_one_group(asking: str) -> None:
    groups = {cell.group for cell in _cells(asking) if cell.checkpoint is not None}
    assert len(groups) == 3


def test_ranks_are_asked_for_once_and_in_order(asking: str) -> None:
    found = {cell.work.ranks for cell in _cells(asking) if isinstance(cell.work, AblationWork)}
    assert found == {(1, 2)}


def test_labels_name_the_task(asking: str) -> None:
    labels = {cell.label.split(" series/")[0] for cell in _cells(asking)}
    assert {"eval sciq", "ablation sciq", "memorization sciq", "generate"} <= labels
    assert "infinigram sciq series" in labels


def test_a_task_is_known_by_its_records_not_by_its_name(asking: str) -> None:
    evals = [c.id for c in _cells(asking) if c.work.kind == "eval"]
    renamed = [c.id for c in _cells(asking, "evals.tasks=['renamed']") if c.work.kind == "eval"]
    assert renamed == evals
    records = Path(asking).with_name("sciq.jsonl")
    records.write_text(records.read_text() * 2)
    assert {c.id for c in _cells(asking) if c.work.kind == "eval"}.isdisjoint(evals)


def test_records_on_the_hub_are_pinned_to_a_commit(
    asking: str, local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENTRACE_CACHE", str(tmp_path / "cache"))
    commit = local_hub.dataset("allenai/sciq").commit("main", {"test.jsonl": b"{}"})
    asked = {
        cell.work.questions
        for cell in _cells(asking, "tasks.sciq.data=[]")
        if isinstance(cell.work, EvalWork)
    }
    data = HubData("allenai/sciq", commit)
    assert asked == {HarnessQuestions("sciq", "sciq", None, data, 0, None)}


def test_what_is_not_asked_is_not_planned(asking: str) -> None:
    kinds = {c.work.kind for c in _cells(asking, "tasks.unused={kind='harness', data=['no.txt']}")}
    assert kinds >= CAPABILITIES


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evals.tasks=['sciqs']", "task 'sciqs', which it doesn't define .did you mean 'sciq'"),
        ("tasks.sciq.data=['~nobody-of-this-name/x']", "task 'sciq': the path .* is of no use"),
        ("tasks.sciq.data=['" + "x" * 300 + "']", "task 'sciq': the path .* is of no use"),
        ("tasks.sciq.data=['gone.jsonl']", "task 'sciq': there is no file gone.jsonl"),
        ("tasks.sciq={kind='harness', task='boolq'}", "where lm-eval finds the records of 'boolq'"),
        ("tasks.sciq={kind='harness', config='a.yaml'}", "needs `data`"),
        ("tasks.sciq={kind='harness', config='a.yaml', task='b'}", "not both"),
        ("tasks.sciq={kind='harness', config='no.yaml', data=['a']}", "there is no file no.yaml"),
        ("tasks.sciq={kind='pico'}", "reads the pico suite 'pico', which the study lacks"),
        ("memorization.corpus={kind='pico'}", "reads the pico suite 'pico', which the study lacks"),
        ("memorization.corpus.paths=['gone.txt']", "there is no file gone.txt"),
        ("ablation.dataset=none", "dataset 'none', which it doesn't define"),
        ("generate.paper_prompts=false", "without paper_prompts, give `prompts`"),
    ],
)
def test_what_cannot_be_asked_is_named(asking: str, override: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        _cells(asking, override)


def test_a_pico_index_needs_the_pico_tokenizer(asking: str) -> None:
    path = Path(asking)
    path.write_text(path.read_text() + '\n[[suites]]\nkind = "pico"\n')
    with pytest.raises(StudyError, match="suite 'series' has another tokenizer"):
        _cells(asking, "memorization.corpus={kind='pico'}")


@pytest.fixture
def published(tmp_path: Path, tiny_series: Path) -> Path:
    """Something that looks like an index, beside the series' own tokenizer."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("tokenized.0", "table.0", "offset.0"):
        (folder / name).write_bytes(name.encode())
    shutil.copytree(next(tiny_series.glob("step*")), tmp_path / "tokenizer")
    return folder


def _named(folder: Path, tokenizer: Path) -> str:
    return f"memorization.corpus={{kind='published', path='{folder}', tokenizer='{tokenizer}'}}"


def test_a_published_index_is_known_by_its_beginnings(asking: str, published: Path) -> None:
    override = _named(published, published.with_name("tokenizer"))
    cells = _cells(asking, override)
    assert "index" not in {cell.work.kind for cell in cells}
    (work,) = {cell.work for cell in cells if isinstance(cell.work, InfinigramWork)}
    sha256 = hashlib.sha256(b"table.0").hexdigest()
    assert isinstance(work.index, ForeignIndex)
    assert ("table.0", 7, sha256) in work.index.files
    before = {cell.id for cell in cells if cell.work.kind == "memorization"}
    (published / "table.0").write_bytes(b"changed")
    after = {cell.id for cell in _cells(asking, override) if cell.work.kind == "memorization"}
    assert before.isdisjoint(after)


def test_an_index_in_other_tokens_is_refused(asking: str, published: Path) -> None:
    tokenizer = published.with_name("tokenizer")
    vocabulary = tokenizer / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text() + " ")
    with pytest.raises(StudyError, match="suite 'series' has another tokenizer"):
        _cells(asking, _named(published, tokenizer))
    with pytest.raises(StudyError, match="holds no ∞-gram index"):
        _cells(asking, _named(tokenizer, tokenizer))
