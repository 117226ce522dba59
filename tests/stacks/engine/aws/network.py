"""Networks: VPC, subnets, ways out, security groups."""

from typing import Any

from .cloud import Cloud, Properties, camel, from_tags, picked
from .kind import Kind


def _described(operation: str, key: str, by: str, **more: Any) -> Any:
    """A reader of what EC2 describes by one id."""

    def read(cloud: Cloud, id_: str, _: Properties) -> Any:
        return cloud.one("ec2", operation, key, **{by: [id_]}, **more)

    return read


def _outputs(found: Any) -> Properties:
    return {
        **camel({key: value for key, value in found.items() if key != "Tags"}),
        "tagsAll": from_tags(found.get("Tags")),
    }


def _vpc_create(cloud: Cloud, news: Properties) -> str:
    tags = cloud.specification("vpc", news)
    made = cloud.call("ec2", "create_vpc", CidrBlock=news["cidrBlock"], TagSpecifications=tags)
    id_ = made["Vpc"]["VpcId"]
    _vpc_update(cloud, id_, {}, news)
    return str(id_)


def _vpc_update(cloud: Cloud, id_: str, olds: Properties, news: Properties) -> None:
    for key in ("enableDnsSupport", "enableDnsHostnames"):
        if key in news and news[key] != olds.get(key):
            value = {key[0].upper() + key[1:]: {"Value": news[key]}}
            cloud.call("ec2", "modify_vpc_attribute", VpcId=id_, **value)
    if olds:
        cloud.retag(id_, olds, news)


def _vpc_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_vpcs", "Vpcs", VpcIds=[id_])
    if not found:
        return None
    groups = cloud.call("ec2", "describe_security_groups", Filters=[{"Name": "vpc-id", "Values": [id_]}])
    default = next((group["GroupId"] for group in groups["SecurityGroups"] if group["GroupName"] == "default"), "")
    tables = cloud.call("ec2", "describe_route_tables", Filters=[{"Name": "vpc-id", "Values": [id_]}])["RouteTables"]
    main = next((t["RouteTableId"] for t in tables if any(a.get("Main") for a in t["Associations"])), "")
    return {
        **_outputs(found),
        "arn": f"arn:aws:ec2:{cloud.region}:123456789012:vpc/{id_}",
        "defaultSecurityGroupId": default,
        "mainRouteTableId": main,
        "defaultRouteTableId": main,
    }


def _subnet_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call(
        "ec2",
        "create_subnet",
        **picked(news, "vpcId", "cidrBlock", "availabilityZone"),
        TagSpecifications=cloud.specification("subnet", news),
    )
    id_ = str(made["Subnet"]["SubnetId"])
    _subnet_update(cloud, id_, {}, news)
    return id_


def _subnet_update(cloud: Cloud, id_: str, olds: Properties, news: Properties) -> None:
    public = bool(news.get("mapPublicIpOnLaunch"))
    if public != bool(olds.get("mapPublicIpOnLaunch")):
        cloud.call("ec2", "modify_subnet_attribute", SubnetId=id_, MapPublicIpOnLaunch={"Value": public})
    if olds:
        cloud.retag(id_, olds, news)


def _subnet_outputs(found: Any) -> Properties:
    return {**_outputs(found), "arn": found.get("SubnetArn", "")}


def _gateway_create(cloud: Cloud, news: Properties) -> str:
    tags = cloud.specification("internet-gateway", news)
    id_ = cloud.call("ec2", "create_internet_gateway", TagSpecifications=tags)["InternetGateway"]["InternetGatewayId"]
    if news.get("vpcId"):
        cloud.call("ec2", "attach_internet_gateway", InternetGatewayId=id_, VpcId=news["vpcId"])
    return str(id_)


def _gateway_delete(cloud: Cloud, id_: str, olds: Properties) -> None:
    if olds.get("vpcId"):
        cloud.call("ec2", "detach_internet_gateway", InternetGatewayId=id_, VpcId=olds["vpcId"])
    cloud.call("ec2", "delete_internet_gateway", InternetGatewayId=id_)


