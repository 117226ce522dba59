"""Machines and their disks: instances, launch templates, volumes, network interfaces, keys, reservations."""

import uuid

from .cloud import Cloud, Properties, from_tags, pascal, picked
from .kind import Kind


def _instance_create(cloud: Cloud, news: Properties) -> str:
    placement = picked(news, "availabilityZone", "tenancy") | (
        {"GroupName": news["placementGroup"]} if news.get("placementGroup") else {}
    )
    if news.get("subnetId") and "AvailabilityZone" not in placement:
        subnet = cloud.one("ec2", "describe_subnets", "Subnets", SubnetIds=[news["subnetId"]])
        placement["AvailabilityZone"] = subnet["AvailabilityZone"]
    root = news.get("rootBlockDevice") or {}
    disk = picked(
        root, "volumeSize", "volumeType", "encrypted", "iops", "throughput", "kmsKeyId", "deleteOnTermination"
    )
    disks = [{"DeviceName": "/dev/sda1", "Ebs": disk}] if root else None
    profile = news.get("iamInstanceProfile")
    template = news.get("launchTemplate")
    market = news.get("instanceMarketOptions")
    made = cloud.call(
        "ec2",
        "run_instances",
        MinCount=1,
        MaxCount=1,
        ImageId=news.get("ami"),
        **picked(news, "instanceType", "keyName", "subnetId", "privateIpAddress", "userData", "ebsOptimized"),
        SecurityGroupIds=news.get("vpcSecurityGroupIds"),
        Placement=placement or None,
        BlockDeviceMappings=disks,
        IamInstanceProfile={"Name": profile} if profile else None,
        MetadataOptions=pascal(news["metadataOptions"]) if news.get("metadataOptions") else None,
        InstanceMarketOptions=pascal(market) if market else None,
        LaunchTemplate={
            "LaunchTemplateId": template["id"], "Version": str(template.get("version", "$Default"))
        } if template else None,
        TagSpecifications=cloud.specification("instance", news),
    )  # fmt: skip
    return str(made["Instances"][0]["InstanceId"])


def _instance_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_instances", "Reservations", InstanceIds=[id_])
    found = found["Instances"][0] if found else None
    if not found or found["State"]["Name"] in {"terminated", "shutting-down"}:
        return None
    interfaces = found.get("NetworkInterfaces") or [{}]
    return {
        "arn": f"arn:aws:ec2:{cloud.region}:123456789012:instance/{id_}",
        "ami": found["ImageId"],
        "instanceType": found["InstanceType"],
        "availabilityZone": found["Placement"]["AvailabilityZone"],
        "instanceState": found["State"]["Name"],
        "privateIp": found.get("PrivateIpAddress", ""),
        "privateDns": found.get("PrivateDnsName", ""),
        "publicIp": found.get("PublicIpAddress", ""),
        "publicDns": found.get("PublicDnsName", ""),
        "primaryNetworkInterfaceId": interfaces[0].get("NetworkInterfaceId", ""),
        "tagsAll": from_tags(found.get("Tags")),
    }


def _instance_update(cloud: Cloud, id_: str, olds: Properties, news: Properties) -> None:
    if news.get("instanceType") != olds.get("instanceType"):
        cloud.call("ec2", "stop_instances", InstanceIds=[id_])
        value = {"Value": news["instanceType"]}
        cloud.call("ec2", "modify_instance_attribute", InstanceId=id_, InstanceType=value)
        cloud.call("ec2", "start_instances", InstanceIds=[id_])
    if news.get("metadataOptions") and news["metadataOptions"] != olds.get("metadataOptions"):
        cloud.call("ec2", "modify_instance_metadata_options", InstanceId=id_, **pascal(news["metadataOptions"]))
    cloud.retag(id_, olds, news)


def _instance_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("ec2", "terminate_instances", InstanceIds=[id_])


def _template_data(news: Properties) -> Properties:
    data = picked(news, "imageId", "instanceType", "keyName", "userData", "instanceMarketOptions", "metadataOptions",
                  "networkInterfaces", "placement", "capacityReservationSpecification", "ebsOptimized")  # fmt: skip
    for interface in data.get("NetworkInterfaces", []):
        interface["Groups"] = interface.pop("SecurityGroups", [])
        for key in ("AssociatePublicIpAddress", "DeleteOnTermination"):
            if key in interface:
                interface[key] = str(interface[key]).lower() == "true"
    data["SecurityGroupIds"] = news.get("vpcSecurityGroupIds", [])
    data["BlockDeviceMappings"] = pascal(news.get("blockDeviceMappings", []))
    for disk in data["BlockDeviceMappings"]:
        for key in ("Encrypted", "DeleteOnTermination"):
            if key in disk.get("Ebs", {}):
                disk["Ebs"][key] = str(disk["Ebs"][key]).lower() == "true"
    return {key: value for key, value in data.items() if value not in ([], None)}


