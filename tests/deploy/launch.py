"""Does what `ray up cluster.yaml` does on AWS until machines run, on a cloud within this process.

Run as a program, since Ray keeps its clients for good: prints what each type of node became.
"""

import json
from typing import Any

import boto3
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config

from tests.test_tree import ROOT

_NAMES = {"${AWS::Partition}": "aws", "${Bucket}": "bucket"}


def main() -> None:
    """Makes the roles, has Ray fill in what the description leaves open, and starts one of each."""
    with mock_aws():
        _make_roles()
        described = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
        config: dict[str, Any] = bootstrap_aws(prepare_config(described))
        # The parameter that names Amazon's newest image is not part of this cloud.
        image = boto3.client("ec2").describe_images()["Images"][0]["ImageId"]
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        found = {}
        for name, kind in config["available_node_types"].items():
            tags = {"ray-node-kind": "worker", "ray-launch-config": "", "ray-node-status": ""}
            node = kind["node_config"] | {"ImageId": image}
            provider.create_node(node, tags | {"ray-user-node-type": name}, 1)
            (made,) = provider.non_terminated_nodes({"ray-user-node-type": name})
            (instance,) = boto3.client("ec2").describe_instances(InstanceIds=[made])[
                "Reservations"
            ][0]["Instances"]
            found[name] = {
                "machine": instance["InstanceType"],
                "spot": instance.get("InstanceLifecycle") == "spot",
                "role": instance["IamInstanceProfile"]["Arn"].rpartition("/")[2],
                "tokens": instance["MetadataOptions"]["HttpTokens"],
            }
        groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
        (group,) = (group for group in groups if group["GroupName"] != "default")
        ports = [rule["FromPort"] for rule in group["IpPermissions"] if rule["IpRanges"]]
        print(json.dumps({"nodes": found, "open": ports}))


def _make_roles() -> None:
    """Makes what the template describes, as CloudFormation does; AWS checks the policies."""
    template = yaml.safe_load((ROOT / "deploy" / "aws-roles.yaml").read_text(encoding="utf-8"))
    iam = boto3.client("iam")
    for name, resource in template["Resources"].items():
        properties = _resolved(resource["Properties"])
        match resource["Type"].rpartition("::")[2]:
            case "ManagedPolicy":
                document = json.dumps(properties["PolicyDocument"])
                iam.create_policy(PolicyName=name, PolicyDocument=document)
            case "Role":
                trust = json.dumps(properties["AssumeRolePolicyDocument"])
                iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
                for arn in properties["ManagedPolicyArns"]:
                    iam.attach_role_policy(RoleName=name, PolicyArn=arn)
                for policy in properties.get("Policies", []):
                    iam.put_role_policy(
                        RoleName=name,
                        PolicyName=policy["PolicyName"],
                        PolicyDocument=json.dumps(policy["PolicyDocument"]),
                    )
            case "InstanceProfile":
                profile = properties["InstanceProfileName"]
                iam.create_instance_profile(InstanceProfileName=profile)
                for role in properties["Roles"]:
                    iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=role)
            case other:
                raise NotImplementedError(other)


def _resolved(value: Any) -> Any:
    """Returns a part of a template with its references replaced by what they mean here."""
    match value:
        case {"Fn::Sub": str(text)}:
            for name, meaning in _NAMES.items():
                text = text.replace(name, meaning)
            return text
        case {"Fn::GetAtt": [role, "Arn"]}:
            return f"arn:aws:iam::123456789012:role/{role}"
        case {"Ref": "Results"}:
            return "arn:aws:iam::123456789012:policy/Results"
        case {"Ref": name}:
            return name
        case dict():
            return {key: _resolved(part) for key, part in value.items()}
        case list():
            return [_resolved(part) for part in value]
    return value


if __name__ == "__main__":
    main()