def _table_create(cloud: Cloud, news: Properties) -> str:
    tags = cloud.specification("route-table", news)
    id_ = cloud.call("ec2", "create_route_table", VpcId=news["vpcId"], TagSpecifications=tags)["RouteTable"][
        "RouteTableId"
    ]
    _table_update(cloud, id_, {}, news)
    return str(id_)


def _table_update(cloud: Cloud, id_: str, olds: Properties, news: Properties) -> None:
    for route in olds.get("routes", []):
        if route not in news.get("routes", []):
            cloud.call("ec2", "delete_route", RouteTableId=id_, DestinationCidrBlock=route["cidrBlock"])
    for route in news.get("routes", []):
        if route not in olds.get("routes", []):
            cloud.call(
                "ec2",
                "create_route",
                RouteTableId=id_,
                DestinationCidrBlock=route["cidrBlock"],
                **picked(route, "gatewayId", "natGatewayId", "vpcPeeringConnectionId"),
            )
    if olds:
        cloud.retag(id_, olds, news)


def _route_create(cloud: Cloud, news: Properties) -> str:
    keys = ("routeTableId", "destinationCidrBlock", "gatewayId", "natGatewayId", "vpcPeeringConnectionId")
    cloud.call("ec2", "create_route", **picked(news, *keys))
    return f"r-{news['routeTableId']}-{news['destinationCidrBlock']}"


def _route_read(cloud: Cloud, id_: str, olds: Properties) -> Properties | None:
    table = cloud.one("ec2", "describe_route_tables", "RouteTables", RouteTableIds=[olds["routeTableId"]])
    wanted = olds["destinationCidrBlock"]
    return (
        {"state": "active"} if table and any(r.get("DestinationCidrBlock") == wanted for r in table["Routes"]) else None
    )


def _route_delete(cloud: Cloud, id_: str, olds: Properties) -> None:
    cloud.call("ec2", "delete_route", **picked(olds, "routeTableId", "destinationCidrBlock"))


def _association_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call("ec2", "associate_route_table", **picked(news, "routeTableId", "subnetId", "gatewayId"))
    return str(made["AssociationId"])


def _association_read(cloud: Cloud, id_: str, olds: Properties) -> Properties | None:
    table = cloud.one("ec2", "describe_route_tables", "RouteTables", RouteTableIds=[olds["routeTableId"]])
    rows = table["Associations"] if table else []
    return {} if any(row.get("RouteTableAssociationId") == id_ for row in rows) else None


def _nat_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call(
        "ec2",
        "create_nat_gateway",
        **picked(news, "subnetId", "allocationId", "connectivityType"),
        TagSpecifications=cloud.specification("natgateway", news),
    )
    return str(made["NatGateway"]["NatGatewayId"])


def _nat_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_nat_gateways", "NatGateways", NatGatewayIds=[id_])
    if not found or found.get("State") == "deleted":
        return None
    addresses = (found.get("NatGatewayAddresses") or [{}])[0]
    return {"publicIp": addresses.get("PublicIp", ""), "tagsAll": from_tags(found.get("Tags"))}


def _eip_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_addresses", "Addresses", AllocationIds=[id_])
    return (
        {"publicIp": found["PublicIp"], "allocationId": id_, "tagsAll": from_tags(found.get("Tags"))} if found else None
    )


def _eip_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call(
        "ec2", "allocate_address", Domain="vpc", TagSpecifications=cloud.specification("elastic-ip", news)
    )
    if news.get("instance"):
        cloud.call("ec2", "associate_address", AllocationId=made["AllocationId"], InstanceId=news["instance"])
    return str(made["AllocationId"])


def _eip_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    found = cloud.one("ec2", "describe_addresses", "Addresses", AllocationIds=[id_])
    if found and found.get("AssociationId"):
        cloud.call("ec2", "disassociate_address", AssociationId=found["AssociationId"])
    cloud.call("ec2", "release_address", AllocationId=id_)