def _template_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call(
        "ec2",
        "create_launch_template",
        LaunchTemplateName=news["name"],
        LaunchTemplateData=_template_data(news),
        TagSpecifications=cloud.specification("launch-template", news),
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def _template_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_launch_templates", "LaunchTemplates", LaunchTemplateIds=[id_])
    if not found:
        return None
    return {
        "name": found["LaunchTemplateName"],
        "defaultVersion": found["DefaultVersionNumber"],
        "latestVersion": found["LatestVersionNumber"],
        "tagsAll": from_tags(found.get("Tags")),
    }


def _template_update(cloud: Cloud, id_: str, olds: Properties, news: Properties) -> None:
    if _template_data(olds) != _template_data(news):
        cloud.call(
            "ec2", "create_launch_template_version", LaunchTemplateId=id_, LaunchTemplateData=_template_data(news)
        )
    cloud.retag(id_, olds, news)


def _template_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("ec2", "delete_launch_template", LaunchTemplateId=id_)


def _volume_create(cloud: Cloud, news: Properties) -> str:
    keys = ("availabilityZone", "size", "encrypted", "iops", "throughput", "snapshotId", "kmsKeyId")
    made = cloud.call(
        "ec2",
        "create_volume",
        **picked(news, *keys),
        VolumeType=news.get("type", "gp2"),
        TagSpecifications=cloud.specification("volume", news),
    )
    return str(made["VolumeId"])


def _volume_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_volumes", "Volumes", VolumeIds=[id_])
    if not found:
        return None
    arn = f"arn:aws:ec2:{cloud.region}:123456789012:volume/{id_}"
    return {"arn": arn, "size": found["Size"], "encrypted": found["Encrypted"], "type": found["VolumeType"],
            "availabilityZone": found["AvailabilityZone"], "tagsAll": from_tags(found.get("Tags"))}  # fmt: skip


def _volume_update(cloud: Cloud, id_: str, olds: Properties, news: Properties) -> None:
    changed = {key: news[key] for key in ("size", "iops", "throughput") if news.get(key) not in (None, olds.get(key))}
    if changed:
        cloud.call("ec2", "modify_volume", VolumeId=id_, **picked(changed, *changed))
    cloud.retag(id_, olds, news)


def _volume_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("ec2", "delete_volume", VolumeId=id_)


def _attachment_create(cloud: Cloud, news: Properties) -> str:
    cloud.call(
        "ec2", "attach_volume", VolumeId=news["volumeId"], InstanceId=news["instanceId"], Device=news["deviceName"]
    )
    return f"vai-{news['volumeId'].removeprefix('vol-')}"


def _attachment_read(cloud: Cloud, _: str, olds: Properties) -> Properties | None:
    volume = cloud.one("ec2", "describe_volumes", "Volumes", VolumeIds=[olds["volumeId"]])
    rows = volume["Attachments"] if volume else []
    return {} if any(row["InstanceId"] == olds["instanceId"] for row in rows) else None


def _attachment_delete(cloud: Cloud, id_: str, olds: Properties) -> None:
    if _attachment_read(cloud, id_, olds) is not None:
        cloud.call("ec2", "detach_volume", VolumeId=olds["volumeId"], InstanceId=olds["instanceId"])


def _interface_create(cloud: Cloud, news: Properties) -> str:
    made = cloud.call(
        "ec2",
        "create_network_interface",
        SubnetId=news["subnetId"],
        Groups=news.get("securityGroups"),
        InterfaceType=news.get("interfaceType"),
        Description=news.get("description"),
        TagSpecifications=cloud.specification("network-interface", news),
    )
    id_ = str(made["NetworkInterface"]["NetworkInterfaceId"])
    for place in news.get("attachments", []):
        cloud.call("ec2", "attach_network_interface", NetworkInterfaceId=id_, InstanceId=place["instance"],
                   DeviceIndex=place["deviceIndex"])  # fmt: skip
    return id_


def _interface_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_network_interfaces", "NetworkInterfaces", NetworkInterfaceIds=[id_])
    if not found:
        return None
    return {"privateIp": found.get("PrivateIpAddress", ""), "macAddress": found.get("MacAddress", ""),
            "tagsAll": from_tags(found.get("TagSet"))}  # fmt: skip


def _interface_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    found = cloud.one("ec2", "describe_network_interfaces", "NetworkInterfaces", NetworkInterfaceIds=[id_])
    if found and found.get("Attachment", {}).get("AttachmentId"):
        cloud.call("ec2", "detach_network_interface", AttachmentId=found["Attachment"]["AttachmentId"])
    cloud.call("ec2", "delete_network_interface", NetworkInterfaceId=id_)


def _key_create(cloud: Cloud, news: Properties) -> str:
    name = news.get("keyName") or news["name"]
    tags = cloud.specification("key-pair", news)
    cloud.call(
        "ec2", "import_key_pair", KeyName=name, PublicKeyMaterial=news["publicKey"].encode(), TagSpecifications=tags
    )
    return str(name)


def _key_read(cloud: Cloud, id_: str, _: Properties) -> Properties | None:
    found = cloud.one("ec2", "describe_key_pairs", "KeyPairs", KeyNames=[id_])
    if not found:
        return None
    return {"keyName": id_, "keyPairId": found["KeyPairId"], "fingerprint": found["KeyFingerprint"],
            "tagsAll": from_tags(found.get("Tags"))}  # fmt: skip


def _key_delete(cloud: Cloud, id_: str, _: Properties) -> None:
    cloud.call("ec2", "delete_key_pair", KeyName=id_)


def _kept(label: str, operation: str, prefix: str, replace: set[str], required: set[str]) -> Kind:
    """What moto does not know, so that the double itself keeps it."""
    named = "name" in replace

    def create(cloud: Cloud, news: Properties) -> str:
        cloud.fail_as_told("ec2", operation, news.get("availabilityZone", ""))
        id_ = news["name"] if named else f"{prefix}-{uuid.uuid4().hex[:17]}"
        cloud.kept[id_] = {
            "tagsAll": cloud.tags(news),
            "arn": f"arn:aws:ec2:{cloud.region}:123456789012:{prefix}/{id_}",
        }
        return str(id_)

    def update(cloud: Cloud, id_: str, _: Properties, news: Properties) -> None:
        cloud.kept[id_]["tagsAll"] = cloud.tags(news)

    def delete(cloud: Cloud, id_: str, _: Properties) -> None:
        cloud.kept.pop(id_, None)

    return Kind(
        label, create, lambda cloud, id_, _: cloud.kept.get(id_), delete, replace, required, update, named=named
    )


KINDS: dict[str, Kind] = {
    "aws:ec2/instance:Instance": Kind(
        "EC2 Instance",
        _instance_create,
        _instance_read,
        _instance_delete,
        {"ami", "subnetId", "availabilityZone", "keyName", "placementGroup", "instanceMarketOptions", "privateIp",
         "rootBlockDevice", "userData", "capacityReservationSpecification", "networkInterfaces"},
        update=_instance_update,
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": Kind(
        "EC2 Launch Template", _template_create, _template_read, _template_delete, {"name"}, update=_template_update,
        named=True,
    ),
    "aws:ebs/volume:Volume": Kind(
        "EBS Volume", _volume_create, _volume_read, _volume_delete, {"availabilityZone", "encrypted", "snapshotId",
        "kmsKeyId"}, {"availabilityZone"}, _volume_update,
    ),
    "aws:ec2/volumeAttachment:VolumeAttachment": Kind(
        "EBS Volume Attachment", _attachment_create, _attachment_read, _attachment_delete,
        {"volumeId", "instanceId", "deviceName"}, {"volumeId", "instanceId", "deviceName"}, delete_first=True,
    ),
    "aws:ec2/networkInterface:NetworkInterface": Kind(
        "EC2 Network Interface", _interface_create, _interface_read, _interface_delete,
        {"subnetId", "securityGroups", "interfaceType", "attachments"}, {"subnetId"},
    ),
    "aws:ec2/keyPair:KeyPair": Kind(
        "EC2 Key Pair", _key_create, _key_read, _key_delete, {"keyName", "publicKey"}, {"publicKey"}, named=True,
    ),
    "aws:ec2/placementGroup:PlacementGroup": _kept(
        "EC2 Placement Group", "CreatePlacementGroup", "placement-group", {"name", "strategy"}, {"strategy"}
    ),
    "aws:ec2/capacityReservation:CapacityReservation": _kept(
        "EC2 Capacity Reservation", "CreateCapacityReservation", "cr", {"availabilityZone", "instanceType", "tenancy"},
        {"availabilityZone", "instanceType", "instanceCount"},
    ),
    "aws:ec2/capacityBlockReservation:CapacityBlockReservation": _kept(
        "EC2 Capacity Block Reservation", "PurchaseCapacityBlock", "cr",
        {"capacityBlockOfferingId", "instancePlatform"}, {"capacityBlockOfferingId", "instancePlatform"},
    ),
}  # fmt: skip
