"""What processors can do at most, and which of them a run has. Nothing is asked of a driver.

Peaks are what makers promise; how much of them is reached is assumed where it is used.
"""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from jobs.errors import UsageError
from jobs.frozen import DType

GPUS_PER_NODE = 8
"""GPUs that share a node, where nobody tells: as in the usual servers."""

USUAL_GPU = "h100"
"""The GPU that is assumed where nobody names it."""

STARTUP_SECONDS = 10.0
"""What passes until Ray's workers have imported what they need."""

_WORKERS_PER_NODE = 4
# A server's core at 3 GHz with two units of AVX-512 would give 192 in float32, one with AVX2 96.
_CORE_FLOPS = 100e9
_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Processor:
    """What a worker computes on: a GPU, or some threads of a CPU.

    Attributes:
        name: Its name in `GPUS`, or as in the provenance of rows: `cpu` and the architecture.
        float32: Peak in FLOP/s, without TF32, which isn't used.
        float16: Peak of matrix products, without sparsity.
        bfloat16: Likewise; where the hardware lacks it, that of float32.
        float64: Peak without tensor cores.
        memory: Bytes; None for a CPU, whose workers share them.
    """

    name: str
    float32: float
    float16: float
    bfloat16: float
    float64: float
    memory: int | None = None

    def peak(self, dtype: DType) -> float:
        """Returns the peak of matrix products in a precision, in FLOP/s."""
        return {"float32": self.float32, "float16": self.float16, "bfloat16": self.bfloat16}[dtype]


def _gpu(
    name: str, float32: float, float16: float, float64: float, memory: int, *, bfloat16: bool = True
) -> Processor:
    """Returns a GPU of a data sheet: TFLOP/s and GB."""
    fast, slow = float16 * 1e12, float32 * 1e12
    return Processor(
        name, slow, fast, fast if bfloat16 else slow, float64 * 1e12, memory * 1_000_000_000
    )


# float32, dense float16/bfloat16 and float64 in TFLOP/s, and memory in GB, of the SXM form where
# there are several. Source: NVIDIA's product data sheets "Tesla T4", "V100", "A10", "A10G",
# "A100", "L4", "L40S", "H100", "H200" and "HGX B200", and for the float64 of T4, A10, A10G, L4
# and L40S the architecture white papers: 1/32 of float32 on Turing, 1/64 on GA102 and Ada. Data
# sheets of Ada, Hopper and Blackwell state tensor peaks with sparsity, which is half of them here.
GPUS: Mapping[str, Processor] = MappingProxyType(
    {
        gpu.name: gpu
        for gpu in (
            _gpu("t4", 8.1, 65, 0.25, 16, bfloat16=False),
            _gpu("v100", 15.7, 125, 7.8, 16, bfloat16=False),
            _gpu("a10", 31.2, 125, 0.49, 24),
            _gpu("a10g", 35, 70, 0.55, 24),
            _gpu("l4", 30.3, 121, 0.47, 24),
            _gpu("l40s", 91.6, 362, 1.43, 48),
            _gpu("a100-40gb", 19.5, 312, 9.7, 40),
            _gpu("a100-80gb", 19.5, 312, 9.7, 80),
            _gpu("h100", 67, 989, 34, 80),
            _gpu("h200", 67, 989, 34, 141),
            _gpu("b200", 75, 2250, 37, 180),
        )
    }
)
"""GPUs by name."""


def gpu_named(name: str) -> Processor | None:
    """Returns the GPU that a driver or Ray means, as in `NVIDIA A100-SXM4-80GB`, if it is known."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    if "a100" in words:
        return GPUS["a100-80gb" if {"80gb", "80g"} & set(words) else "a100-40gb"]
    return next((GPUS[word] for word in words if word in GPUS), None)


def device_key(device: str) -> str:
    """Returns by what name rates of a device are known: a GPU's own, else as the rows have it."""
    found = gpu_named(device)
    return device if found is None else found.name