def _endpoint_create(cloud: Cloud, news: Properties) -> str:
    keys = (
        "vpcId",
        "serviceName",
        "vpcEndpointType",
        "subnetIds",
        "securityGroupIds",
        "routeTableIds",
        "privateDnsEnabled",
    )
    tags = cloud.specification("vpc-endpoint", news)
    made = cloud.call("ec2", "create_vpc_endpoint", **picked(news, *keys), TagSpecifications=tags)
    return str(made["VpcEndpoint"]["VpcEndpointId"])


def _group_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call(
        "ec2",
        "create_security_group",
        GroupName=news["name"],
        Description=news.get("description", "Managed by Pulumi"),
        VpcId=news.get("vpcId"),
        TagSpecifications=cloud.specification("security-group", news),
    )
    id_ = str(made["GroupId"])
    # As terraform does, the rule that AWS itself adds, all out, is taken away.
    anywhere = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    cloud.call("ec2", "revoke_security_group_egress", GroupId=id_, IpPermissions=anywhere)
    _group_update(cloud, id_, {}, news)
    return id_


def _permission(rule: Properties) -> Properties:
    described = {"Description": rule["description"]} if rule.get("description") else {}
    permission: Properties = {"IpProtocol": str(rule["protocol"])}
    if permission["IpProtocol"] != "-1":
        permission |= {"FromPort": int(rule["fromPort"]), "ToPort": int(rule["toPort"])}
    permission["IpRanges"] = [{"CidrIp": cidr, **described} for cidr in rule.get("cidrBlocks", [])]
    permission["Ipv6Ranges"] = [{"CidrIpv6": cidr, **described} for cidr in rule.get("ipv6CidrBlocks", [])]
    permission["UserIdGroupPairs"] = [{"GroupId": group, **described} for group in rule.get("securityGroups", [])]
    return {key: value for key, value in permission.items() if value != []}


def _group_update(cloud: Cloud, id_: str, olds: Properties, news: Properties) -> None:
    for way in ("ingress", "egress"):
        had, wanted = olds.get(way, []), news.get(way, [])
        for verb, rules in (
            ("revoke", [r for r in had if r not in wanted]),
            ("authorize", [r for r in wanted if r not in had]),
        ):
            rows = [_permission(rule | ({"securityGroups": [id_]} if rule.get("self") else {})) for rule in rules]
            if rows:
                cloud.call("ec2", f"{verb}_security_group_{way}", GroupId=id_, IpPermissions=rows)
    if olds:
        cloud.retag(id_, olds, news)


def _group_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_security_groups", "SecurityGroups", GroupIds=[id_])
    if not found:
        return None
    arn = f"arn:aws:ec2:{cloud.region}:123456789012:security-group/{id_}"
    return {
        "arn": arn,
        "name": found["GroupName"],
        "vpcId": found.get("VpcId", ""),
        "tagsAll": from_tags(found.get("Tags")),
    }


