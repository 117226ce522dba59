"""What is not EC2: roles, buckets, load balancers, alarms, budgets."""

from typing import Any

from .cloud import Cloud, Properties, as_tags, picked
from .kind import Kind

ACCOUNT = "123456789012"


def _nothing(*_: Any) -> None:
    """Tags of these types are not changed on moto; the state has them."""


def _role_create(cloud: Cloud, news: Properties) -> str:
    cloud.call(
        "iam",
        "create_role",
        RoleName=news["name"],
        AssumeRolePolicyDocument=news["assumeRolePolicy"],
        Tags=as_tags(cloud.tags(news)),
    )
    return str(news["name"])


def _role_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("iam", "get_role", "Role", RoleName=id_)
    return {"arn": found["Arn"], "uniqueId": found["RoleId"], "name": id_} if found else None


def _role_update(cloud: Cloud, id_: str, _: Properties, news: Properties) -> None:
    cloud.call("iam", "update_assume_role_policy", RoleName=id_, PolicyDocument=news["assumeRolePolicy"])


def _role_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("iam", "delete_role", RoleName=id_)


def _inline_put(cloud: Cloud, news: Properties) -> str:
    cloud.call("iam", "put_role_policy", RoleName=news["role"], PolicyName=news["name"], PolicyDocument=news["policy"])
    return f"{news['role']}:{news['name']}"


def _inline_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    role, name = id_.split(":")
    found = cloud.one("iam", "get_role_policy", "PolicyName", RoleName=role, PolicyName=name)
    return {"name": name} if found else None


def _inline_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    role, name = id_.split(":")
    cloud.call("iam", "delete_role_policy", RoleName=role, PolicyName=name)


def _attach_create(cloud: Cloud, news: Properties) -> str:
    cloud.call("iam", "attach_role_policy", RoleName=news["role"], PolicyArn=news["policyArn"])
    return f"{news['role']}/{news['policyArn']}"


def _attach_read(cloud: Cloud, _: str, olds: Properties) -> Properties | None:
    if not cloud.one("iam", "get_role", "Role", RoleName=olds["role"]):
        return None
    rows = cloud.call("iam", "list_attached_role_policies", RoleName=olds["role"])["AttachedPolicies"]
    return {} if any(row["PolicyArn"] == olds["policyArn"] for row in rows) else None


def _attach_delete(cloud: Cloud, _: str, olds: Properties) -> None:
    cloud.call("iam", "detach_role_policy", RoleName=olds["role"], PolicyArn=olds["policyArn"])


def _profile_create(cloud: Cloud, news: Properties) -> str:
    cloud.call("iam", "create_instance_profile", InstanceProfileName=news["name"])
    if news.get("role"):
        cloud.call("iam", "add_role_to_instance_profile", InstanceProfileName=news["name"], RoleName=news["role"])
    return str(news["name"])


def _profile_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("iam", "get_instance_profile", "InstanceProfile", InstanceProfileName=id_)
    return {"arn": found["Arn"], "name": id_} if found else None


def _profile_delete(cloud: Cloud, id_: str, olds: Properties) -> None:
    if olds.get("role"):
        cloud.call("iam", "remove_role_from_instance_profile", InstanceProfileName=id_, RoleName=olds["role"])
    cloud.call("iam", "delete_instance_profile", InstanceProfileName=id_)


def _bucket_create(cloud: Cloud, news: Properties) -> str:
    name = news.get("bucket") or news["name"].lower()
    where = {"LocationConstraint": cloud.region} if cloud.region != "us-east-1" else None
    cloud.call("s3", "create_bucket", Bucket=name, CreateBucketConfiguration=where)
    if tags := as_tags(cloud.tags(news)):
        cloud.call("s3", "put_bucket_tagging", Bucket=name, Tagging={"TagSet": tags})
    return str(name)


def _bucket_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    if not cloud.one("s3", "head_bucket", "ResponseMetadata", Bucket=id_):
        return None
    return {"bucket": id_, "arn": f"arn:aws:s3:::{id_}", "region": cloud.region}


def _bucket_delete(cloud: Cloud, id_: str, olds: Properties) -> None:
    if olds.get("forceDestroy"):
        for row in cloud.call("s3", "list_objects_v2", Bucket=id_).get("Contents", []):
            cloud.call("s3", "delete_object", Bucket=id_, Key=row["Key"])
    cloud.call("s3", "delete_bucket", Bucket=id_)


def _block_put(cloud: Cloud, news: Properties) -> str:
    keys = ("blockPublicAcls", "ignorePublicAcls", "blockPublicPolicy", "restrictPublicBuckets")
    configuration = picked(news, *keys)
    cloud.call("s3", "put_public_access_block", Bucket=news["bucket"], PublicAccessBlockConfiguration=configuration)
    return str(news["bucket"])


def _block_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    if not cloud.one("s3", "head_bucket", "ResponseMetadata", Bucket=id_):
        return None
    found = cloud.one("s3", "get_public_access_block", "PublicAccessBlockConfiguration", Bucket=id_)
    return {} if found else None


def _block_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("s3", "delete_public_access_block", Bucket=id_)