def cpu(threads: int) -> Processor:
    """Returns what some threads of a usual server's CPU can do; bfloat16 gains nothing there."""
    peak = threads * _CORE_FLOPS
    return Processor(f"cpu {platform.machine()}", peak, peak, peak, peak / 2)


@dataclass(frozen=True)
class Machines:
    """What a run has to compute on.

    Attributes:
        processor: What each worker computes on.
        workers: How many workers there are.
        nodes: How many nodes share them; each has a line to the hub, and a cache.
        threads: CPU threads of a worker.
        startup_seconds: What passes before the first worker begins.
        gpus_per_worker: GPUs that a worker holds, where it computes on one.
    """

    processor: Processor
    workers: int
    nodes: int = 1
    threads: int = 1
    startup_seconds: float = STARTUP_SECONDS
    gpus_per_worker: int = 1

    @property
    def gpus(self) -> int:
        """How many GPUs are held."""
        return self.workers * self.gpus_per_worker if self.processor.memory is not None else 0

    @property
    def workers_per_node(self) -> int:
        """How many workers share a node's cache."""
        return -(-self.workers // self.nodes)

    @property
    def label(self) -> str:
        """Name for people."""
        where = "" if self.nodes == 1 else f" on {self.nodes} nodes"
        if self.gpus:
            return f"{self.gpus} {self.processor.name}{where}"
        plural = "" if self.workers == 1 else "s"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.workers} worker{plural} of {threads}{where}"


def gpu_machines(count: int, kind: str) -> Machines:
    """Returns GPUs of a kind, as many to a node as usual.

    Raises:
        UsageError: Nothing is known of that kind.
    """
    if kind not in GPUS:
        raise UsageError(f"nothing is known of the GPU '{kind}'", f"name one of {', '.join(GPUS)}")
    return Machines(GPUS[kind], count, -(-count // GPUS_PER_NODE))


def run_machines(
    device: str,
    workers: int,
    threads: int,
    *,
    nodes: int,
    gpu: str,
    startup_seconds: float,
    gpus_per_worker: int = 1,
) -> Machines:
    """Returns what a run has found.

    Args:
        device: Device of its tasks: `cpu`, `cuda` or `mps`.
        workers: How many workers there shall be.
        threads: CPU threads of each.
        nodes: How many nodes share them.
        gpu: What the GPUs are called; those of another name count as the usual one.
        startup_seconds: What passes before the first worker begins.
        gpus_per_worker: GPUs that each worker holds.
    """
    processor = cpu(threads)
    if device == "cuda":
        processor = gpu_named(gpu) or replace(GPUS[USUAL_GPU], name=gpu or USUAL_GPU)
    nodes = min(nodes, workers)
    return Machines(processor, workers, nodes, threads, startup_seconds, gpus_per_worker)


def this_machine(workers: int | None = None, threads: int | None = None) -> Machines:
    """Returns what this machine has: its GPUs where the driver names known ones, else its cores.

    Args:
        workers: Most workers.
        threads: CPU threads of a worker.
    """
    found = sorted(path.parent.name for path in _DRIVER.glob("*/information"))
    if found:
        text = (_DRIVER / found[0] / "information").read_text()
        gpu = gpu_named(text.partition("\n")[0])
        if gpu is not None:
            return Machines(gpu, min(len(found), workers or len(found)), threads=threads or 1)
    cores = os.cpu_count() or 1
    threads = threads or threads_per_worker(cores)
    fitting = max(1, cores // threads)
    return Machines(cpu(threads), min(fitting, workers or fitting), threads=threads)


def threads_per_worker(cores: int) -> int:
    """Returns the CPU threads of a worker, so that a node's workers don't fight over its cores.

    Both executors follow it, since the last bits of a matrix product depend on the thread count.
    """
    return max(1, cores // _WORKERS_PER_NODE)
