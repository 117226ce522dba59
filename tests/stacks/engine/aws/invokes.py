"""Functions of the provider: what a program looks up before it makes anything."""

from collections.abc import Callable

from .cloud import AwsError, Cloud, Properties, camel


def _filters(args: Properties) -> list[Properties]:
    rows = [{"Name": row["name"], "Values": row["values"]} for row in args.get("filters", [])]
    return rows + [{"Name": f"tag:{key}", "Values": [value]} for key, value in args.get("tags", {}).items()]


def _one(found: list[Properties], what: str) -> Properties:
    if len(found) != 1:
        words = "no matching" if not found else "multiple"
        raise AwsError(f"{words} {what} found; use additional constraints to reduce matches to a single {what}")
    return found[0]


def _ami(cloud: Cloud, args: Properties) -> Properties:
    found = cloud.call("ec2", "describe_images", Owners=args.get("owners"), Filters=_filters(args))["Images"]
    if not found:
        raise AwsError("Your query returned no results. Please change your search criteria and try again.")
    image = max(found, key=lambda row: str(row.get("CreationDate", "")))
    found = camel({key: image.get(key, "") for key in ("ImageId", "Name", "Architecture", "RootDeviceName")})
    return {"id": image["ImageId"], **found}


def _parameter(cloud: Cloud, args: Properties) -> Properties:
    # AWS's own names cannot be put into moto
    found = cloud.kept.get(args["name"]) or cloud.call("ssm", "get_parameter", Name=args["name"])["Parameter"]
    value = found["Value"]
    return {"id": args["name"], "name": args["name"], "arn": found["ARN"], "type": found["Type"], "value": value,
            "insecureValue": value, "version": found["Version"]}  # fmt: skip


def _zones(cloud: Cloud, args: Properties) -> Properties:
    rows = cloud.call("ec2", "describe_availability_zones")["AvailabilityZones"]
    names = [row["ZoneName"] for row in rows]
    return {"id": cloud.region, "names": names, "zoneIds": [row["ZoneId"] for row in rows]}


def _identity(cloud: Cloud, _: Properties) -> Properties:
    found = cloud.call("sts", "get_caller_identity")
    return {"id": found["Account"], "accountId": found["Account"], "arn": found["Arn"], "userId": found["UserId"]}


def _region(cloud: Cloud, _: Properties) -> Properties:
    name = cloud.region
    return {"id": name, "name": name, "region": name, "endpoint": f"ec2.{name}.amazonaws.com", "description": name}


def _offerings(cloud: Cloud, args: Properties) -> Properties:
    rows = cloud.call(
        "ec2", "describe_instance_type_offerings", LocationType=args.get("locationType"), Filters=_filters(args)
    )["InstanceTypeOfferings"]
    return {
        "id": cloud.region,
        "instanceTypes": [row["InstanceType"] for row in rows],
        "locations": [row["Location"] for row in rows],
        "locationTypes": [row["LocationType"] for row in rows],
    }


INVOKES: dict[str, Callable[[Cloud, Properties], Properties]] = {
    "aws:ec2/getAmi:getAmi": _ami,
    "aws:ssm/getParameter:getParameter": _parameter,
    "aws:index/getAvailabilityZones:getAvailabilityZones": _zones,
    "aws:index/getCallerIdentity:getCallerIdentity": _identity,
    "aws:index/getRegion:getRegion": _region,
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": _offerings,
}