def _encryption_put(cloud: Cloud, news: Properties) -> str:
    rules = [
        {
            "ApplyServerSideEncryptionByDefault": {
                "SSEAlgorithm": rule["applyServerSideEncryptionByDefault"]["sseAlgorithm"]
            }
        }
        for rule in news["rules"]
    ]
    cloud.call("s3", "put_bucket_encryption", Bucket=news["bucket"], ServerSideEncryptionConfiguration={"Rules": rules})
    return str(news["bucket"])


def _encryption_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    if not cloud.one("s3", "head_bucket", "ResponseMetadata", Bucket=id_):
        return None
    found = cloud.one("s3", "get_bucket_encryption", "ServerSideEncryptionConfiguration", Bucket=id_)
    return {} if found else None


def _encryption_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("s3", "delete_bucket_encryption", Bucket=id_)


def _balancer_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call(
        "elbv2",
        "create_load_balancer",
        Name=news["name"][:32],
        Subnets=news.get("subnets"),
        SecurityGroups=news.get("securityGroups"),
        Scheme="internal" if news.get("internal") else "internet-facing",
        Type=news.get("loadBalancerType", "application"),
        Tags=as_tags(cloud.tags(news)) or None,
    )
    return str(made["LoadBalancers"][0]["LoadBalancerArn"])


def _balancer_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("elbv2", "describe_load_balancers", "LoadBalancers", LoadBalancerArns=[id_])
    if not found:
        return None
    return {"arn": id_, "dnsName": found["DNSName"], "zoneId": found.get("CanonicalHostedZoneId", "")}


def _target_create(cloud: Cloud, news: Properties) -> str:
    health = news.get("healthCheck") or {}
    made = cloud.call(
        "elbv2",
        "create_target_group",
        Name=news["name"][:32],
        TargetType=news.get("targetType"),
        **picked(news, "port", "protocol", "vpcId"),
        HealthCheckProtocol=health.get("protocol"),
        HealthCheckPort=str(health["port"]) if "port" in health else None,
        HealthCheckPath=health.get("path"),
        Tags=as_tags(cloud.tags(news)) or None,
    )
    return str(made["TargetGroups"][0]["TargetGroupArn"])


def _listener_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call(
        "elbv2",
        "create_listener",
        LoadBalancerArn=news["loadBalancerArn"],
        **picked(news, "port", "protocol", "sslPolicy"),
        Certificates=[{"CertificateArn": news["certificateArn"]}] if news.get("certificateArn") else None,
        DefaultActions=[{"Type": a["type"], "TargetGroupArn": a["targetGroupArn"]} for a in news["defaultActions"]],
        Tags=as_tags(cloud.tags(news)) or None,
    )
    return str(made["Listeners"][0]["ListenerArn"])


def _by_arn(describe: str, key: str, by: str) -> Any:
    def read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
        return {"arn": id_} if cloud.one("elbv2", describe, key, **{by: [id_]}) else None

    return read


def _delete_arn(operation: str, by: str) -> Any:
    def delete(cloud: Cloud, id_: str, _: Properties) -> None:
        cloud.call("elbv2", operation, **{by: id_})

    return delete


def _target(news: Properties) -> Properties:
    return {"Id": news["targetId"], **picked(news, "port")}


def _registered(cloud: Cloud, news: Properties) -> str:
    cloud.call("elbv2", "register_targets", TargetGroupArn=news["targetGroupArn"], Targets=[_target(news)])
    return f"{news['targetGroupArn']}-{news['targetId']}"


def _registered_read(cloud: Cloud, _: str, olds: Properties) -> Properties | None:
    if not cloud.one("elbv2", "describe_target_groups", "TargetGroups", TargetGroupArns=[olds["targetGroupArn"]]):
        return None
    rows = cloud.call("elbv2", "describe_target_health", TargetGroupArn=olds["targetGroupArn"])
    return {} if any(r["Target"]["Id"] == olds["targetId"] for r in rows["TargetHealthDescriptions"]) else None


def _deregister(cloud: Cloud, _: str, olds: Properties) -> None:
    cloud.call("elbv2", "deregister_targets", TargetGroupArn=olds["targetGroupArn"], Targets=[_target(olds)])


def _alarm_put(cloud: Cloud, news: Properties) -> str:
    keys = ("comparisonOperator", "evaluationPeriods", "metricName", "namespace", "period", "statistic", "threshold",
            "alarmActions", "treatMissingData", "datapointsToAlarm", "unit")  # fmt: skip
    cloud.call(
        "cloudwatch",
        "put_metric_alarm",
        AlarmName=news["name"],
        **picked(news, *keys),
        AlarmDescription=news.get("alarmDescription", "Managed by Pulumi"),
        Dimensions=[{"Name": key, "Value": value} for key, value in news.get("dimensions", {}).items()],
    )
    return str(news["name"])


def _alarm_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNames=[id_])
    return {"arn": found["AlarmArn"], "name": id_} if found else None


def _alarm_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("cloudwatch", "delete_alarms", AlarmNames=[id_])


