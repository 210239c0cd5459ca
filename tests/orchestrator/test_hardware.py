"""Hardware: GPUs are known by what drivers and Ray call them, and machines by what they hold."""

from pathlib import Path

import pytest

from jobs.errors import UsageError
from orchestrator import hardware
from orchestrator.hardware import (
    GPUS,
    cpu,
    device_key,
    gpu_machines,
    gpu_named,
    run_machines,
    this_machine,
)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("A100-80G", "a100-80gb"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        *((name, name) for name in GPUS),
    ],
)
def test_gpus_are_known_by_their_names(said: str, name: str) -> None:
    assert gpu_named(said) is GPUS[name]
    assert device_key(said) == name


@pytest.mark.parametrize("said", ["", "cpu x86_64", "NVIDIA GeForce RTX 4090", "NVIDIA GH200"])
def test_other_devices_keep_their_own_name(said: str) -> None:
    assert gpu_named(said) is None
    assert device_key(said) == said


def test_half_precision_is_fast_only_where_the_hardware_has_it() -> None:
    for name, gpu in GPUS.items():
        assert gpu.peak("float16") > gpu.peak("float32") > gpu.float64
        has_bfloat16 = name not in ("t4", "v100")
        assert gpu.peak("bfloat16") == gpu.peak("float16" if has_bfloat16 else "float32")
    assert cpu(2).peak("bfloat16") == cpu(2).peak("float32") == 2 * cpu(1).peak("float32")


def test_gpus_share_nodes_as_usual() -> None:
    assert [gpu_machines(n, "h100").nodes for n in (1, 8, 9, 64)] == [1, 1, 2, 8]
    machines = gpu_machines(20, "l4")
    assert (machines.gpus, machines.workers_per_node) == (20, 7)
    assert machines.label == "20 l4 on 3 nodes"
    with pytest.raises(UsageError, match=r"'h10'.*name one of t4"):
        gpu_machines(1, "h10")


def test_a_machine_without_gpus_shares_out_its_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "_DRIVER", tmp_path / "missing")
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    machines = this_machine()
    assert (machines.workers, machines.threads, machines.gpus) == (4, 4, 0)
    assert machines.label == "4 workers of 4 threads"
    assert this_machine(workers=2).workers == 2
    assert this_machine(threads=16).label == "1 worker of 16 threads"
    assert this_machine(threads=32).workers == 1


def test_a_machine_tells_its_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "_DRIVER", tmp_path)
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    assert this_machine().label == "2 h200"
    assert this_machine(workers=1).gpus == 1


def test_what_a_run_has_found() -> None:
    found = run_machines("cpu", 3, 2, nodes=5, gpu="", startup_seconds=0.0)
    assert (found.label, found.gpus) == ("3 workers of 2 threads on 3 nodes", 0)
    named = run_machines("cuda", 2, 1, nodes=1, gpu="NVIDIA L4", startup_seconds=0.0)
    assert named.processor is GPUS["l4"]
    other = run_machines("cuda", 2, 1, nodes=1, gpu="NVIDIA RTX 4090", startup_seconds=0.0)
    assert other.processor.name == "NVIDIA RTX 4090"
    assert other.processor.float32 == GPUS["h100"].float32
    assert run_machines("cuda", 1, 1, nodes=1, gpu="", startup_seconds=0.0).label == "1 h100"
