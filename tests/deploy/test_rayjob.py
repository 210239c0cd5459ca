"""The run on Kubernetes: fields that its objects have, the same settings as on the clouds."""

import copy
import re
import shlex
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

import jobs
from deploy import spot_notice
from orchestrator.options import parser
from tests.deploy.kube_fields import NETWORK_POLICY, RAY_JOB
from tests.deploy.ray_commands import check
from tests.deploy.test_clusters import ENVIRONMENT
from tests.test_packaging import pins
from tests.test_tree import ROOT


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """The objects of the file by kind."""
    text = (ROOT / "deploy" / "rayjob.yaml").read_text(encoding="utf-8")
    return {found["kind"]: found for found in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def cluster(objects: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = objects["RayJob"]["spec"]["rayClusterSpec"]
    return found


def _groups(cluster: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "head", cluster["headGroupSpec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group


def test_kubernetes_knows_every_field(objects: dict[str, Any]) -> None:
    assert objects.keys() == {"NetworkPolicy", "RayJob"}
    jsonschema.validate(objects["RayJob"], RAY_JOB)
    jsonschema.validate(objects["NetworkPolicy"], NETWORK_POLICY)


def test_a_field_that_is_not_known_is_found(objects: dict[str, Any]) -> None:
    wrong = copy.deepcopy(objects["RayJob"])
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["volume"] = []
    with pytest.raises(jsonschema.ValidationError, match="volume"):
        jsonschema.validate(wrong, RAY_JOB)


def test_versions_are_those_of_the_project(
    objects: dict[str, Any], cluster: dict[str, Any]
) -> None:
    assert cluster["rayVersion"] == pins("cpu.txt")["ray"]
    text = yaml.safe_dump(objects)
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    tags = set(re.findall(r"REGISTRY/eigentrace:(\S+)", text + dockerfile))
    assert tags == {jobs.__version__}


def test_the_head_computes_nothing_and_groups_start_from_zero(cluster: dict[str, Any]) -> None:
    head = cluster["headGroupSpec"]["rayStartParams"]
    assert (head["num-cpus"], head["num-gpus"]) == ("0", "0")
    gpus = set()
    for name, group in _groups(cluster):
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        gpus.add(resources["limits"].get("nvidia.com/gpu", 0))
        if name != "head":
            assert group["replicas"] == group["minReplicas"] == 0
    assert gpus == {0, 1, 8}
    assert cluster["enableInTreeAutoscaling"]


def test_pods_have_the_settings_of_other_clusters(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    for name, group in _groups(cluster):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        plain = {e["name"]: e["value"] for e in container["env"] if "value" in e}
        # The token's mode is the operator's to set.
        assert plain == {k: v for k, v in ENVIRONMENT.items() if k != "RAY_AUTH_MODE"}
        secret = {
            e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e
        }
        assert secret.keys() == {"HF_TOKEN", "JUDGE_KEY"}
        assert all(reference["name"] == "eigentrace" for reference in secret.values())
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
        assert plain["EIGENTRACE_CACHE"].startswith(mounted["scratch"])
        start = [f"--{option}={value}" for option, value in group["rayStartParams"].items()]
        check(["ray", "start", *(["--head"] if name == "head" else ["--address=a:1"]), *start])
        assert group["rayStartParams"]["object-spilling-directory"] == "/mnt/eigentrace/spill"


def test_workers_drain_before_they_go(cluster: dict[str, Any]) -> None:
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        python, script, *options = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert python == "python"
        assert (ROOT / script.removeprefix("/home/ray/eigentrace/")).is_file()
        assert spot_notice.parser().parse_args(options).now <= pod["terminationGracePeriodSeconds"]


def test_only_the_cluster_and_the_operator_get_in(objects: dict[str, Any]) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    labels = policy["podSelector"]["matchLabels"]
    job = objects["RayJob"]["spec"]
    templates = [group["template"] for _, group in _groups(job["rayClusterSpec"])]
    for template in [*templates, job["submitterPodTemplate"]]:
        assert template["metadata"]["labels"].items() >= labels.items()
    own, operator = policy["ingress"]
    assert own["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert [port["port"] for port in operator["ports"]] == [8265]


def test_the_job_is_a_command_of_ours(objects: dict[str, Any]) -> None:
    job = objects["RayJob"]["spec"]
    assert yaml.safe_load(job["runtimeEnvYAML"]) == yaml.safe_load(
        (ROOT / "deploy" / "job.yaml").read_text(encoding="utf-8")
    )
    words = shlex.split(job["entrypoint"])
    assert words[:3] == ["python", "-m", "orchestrator.run"]
    assert parser().parse_args(words[3:]).results.startswith("s3://")