def _rule(way: str) -> Kind:
    def create(cloud: Cloud, news: Properties) -> str:
        rule = {
            "protocol": news["ipProtocol"],
            "fromPort": news.get("fromPort", -1),
            "toPort": news.get("toPort", -1),
            "description": news.get("description"),
            "cidrBlocks": [news["cidrIpv4"]] if news.get("cidrIpv4") else [],
            "ipv6CidrBlocks": [news["cidrIpv6"]] if news.get("cidrIpv6") else [],
            "securityGroups": [news["referencedSecurityGroupId"]] if news.get("referencedSecurityGroupId") else [],
        }
        made = cloud.call(
            "ec2",
            f"authorize_security_group_{way}",
            GroupId=news["securityGroupId"],
            IpPermissions=[_permission(rule)],
            TagSpecifications=cloud.specification("security-group-rule", news),
        )
        return str(made["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
        found = cloud.one("ec2", "describe_security_group_rules", "SecurityGroupRules", SecurityGroupRuleIds=[id_])
        if not found:
            return None
        return {"securityGroupRuleId": id_, "arn": f"arn:aws:ec2:{cloud.region}:123456789012:security-group-rule/{id_}"}

    def delete(cloud: Cloud, id_: str, olds: Properties) -> None:
        group = olds["securityGroupId"]
        cloud.call("ec2", f"revoke_security_group_{way}", GroupId=group, SecurityGroupRuleIds=[id_])

    return Kind(
        label=f"VPC Security Group {way.title()} Rule",
        create=create,
        read=read,
        delete=delete,
        replace={"securityGroupId", "ipProtocol", "fromPort", "toPort", "cidrIpv4", "cidrIpv6",
                 "referencedSecurityGroupId", "description"},  # moto cannot change a rule, so the double makes it anew
        required={"securityGroupId", "ipProtocol"},
    )  # fmt: skip


def _simple(operation: str, by: str) -> Any:
    def delete(cloud: Cloud, id_: str, _: Properties) -> None:
        cloud.call("ec2", operation, **{by: id_})

    return delete


def _endpoint_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("ec2", "delete_vpc_endpoints", VpcEndpointIds=[id_])


def _endpoint_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_vpc_endpoints", "VpcEndpoints", VpcEndpointIds=[id_])
    if not found or found.get("State") == "deleted":
        return None
    return {"state": "available", "tagsAll": from_tags(found.get("Tags"))}


KINDS = {
    "aws:ec2/vpc:Vpc": Kind(
        "EC2 VPC", _vpc_create, _vpc_read, _simple("delete_vpc", "VpcId"), {"cidrBlock"}, {"cidrBlock"}, _vpc_update
    ),
    "aws:ec2/subnet:Subnet": Kind(
        "EC2 Subnet",
        _subnet_create,
        _described("describe_subnets", "Subnets", "SubnetIds"),
        _simple("delete_subnet", "SubnetId"),
        {"vpcId", "cidrBlock", "availabilityZone"},
        {"vpcId"},
        _subnet_update,
        _subnet_outputs,
    ),
    "aws:ec2/internetGateway:InternetGateway": Kind(
        "EC2 Internet Gateway",
        _gateway_create,
        _described("describe_internet_gateways", "InternetGateways", "InternetGatewayIds"),
        _gateway_delete,
        {"vpcId"},
        outputs=_outputs,
    ),
    "aws:ec2/routeTable:RouteTable": Kind(
        "EC2 Route Table",
        _table_create,
        _described("describe_route_tables", "RouteTables", "RouteTableIds"),
        _simple("delete_route_table", "RouteTableId"),
        {"vpcId"},
        {"vpcId"},
        _table_update,
        lambda found: {"tagsAll": from_tags(found.get("Tags"))},
    ),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Kind(
        "EC2 Route Table Association",
        _association_create,
        _association_read,
        _simple("disassociate_route_table", "AssociationId"),
        {"routeTableId", "subnetId", "gatewayId"},
        {"routeTableId"},
    ),
    "aws:ec2/route:Route": Kind(
        "EC2 Route",
        _route_create,
        _route_read,
        _route_delete,
        {"routeTableId", "destinationCidrBlock", "gatewayId", "natGatewayId", "vpcPeeringConnectionId"},
        {"routeTableId"},
        delete_first=True,
    ),
    "aws:ec2/natGateway:NatGateway": Kind(
        "EC2 NAT Gateway",
        _nat_create,
        _nat_read,
        _simple("delete_nat_gateway", "NatGatewayId"),
        {"subnetId", "allocationId", "connectivityType"},
        {"subnetId"},
    ),
    "aws:ec2/eip:Eip": Kind("EC2 EIP", _eip_create, _eip_read, _eip_delete, {"domain", "instance"}),
    "aws:ec2/vpcEndpoint:VpcEndpoint": Kind(
        "EC2 VPC Endpoint",
        _endpoint_create,
        _endpoint_read,
        _endpoint_delete,
        {
            "vpcId",
            "serviceName",
            "vpcEndpointType",
            "subnetIds",
            "securityGroupIds",
            "routeTableIds",
            "privateDnsEnabled",
        },
        {"vpcId"},
    ),
    "aws:ec2/securityGroup:SecurityGroup": Kind(
        "EC2 Security Group",
        _group_create,
        _group_read,
        _simple("delete_security_group", "GroupId"),
        {"name", "description", "vpcId"},
        update=_group_update,
        named=True,
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _rule("ingress"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _rule("egress"),
}
