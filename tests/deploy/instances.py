"""CPUs and GPUs of the machines that cluster descriptions name, and what their nodes may hold.

Sources: the makers' pages of instance types (aws.amazon.com/ec2/instance-types: M7i, G5, G6, P4 and
P5; cloud.google.com/compute/docs: general-purpose N2, accelerator-optimized G2, A2 and A3), and the
REST reference of Compute Engine, `instances.insert`.
"""

from typing import Any

MACHINES = {
    "m7i.2xlarge": (8, 0),
    "m7i.4xlarge": (16, 0),
    "g5.2xlarge": (8, 1),
    "g6.2xlarge": (8, 1),
    "g6.12xlarge": (48, 4),
    "g6.48xlarge": (192, 8),
    "p4d.24xlarge": (96, 8),
    "p5.4xlarge": (16, 1),
    "p5.48xlarge": (192, 8),
    "n2-standard-8": (8, 0),
    "n2-standard-16": (16, 0),
    "g2-standard-8": (8, 1),
    "g2-standard-48": (48, 4),
    "g2-standard-96": (96, 8),
    "a2-highgpu-1g": (12, 1),
    "a2-highgpu-8g": (96, 8),
    "a3-highgpu-8g": (208, 8),
}
"""CPUs, as the cloud counts them, and GPUs."""


def table(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """A JSON Schema of a table that holds these keys alone."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def listed(items: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema of a list that isn't empty."""
    return {"type": "array", "items": items, "minItems": 1}


TEXT, TRUTH, NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}

GOOGLE_INSTANCE = table(
    {
        "machineType": {"enum": sorted(MACHINES)},
        "disks": listed(
            table(
                {
                    "boot": TRUTH,
                    "autoDelete": {"const": True},
                    "type": {"enum": ["PERSISTENT", "SCRATCH"]},
                    "initializeParams": table(
                        {"diskSizeGb": NUMBER, "diskType": TEXT, "sourceImage": TEXT},
                        "diskSizeGb",
                        "diskType",
                        "sourceImage",
                    ),
                },
                "boot",
                "autoDelete",
                "initializeParams",
            )
        ),
        "serviceAccounts": listed(table({"email": TEXT, "scopes": listed(TEXT)}, "email")),
        "scheduling": table(
            {
                "provisioningModel": {"enum": ["STANDARD", "SPOT"]},
                "instanceTerminationAction": {"enum": ["DELETE", "STOP"]},
                "onHostMaintenance": {"const": "TERMINATE"},
                "automaticRestart": {"const": False},
            }
        ),
    },
    "machineType",
    "disks",
)
"""What of an instance `deploy/gcp.yaml` may set; spot machines aren't restarted, GPUs not moved."""
