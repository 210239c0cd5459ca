"""The shape of the source tree: what linters don't see."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_FILE = 300
PACKAGES = ("jobs", "orchestrator", "workers", "dashboards")
GENERATED = frozenset({"results", "build", "dist", "__pycache__"})


def source_files() -> list[Path]:
    """Every file of the checkout that is not generated, relative to its root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        files = [Path(name) for name in listing.stdout.split("\0") if name]
    else:  # An unpacked archive.
        files = [path.relative_to(ROOT) for path in ROOT.rglob("*") if not _generated(path)]
    return sorted(path for path in files if (ROOT / path).is_file())


def _generated(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    hidden = parts[0].startswith(".") and parts[0] != ".ci"
    return hidden or any(part in GENERATED or part.endswith(".egg-info") for part in parts)


def python_files(*folders: str) -> list[Path]:
    """Python files, relative to the root; of some folders, or of all."""
    return [
        path
        for path in source_files()
        if path.suffix == ".py" and (not folders or any(path.is_relative_to(f) for f in folders))
    ]


def imported(path: Path) -> Iterator[str]:
    """Top-level names of all imports of a file, those inside functions too."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_package_is_looked_at() -> None:
    seen = {path.parts[0] for path in python_files()}
    assert seen.issuperset({*PACKAGES, "tests"})


def test_walking_finds_what_git_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("jobs/a.py", ".ci/run", ".venv/b.py", "results/c.py", "x.egg-info/d", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    assert [path.as_posix() for path in source_files()] == [".ci/run", "README.md", "jobs/a.py"]
    git = ["git", "-c", "init.defaultBranch=main", "init", "-q"]
    subprocess.run(git, cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text(".venv/\nresults/\n*.egg-info/\n.gitignore\n")
    assert [path.as_posix() for path in source_files()] == [".ci/run", "README.md", "jobs/a.py"]


def test_no_file_is_too_long() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in python_files()}
    assert not {path: n for path, n in lengths.items() if n > LONGEST_FILE}


def test_every_module_says_what_it_is() -> None:
    silent = []
    for path in python_files():
        source = (ROOT / path).read_text()
        if source.strip() and not ast.get_docstring(ast.parse(source)):
            silent.append(path)
    assert not silent


def test_nothing_is_called_utils() -> None:
    assert not [path for path in source_files() if path.stem in {"utils", "util", "helpers"}]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("workers", {"ray", "orchestrator", "dashboards"}),
        ("dashboards", {"torch", "ray", "workers", "orchestrator"}),
        ("jobs", {"torch", "ray", "transformers", "orchestrator", "workers", "dashboards"}),
        *((package, {"pickle", "cloudpickle", "dill", "joblib", "shelve"}) for package in PACKAGES),
    ],
)
def test_imports_that_a_package_must_not_have(folder: str, forbidden: set[str]) -> None:
    found = {path: forbidden.intersection(imported(path)) for path in python_files(folder)}
    assert found
    assert not {path: names for path, names in found.items() if names}


def test_kernels_import_numbers_alone() -> None:
    allowed = {"torch", "numpy", "scipy", "workers", *sys.stdlib_module_names}
    found = {path: set(imported(path)) - allowed for path in python_files("workers/kernels")}
    assert found
    assert not {path: names for path, names in found.items() if names}
