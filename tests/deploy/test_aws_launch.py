"""Ray's launcher, given `cluster.yaml` and AWS within a process, starts what that describes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_clusters import described
from tests.orchestrator.local_study import ROOT, environment


@pytest.mark.slow
def test_ray_starts_every_type_of_node_with_its_role(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    place = {
        "AWS_DEFAULT_REGION": "us-west-2",
        "HOME": str(tmp_path),
    }  # Ray puts its SSH key there.
    done = subprocess.run(
        [sys.executable, "-m", "tests.deploy.launch"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(keys | place),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    kinds = described("aws")["available_node_types"]
    assert found["nodes"] == {
        name: {
            "machine": kind["node_config"]["InstanceType"],
            "spot": name.endswith("-spot"),
            "role": "eigentrace-head" if name == "head" else "eigentrace-worker",
            "tokens": "required",
        }
        for name, kind in kinds.items()
    }
    # SSH is all that is open to the world.
    assert found["open"] == [22]
