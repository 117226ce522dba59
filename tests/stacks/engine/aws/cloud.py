"""What the types of the double share: clients of one endpoint, tags, and failures as AWS words them."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

Properties = dict[str, Any]
REQUEST = "00000000-0000-0000-0000-000000000000"
SERVICES = {
    "ec2": "EC2", "iam": "IAM", "s3": "S3", "elbv2": "Elastic Load Balancing v2", "cloudwatch": "CloudWatch",
    "budgets": "Budgets", "ssm": "SSM", "sts": "STS",
}  # fmt: skip


class AwsError(Exception):
    """A failure in the words of pulumi-aws."""


@dataclass(frozen=True)
class Failure:
    """What is to fail: an operation, in one availability zone or in all. `left` times, or always when it is None."""

    operation: str
    code: str
    message: str
    zone: str = ""
    status: int = 500


@dataclass
class Cloud:
    """One account on moto's server at `endpoint`, as one configured provider sees it.

    `failures` are provoked ones, and `kept` holds what moto does not know: placement groups and capacity reservations.
    """

    endpoint: str
    region: str = "us-east-1"
    default_tags: Mapping[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    kept: dict[str, Properties] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if urlsplit(self.endpoint).hostname != "127.0.0.1":
            raise AwsError(f"the double of the aws provider talks to moto on 127.0.0.1 only, not to {self.endpoint}")

    def call(self, service: str, operation: str, **arguments: Any) -> Any:
        """Call an operation, `run_instances` of `ec2`; AwsError where it fails."""
        client = _client(service, self.endpoint, self.region)
        name = client.meta.method_to_api_mapping[operation]
        self.fail_as_told(service, name, arguments.get("Placement", {}).get("AvailabilityZone", ""))
        try:
            return getattr(client, operation)(**{key: value for key, value in arguments.items() if value is not None})
        except ClientError as error:
            answer = error.response
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
            raise _worded(service, name, status, answer["Error"]["Code"], answer["Error"]["Message"]) from error

    def fail_as_told(self, service: str, name: str, zone: str) -> None:
        """Fail where a failure of this operation was asked for."""
        for failure in self.failures:
            if failure.operation == name and failure.zone in {"", zone}:
                raise _worded(service, name, failure.status, failure.code, failure.message.format(zone=zone))

    def tags(self, inputs: Properties) -> dict[str, str]:
        """A resource's tags with the default ones."""
        return {**self.default_tags, **inputs.get("tags", {})}

    def specification(self, kind: str, inputs: Properties) -> list[Properties] | None:
        """TagSpecifications of one resource type."""
        tags = as_tags(self.tags(inputs))
        return [{"ResourceType": kind, "Tags": tags}] if tags else None

    def retag(self, id_: str, olds: Properties, news: Properties) -> None:
        """Bring the tags of what EC2 knows by an id to what is wanted."""
        wanted, had = self.tags(news), olds.get("tagsAll", {})
        if gone := [{"Key": key} for key in had if key not in wanted]:
            self.call("ec2", "delete_tags", Resources=[id_], Tags=gone)
        if wanted and wanted != had:
            self.call("ec2", "create_tags", Resources=[id_], Tags=as_tags(wanted))

    def one(self, service: str, operation: str, key: str, **arguments: Any) -> Any:
        """The one thing that a describing operation finds under `key`, or None."""
        try:
            found = self.call(service, operation, **arguments)[key]
        except AwsError as error:
            if any(word in str(error) for word in ("NotFound", "NoSuchEntity", "404", "NotExist")):
                return None
            raise
        return found[0] if isinstance(found, list) and found else found or None


@functools.cache
def _client(service: str, endpoint: str, region: str) -> Any:
    return boto3.session.Session().client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"max_attempts": 0}, max_pool_connections=64),
    )


def _worded(service: str, operation: str, status: int, code: str, message: str) -> AwsError:
    return AwsError(
        f"operation error {SERVICES[service]}: {operation}, https response error StatusCode: {status}, "
        f"RequestID: {REQUEST}, api error {code}: {message}"
    )


def as_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as AWS takes them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def from_tags(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Tags as Pulumi has them."""
    return {tag["Key"]: tag["Value"] for tag in tags or ()}


def pascal(value: Any) -> Any:
    """Names as AWS's API has them: `volumeSize` to `VolumeSize`, in all depths."""
    if isinstance(value, dict):
        return {key[0].upper() + key[1:]: pascal(item) for key, item in value.items()}
    return [pascal(item) for item in value] if isinstance(value, list) else value


def camel(value: Any) -> Any:
    """Names as Pulumi has them, in all depths."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: camel(item) for key, item in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


def picked(source: Mapping[str, Any], *keys: str) -> Properties:
    """Those inputs, under AWS's names, that are there."""
    return {key[0].upper() + key[1:]: pascal(source[key]) for key in keys if source.get(key) is not None}
