"""What the README says exists, parses and runs."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

import jobs
from jobs.columns import KEYS
from jobs.records import TABLES
from jobs.study import load_study, shipped_studies
from orchestrator import run
from orchestrator.options import parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def _commands() -> list[list[str]]:
    lines = [line.split("  #")[0] for block in _blocks("sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.strip()]


def test_commands_parse() -> None:
    after = ["python", "-m", "orchestrator.run"]
    ours = [
        words[start + 3 :]
        for words in _commands()
        for start in range(len(words))
        if words[start : start + 3] == after
    ]
    assert len(ours) >= 8
    for words in ours:
        options = parser().parse_args(words)
        if getattr(options, "study", None) not in (None, "study.toml"):
            load_study(options.study, options.set)


def test_overrides_of_the_started_study_hold(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    assert run.main(["init", str(study)]) == 0
    for words in _commands():
        if "--set" in words and "study.toml" in words:
            chosen = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            assert load_study(str(study), chosen) != load_study(str(study))


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {words[1] for words in _commands() if words[0] == "make"}
    assert targets == {"run", "test", "lint", "bench", "soak"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_table_is_described_and_no_other() -> None:
    described = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    assert sorted(described) == sorted(TABLES)
    assert "`" + ", ".join(column.name for column in KEYS) + "`" in README


def test_named_studies_ship() -> None:
    shipped = (
        "counterfactual",
        "norms",
        "norms-pico",
        "other-families",
        "overtraining",
        "pico",
        "posttrain-pico",
        "robustness",
        "smoke",
        "toy",
        "tracing",
        "tulu",
    )
    assert shipped_studies() == shipped
    for name in shipped_studies():
        assert f"`{name}`" in README


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) >= 4
    for link in links:
        assert (ROOT / link).is_file(), link


def test_a_job_is_submitted_with_files_that_are_there() -> None:
    (submit,) = (words for words in _commands() if words[:3] == ["ray", "job", "submit"])
    environment = (ROOT / submit[submit.index("--runtime-env") + 1]).read_text(encoding="utf-8")
    assert "RAY_JOB_STOP_WAIT_TIME_S" in environment


def test_versions_agree() -> None:
    version = jobs.__version__
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_started_study_names_every_section() -> None:
    template = tomllib.loads((ROOT / "jobs" / "template.toml").read_text(encoding="utf-8"))
    assert set(template) == {
        "name",
        "description",
        "suites",
        "datasets",
        "geometry",
        "head",
        "evals",
    }


@pytest.mark.slow
def test_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert run.main(["full", "--study", "smoke", "--executor", "inline"]) == 0
    capsys.readouterr()
    examples = _blocks("python")
    assert len(examples) == 6
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
        assert capsys.readouterr().out.strip()
