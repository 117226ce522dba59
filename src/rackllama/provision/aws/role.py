"""What hosts may do on AWS: be reached through Session Manager, and read one bucket where models come from."""

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from rackllama.provision.aws.labels import Labels


@dataclass(frozen=True)
class HostRoleArgs:
    """`bucket` is the name of the bucket that hosts may read; none by default. `region` tells AWS's partition."""

    labels: Labels
    region: str
    bucket: pulumi.Input[str] | None = None


class HostRole(pulumi.ComponentResource):
    """The role of hosts, and the instance profile that gives it to them. Costs nothing; a destroy leaves nothing."""

    profile: pulumi.Output[str]

    def __init__(self, name: str, args: HostRoleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:HostRole", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        arn = f"arn:{partition(args.region)}"
        role = aws.iam.Role(
            name, assume_role_policy=json.dumps(assumed_by("ec2.amazonaws.com")), tags=args.labels.tags(name), opts=own
        )
        grants: list[pulumi.Resource] = [
            aws.iam.RolePolicyAttachment(
                name, role=role.name, policy_arn=f"{arn}:iam::aws:policy/AmazonSSMManagedInstanceCore", opts=own
            )
        ]
        if args.bucket is not None:
            policy = pulumi.Output.from_input(args.bucket).apply(lambda bucket: json.dumps(may_read(arn, bucket)))
            grants.append(aws.iam.RolePolicy(name, role=role.name, policy=policy, opts=own))
        # After its grants, so that a host's agent finds them when it first asks.
        after = pulumi.ResourceOptions(parent=self, depends_on=grants)
        profile = aws.iam.InstanceProfile(name, role=role.name, tags=args.labels.tags(name), opts=after)
        self.profile = profile.name
        self.register_outputs({"profile": self.profile})


def partition(region: str) -> str:
    """AWS's partition that the region is of."""
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(region.rpartition("-")[0].rpartition("-")[0], "aws")


def assumed_by(service: str) -> dict[str, object]:
    """The policy that lets a service of AWS take a role."""
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": service}}],
    }


def may_read(arn: str, bucket: str) -> dict[str, object]:
    """The policy that lets a role read a bucket, and write nothing."""
    found = f"{arn}:s3:::{bucket}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": found},
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"{found}/*"},
        ],
    }
