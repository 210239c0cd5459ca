"""What must be equal wherever cells of one run are computed: our own code, and what makes numbers.

A build's mark (`+cpu`, `+cu130`) is no part of a version: drivers often have no GPU.
"""

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import jobs
from jobs.errors import UsageError

_PACKAGES = ("jobs", "orchestrator", "workers", "dashboards")
_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "pyarrow", "lm_eval")


def versions() -> dict[str, str]:
    """Returns the version of each thing that must be equal, in this process."""
    return {
        "eigentrace": jobs.__version__,
        "eigentrace's source": _source_hash(Path(__file__).parents[1])[:16],
        **{name: metadata.version(name).partition("+")[0] for name in _LIBRARIES},
    }


def check_versions(here: Mapping[str, str], there: Mapping[str, str], node: str) -> None:
    """Compares the versions of this process with those of a worker.

    Raises:
        UsageError: One differs.
    """
    for name, ours in here.items():
        theirs = there.get(name, "missing")
        if theirs != ours:
            raise UsageError(
                f"node {node} has {name} {theirs}, this command has {ours}",
                "install the same on every node, or submit with `ray job submit --working-dir .`; "
                "if files were edited while it ran, run the same command again",
            )


def _source_hash(root: Path) -> str:
    """Returns the SHA-256 over the paths and contents of our Python files."""
    total = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()