def _budget_create(cloud: Cloud, news: Properties) -> str:
    notifications = [
        {
            "Notification": {
                "NotificationType": row["notificationType"],
                "ComparisonOperator": row["comparisonOperator"],
                "Threshold": row["threshold"],
                "ThresholdType": row["thresholdType"],
            },
            "Subscribers": [
                {"SubscriptionType": "EMAIL", "Address": address} for address in row.get("subscriberEmailAddresses", [])
            ],
        }
        for row in news.get("notifications", [])
    ]
    budget = {
        "BudgetName": news["name"],
        "BudgetLimit": {"Amount": news["limitAmount"], "Unit": news["limitUnit"]},
        "TimeUnit": news["timeUnit"],
        "BudgetType": news["budgetType"],
    }
    if filters := news.get("costFilters"):
        budget["CostFilters"] = {row["name"]: row["values"] for row in filters}
    cloud.call("budgets", "create_budget", AccountId=ACCOUNT, Budget=budget, NotificationsWithSubscribers=notifications)
    return f"{ACCOUNT}:{news['name']}"


def _budget_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    name = id_.split(":", 1)[1]
    found = cloud.one("budgets", "describe_budget", "Budget", AccountId=ACCOUNT, BudgetName=name)
    return {"accountId": ACCOUNT, "name": name, "arn": f"arn:aws:budgets::{ACCOUNT}:budget/{name}"} if found else None


def _budget_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("budgets", "delete_budget", AccountId=ACCOUNT, BudgetName=id_.split(":", 1)[1])


def _budget_update(cloud: Cloud, id_: str, _: Properties, news: Properties) -> None:
    # moto cannot change a budget
    _budget_delete(cloud, id_, {})
    _budget_create(cloud, news)


def _again(put: Any) -> Any:
    """Putting it again is the change."""

    def update(cloud: Cloud, _: str, __: Properties, news: Properties) -> None:
        put(cloud, news)

    return update


KINDS: dict[str, Kind] = {
    "aws:iam/role:Role": Kind(
        "IAM Role", _role_create, _role_read, _role_delete, {"name"}, {"assumeRolePolicy"}, _role_update, named=True
    ),
    "aws:iam/rolePolicy:RolePolicy": Kind(
        "IAM Role Policy", _inline_put, _inline_read, _inline_delete, {"name", "role"}, {"role", "policy"},
        _again(_inline_put), named=True,
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Kind(
        "IAM Role Policy Attachment", _attach_create, _attach_read, _attach_delete, {"role", "policyArn"},
        {"role", "policyArn"},
    ),
    "aws:iam/instanceProfile:InstanceProfile": Kind(
        "IAM Instance Profile", _profile_create, _profile_read, _profile_delete, {"name", "role"}, update=_nothing,
        named=True,
    ),
    "aws:s3/bucket:Bucket": Kind(
        "S3 Bucket", _bucket_create, _bucket_read, _bucket_delete, {"bucket"}, update=_nothing, named=True
    ),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": Kind(
        "S3 Bucket Public Access Block", _block_put, _block_read, _block_delete, {"bucket"}, {"bucket"},
        _again(_block_put),
    ),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": Kind(
        "S3 Bucket Server Side Encryption Configuration", _encryption_put, _encryption_read, _encryption_delete,
        {"bucket"}, {"bucket", "rules"}, _again(_encryption_put),
    ),
    "aws:lb/loadBalancer:LoadBalancer": Kind(
        "ELBv2 Load Balancer", _balancer_create, _balancer_read, _delete_arn("delete_load_balancer", "LoadBalancerArn"),
        {"name", "internal", "loadBalancerType", "subnets", "securityGroups"}, update=_nothing, named=True,
    ),
    "aws:lb/targetGroup:TargetGroup": Kind(
        "ELBv2 Target Group", _target_create, _by_arn("describe_target_groups", "TargetGroups", "TargetGroupArns"),
        _delete_arn("delete_target_group", "TargetGroupArn"), {"name", "port", "protocol", "vpcId", "targetType",
        "healthCheck"}, update=_nothing, named=True,
    ),
    "aws:lb/listener:Listener": Kind(
        "ELBv2 Listener", _listener_create, _by_arn("describe_listeners", "Listeners", "ListenerArns"),
        _delete_arn("delete_listener", "ListenerArn"), {"loadBalancerArn", "port", "protocol", "certificateArn",
        "defaultActions"}, {"loadBalancerArn", "defaultActions"}, _nothing, delete_first=True,
    ),
    "aws:lb/targetGroupAttachment:TargetGroupAttachment": Kind(
        "ELBv2 Target Group Attachment", _registered, _registered_read, _deregister,
        {"targetGroupArn", "targetId", "port"}, {"targetGroupArn", "targetId"},
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": Kind(
        "CloudWatch Metric Alarm", _alarm_put, _alarm_read, _alarm_delete, {"name"},
        {"comparisonOperator", "evaluationPeriods"}, _again(_alarm_put), named=True,
    ),
    "aws:budgets/budget:Budget": Kind(
        "Budget", _budget_create, _budget_read, _budget_delete, {"name"}, {"budgetType", "timeUnit"}, _budget_update,
        named=True,
    ),
}  # fmt: skip
