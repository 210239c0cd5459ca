"""The descriptions for Ray's launcher: Ray takes them, and so would the clouds."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import click
import jsonschema
import pytest
import yaml
from botocore.exceptions import ParamValidationError
from botocore.validate import validate_parameters
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from deploy import spot_notice
from tests.deploy.instances import GOOGLE_INSTANCE, MACHINES
from tests.deploy.ray_commands import check
from tests.test_packaging import pins, requirements
from tests.test_tree import ROOT

FILES = {"aws": "cluster.yaml", "gcp": "deploy/gcp.yaml"}
ALL_FILES = (*FILES.values(), "deploy/rayjob.yaml", "deploy/Dockerfile", "deploy/aws-roles.yaml")
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "EIGENTRACE_CACHE": "/mnt/eigentrace/cache",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def described(cloud: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / FILES[cloud]).read_text(encoding="utf-8"))
    return found


def _is_spot(node: dict[str, Any]) -> bool:
    market = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    return market or node.get("scheduling", {}).get("provisioningModel") == "SPOT"


def _commands(config: dict[str, Any], key: str) -> list[list[str]]:
    """The words of every simple command."""
    whole = " ; ".join(config[key]).replace("&&", ";")
    return [shlex.split(command) for command in whole.split(";") if command.strip()]


@pytest.mark.parametrize("cloud", FILES)
def test_ray_takes_it(cloud: str) -> None:
    validate_config(prepare_config(described(cloud)))


def test_ray_refuses_a_description_with_a_mistake() -> None:
    config = described("aws")
    config["available_node_types"]["cpu"]["max_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


def _check_instance(cloud: str, node: dict[str, Any]) -> None:
    """Checks what Ray hands on to the cloud unread."""
    if cloud == "gcp":
        jsonschema.validate(node, GOOGLE_INSTANCE)
        return
    service = botocore.session.get_session().get_service_model("ec2")
    shape = service.operation_model("RunInstances").input_shape
    assert shape is not None
    validate_parameters({**node, "MinCount": 1, "MaxCount": 1}, shape)
    assert node["InstanceType"] in shape.members["InstanceType"].enum


@pytest.mark.parametrize("cloud", FILES)
def test_the_cloud_knows_what_its_nodes_are_made_of(cloud: str) -> None:
    for kind in described(cloud)["available_node_types"].values():
        _check_instance(cloud, kind["node_config"])


@pytest.mark.parametrize(
    ("cloud", "change"),
    [
        ("aws", {"InstanceTyp": "m7i.large"}),
        ("aws", {"InstanceType": "m7i.huge"}),
        ("aws", {"BlockDeviceMappings": [{"Ebs": {"Size": 3}}]}),
        ("gcp", {"machine_type": "n2-standard-8"}),
        ("gcp", {"scheduling": [{"preemptible": True}]}),
    ],
)
def test_what_the_cloud_would_not_know_is_found(cloud: str, change: dict[str, Any]) -> None:
    node = described(cloud)["available_node_types"]["cpu"]["node_config"] | change
    with pytest.raises((ParamValidationError, jsonschema.ValidationError, AssertionError)):
        _check_instance(cloud, node)


@pytest.mark.parametrize("cloud", FILES)
def test_nodes_hold_what_they_declare(cloud: str) -> None:
    kinds = described(cloud)["available_node_types"]
    head = kinds.pop("head")
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head.get("min_workers", 0) == head.get("max_workers", 0) == 0
    gpus = set()
    for name, kind in kinds.items():
        node, resources = kind["node_config"], kind["resources"]
        machine = node.get("InstanceType") or node["machineType"]
        assert (resources["CPU"], resources.get("GPU", 0)) == MACHINES[machine], name
        assert name.endswith("-spot") == _is_spot(node), name
        assert kind["min_workers"] == 0
        gpus.add(resources.get("GPU", 0))
        # No credentials but a role's of its own.
        assert "worker" in str(node.get("IamInstanceProfile") or node["serviceAccounts"])
    assert gpus >= {0, 1, 4, 8}
    assert len({kind["priority"] for kind in kinds.values()}) == len(kinds)
    config = described(cloud)
    assert config["max_workers"] == sum(kind["max_workers"] for kind in kinds.values())


def test_names_in_one_zone_agree() -> None:
    config = described("gcp")
    zone = config["provider"]["availability_zone"]
    assert zone.startswith(config["provider"]["region"])
    text = (ROOT / FILES["gcp"]).read_text(encoding="utf-8")
    assert set(re.findall(r"zones/([\w-]+)/", text)) == {zone}


@pytest.mark.parametrize("cloud", FILES)
def test_commands_are_those_of_ray_and_of_our_watcher(cloud: str) -> None:
    config = described(cloud)
    head = _commands(config, "head_start_ray_commands")
    workers = _commands(config, "worker_start_ray_commands")
    for command in [*head, *workers]:
        if command[0] == "ray":
            check(command)
    starts = [words for words in [*head, *workers] if words[:2] == ["ray", "start"]]
    assert len(starts) == 2
    for words in starts:
        assert "--disable-usage-stats" in words
        # Outside the folder whose budget counts checkpoints alone.
        assert "--object-spilling-directory=/mnt/eigentrace/spill" in words
    assert "--dashboard-host=127.0.0.1" in starts[0]
    (watcher,) = (words for words in workers if "setsid" in words)
    script = next(i for i, word in enumerate(watcher) if word.endswith("spot_notice.py"))
    redirected = next(i for i, word in enumerate(watcher) if word.startswith("<"))
    options = spot_notice.parser().parse_args(watcher[script + 1 : redirected])
    assert (options.cloud, options.address) == (cloud, "$RAY_HEAD_IP:6379")


def test_a_command_that_ray_has_not_is_found() -> None:
    for wrong in ("ray begin", "ray start --dashbord-host=x", "ray job cancel 1"):
        with pytest.raises(click.ClickException):
            check(wrong.split())


@pytest.mark.parametrize("cloud", FILES)
def test_the_shell_takes_every_command(cloud: str) -> None:
    config = described(cloud)
    lists = [value for key, value in config.items() if key.endswith("commands")]
    for command in [line for commands in lists for line in commands]:
        # As Ray wraps it.
        subprocess.run(["bash", "-n", "-c", f"true && ({command})"], check=True)
    subprocess.run(["sh", "-n", str(ROOT / "deploy" / "install.sh")], check=True)


@pytest.mark.parametrize("cloud", FILES)
def test_nodes_get_files_that_are_there_and_no_secret_by_their_options(cloud: str) -> None:
    config = described(cloud)
    mounts = config["file_mounts"]
    assert mounts.pop("/home/ray/.ray/auth_token") == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert (ROOT / local).exists(), local
        assert remote == f"/home/ray/eigentrace/{local}"
    options = [shlex.split(option) for option in config["docker"]["run_options"]]
    given = dict(value.split("=", 1) for option, value in options if option == "--env")
    assert given == ENVIRONMENT


def test_both_clouds_get_the_same() -> None:
    aws, gcp = described("aws"), described("gcp")
    for same in (
        "cluster_name",
        "docker",
        "file_mounts",
        "initialization_commands",
        "setup_commands",
        "head_start_ray_commands",
        "idle_timeout_minutes",
        "upscaling_speed",
    ):
        assert aws[same] == gcp[same], same
    starts = [str(config["worker_start_ray_commands"]) for config in (aws, gcp)]
    assert starts[0].replace("--cloud aws", "--cloud gcp") == starts[1]


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/gcp.yaml", "deploy/Dockerfile"])
def test_the_image_has_the_pinned_ray_and_python(name: str) -> None:
    (image,) = set(re.findall(r"rayproject/ray:(\S+)", (ROOT / name).read_text(encoding="utf-8")))
    python = re.search(r"Python (3\.\d+)", (ROOT / "requirements" / "cpu.in").read_text())
    assert python is not None
    assert image == f"{pins('cpu.txt')['ray']}-py{python[1].replace('.', '')}-gpu"


def test_what_nodes_install_is_pinned_but_for_what_cuda_brings() -> None:
    script = (ROOT / "deploy" / "install.sh").read_text(encoding="utf-8")
    (left_out,) = re.findall(r"grep -v '\^([\w-]+)=='", script)
    assert left_out in pins("cpu.txt")
    constrained = pins("cpu.txt").keys() - {left_out}
    free = {wanted.name for wanted in requirements("gpu.in")} - constrained
    assert {re.sub("[_.]", "-", name) for name in free} - constrained == {"vllm"}


@pytest.mark.parametrize("name", ALL_FILES)
def test_no_file_holds_a_secret(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"AKIA|ASIA|\bhf_[A-Za-z]{8}|sk-|BEGIN|[0-9a-f]{32}|private_key", text)
    assert not re.search(r"(TOKEN|SECRET|PASSWORD|_KEY)\s*[=:]\s*[\"']?[A-Za-z0-9]", text)


def test_copied_files_are_there() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[2:-1]]
    assert {"jobs", "orchestrator", "workers", "dashboards", "deploy"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)


def _launched(cloud: str, requests: list[dict[str, float]], **taken: float) -> dict[str, int]:
    """What Ray's autoscaler would start for requests, by type.

    Args:
        cloud: Whose description.
        requests: What workers ask for.
        taken: Types that could not be had lately, and how far that is away: 0 is right now.
    """
    config = AutoscalingConfig(described(cloud), skip_content_hash=True)
    asked = [ResourceRequestUtil.make(request) for request in requests]
    names = {name.replace("_", "-"): score for name, score in taken.items()}
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_worker_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(asked),
            cloud_resource_availabilities=names,
            recoverable_resource_availabilities=names,
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


@pytest.mark.parametrize("cloud", FILES)
def test_the_autoscaler_starts_cheap_nodes_and_spares_gpus(cloud: str) -> None:
    worker = {"CPU": 1.0, "GPU": 1.0}
    assert _launched(cloud, [worker] * 3) == {"l4-1-spot": 3}
    assert _launched(cloud, [worker] * 3, l4_1_spot=0.0) == {"l4-1": 3}
    assert _launched(cloud, [{"CPU": 1.0}] * 20) == {"cpu": 2}
    assert _launched(cloud, []) == {}
    # Never more than the limits, whatever is asked for.
    limits = {
        name: kind["max_workers"]
        for name, kind in described(cloud)["available_node_types"].items()
        if kind.get("max_workers") and "GPU" in kind["resources"]
    }
    assert _launched(cloud, [worker] * 500) == limits


def test_roles_are_those_that_nodes_have_and_no_wider() -> None:
    template = yaml.safe_load((ROOT / "deploy" / "aws-roles.yaml").read_text(encoding="utf-8"))
    found = template["Resources"]
    profiles = {
        resource["Properties"]["InstanceProfileName"]
        for resource in found.values()
        if resource["Type"] == "AWS::IAM::InstanceProfile"
    }
    kinds = described("aws")["available_node_types"].values()
    assert profiles == {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in kinds}
    assert found["WorkerRole"]["Properties"]["ManagedPolicyArns"] == [{"Ref": "Results"}]
    assert "Policies" not in found["WorkerRole"]["Properties"]
    policy = found["HeadRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    allowed = {
        a for s in policy for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert not {action for action in allowed if action.endswith(":*") or action == "*"}
    (name,) = re.findall(
        r'"aws:ResourceTag/ray-cluster-name": (\w+)',
        Path(ROOT, "deploy/aws-roles.yaml").read_text(),
    )
    assert name == described("aws")["cluster_name"]
