"""What an autoscaler could start: from its file, or as the user tells."""

import pytest

from jobs.errors import UsageError
from orchestrator import node_types
from orchestrator.node_types import GPU_KIND, NodeType, gpu_kinds, told_gpus
from orchestrator.placement import GpuKind

FILE = {
    "max_workers": 10,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 8, "GPU": 1}},
        "large": {"resources": {"CPU": 96, "GPU": 8, f"{GPU_KIND}A100": 1}, "max_workers": 2},
        "small": {"resources": {"CPU": 4, "GPU": 1}},
    },
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8", NodeType({"GPU": 8.0}, 1)),
        ("8xA100", NodeType({"GPU": 8.0, f"{GPU_KIND}A100": 1.0}, 1)),
        ("2x4xA10G", NodeType({"GPU": 4.0, f"{GPU_KIND}A10G": 1.0}, 2)),
        ("3x2", NodeType({"GPU": 2.0}, 3)),
    ],
)
def test_what_the_user_tells(text: str, found: NodeType) -> None:
    assert told_gpus(text) == [found]


@pytest.mark.parametrize("text", ["", "0", "x", "8x", "-8", "A100", "8xA100x2", "1.5"])
def test_what_can_not_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="--scale-to"):
        told_gpus(text)
    with pytest.raises(UsageError, match="nothing is known of the GPU 'Z9'"):
        told_gpus("8xZ9")


def test_a_file_tells_of_all_but_the_head() -> None:
    large, small = node_types._node_types(FILE)
    assert (large.gpu, large.amount("GPU"), large.count) == ("A100", 8, 2)
    assert (small.gpu, small.amount("GPU"), small.count) == ("", 1, 10)


def test_gpus_are_counted_by_kind() -> None:
    coming = node_types._node_types(FILE)
    there = [NodeType({"GPU": 4, f"{GPU_KIND}T4": 1}, 1), NodeType({"CPU": 2}, 1), *coming[:1]]
    assert sorted(gpu_kinds(there, coming), key=lambda kind: kind.name) == [
        GpuKind("", 10, 1, None),
        GpuKind("A100", 16, 8, 40_000_000_000),
        GpuKind("T4", 4, 4, 16_000_000_000),
    ]
