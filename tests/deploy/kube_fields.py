"""The fields of Kubernetes objects that `deploy/rayjob.yaml` may use, as JSON Schemas.

Sources: the reference of KubeRay's custom resources (docs.ray.io, "KubeRay CRD API reference", of
version 1.6.2) and of Kubernetes' own (kubernetes.io/docs/reference/kubernetes-api: PodTemplateSpec,
NetworkPolicy). Only what we use: another field is a mistake until it is looked up and added.
"""

from typing import Any

from tests.deploy.instances import NUMBER, TEXT, TRUTH, listed, table

_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}
_AMOUNTS: dict[str, Any] = {
    "type": "object",
    "propertyNames": {"enum": ["cpu", "memory", "nvidia.com/gpu"]},
}
_SELECTOR = table({"matchLabels": _TEXTS})
_CONTAINER = table(
    {
        "name": TEXT,
        "image": TEXT,
        "env": listed(
            table(
                {
                    "name": TEXT,
                    "value": TEXT,
                    "valueFrom": table(
                        {
                            "secretKeyRef": table(
                                {"name": TEXT, "key": TEXT, "optional": TRUTH}, "name", "key"
                            )
                        }
                    ),
                },
                "name",
            )
        ),
        "lifecycle": table(
            {"preStop": table({"exec": table({"command": listed(TEXT)}, "command")}, "exec")}
        ),
        "resources": table({"requests": _AMOUNTS, "limits": _AMOUNTS}, "requests", "limits"),
        "volumeMounts": listed(table({"name": TEXT, "mountPath": TEXT}, "name", "mountPath")),
    },
    "name",
    "image",
)
_POD = table(
    {
        "metadata": table({"labels": _TEXTS}, "labels"),
        "spec": table(
            {
                "serviceAccountName": TEXT,
                "restartPolicy": {"enum": ["Always", "OnFailure", "Never"]},
                "terminationGracePeriodSeconds": NUMBER,
                "nodeSelector": _TEXTS,
                "tolerations": listed(
                    table({"key": TEXT, "operator": {"enum": ["Exists", "Equal"]}, "effect": TEXT})
                ),
                "containers": listed(_CONTAINER),
                "volumes": listed(
                    table({"name": TEXT, "emptyDir": table({"sizeLimit": TEXT})}, "name")
                ),
            },
            "containers",
        ),
    },
    "metadata",
    "spec",
)
_CLUSTER = table(
    {
        "rayVersion": TEXT,
        "authOptions": table({"mode": {"enum": ["token", "disabled"]}}, "mode"),
        "enableInTreeAutoscaling": TRUTH,
        "autoscalerOptions": table(
            {
                "idleTimeoutSeconds": NUMBER,
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
            }
        ),
        "headGroupSpec": table(
            {
                "serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
                "rayStartParams": _TEXTS,
                "template": _POD,
            },
            "rayStartParams",
            "template",
        ),
        "workerGroupSpecs": listed(
            table(
                {
                    "groupName": TEXT,
                    "replicas": NUMBER,
                    "minReplicas": NUMBER,
                    "maxReplicas": NUMBER,
                    "rayStartParams": _TEXTS,
                    "template": _POD,
                },
                "groupName",
                "replicas",
                "minReplicas",
                "maxReplicas",
                "rayStartParams",
                "template",
            )
        ),
    },
    "rayVersion",
    "authOptions",
    "headGroupSpec",
    "workerGroupSpecs",
)


def _object(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    about = {
        "apiVersion": {"const": version},
        "kind": {"const": kind},
        "metadata": table({"name": TEXT}, "name"),
        "spec": spec,
    }
    return table(about, *about)


RAY_JOB = _object(
    "ray.io/v1",
    "RayJob",
    table(
        {
            "entrypoint": TEXT,
            "runtimeEnvYAML": TEXT,
            "backoffLimit": NUMBER,
            "shutdownAfterJobFinishes": TRUTH,
            "ttlSecondsAfterFinished": NUMBER,
            "submitterPodTemplate": _POD,
            "rayClusterSpec": _CLUSTER,
        },
        "entrypoint",
        "rayClusterSpec",
    ),
)
NETWORK_POLICY = _object(
    "networking.k8s.io/v1",
    "NetworkPolicy",
    table(
        {
            "podSelector": _SELECTOR,
            "policyTypes": listed({"enum": ["Ingress", "Egress"]}),
            "ingress": listed(
                table(
                    {
                        "from": listed(
                            table({"podSelector": _SELECTOR, "namespaceSelector": _SELECTOR})
                        ),
                        "ports": listed(
                            table({"protocol": {"enum": ["TCP", "UDP"]}, "port": NUMBER})
                        ),
                    },
                    "from",
                )
            ),
        },
        "podSelector",
        "policyTypes",
        "ingress",
    ),
)
