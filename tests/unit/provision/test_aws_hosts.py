"""Hosts on AWS, alone and as a cluster, where their models are kept, and what watches over their cost."""

import json

import pytest
import yaml

from rackllama.catalog.hardware import read_instances
from rackllama.host.errors import RackllamaError
from rackllama.provision.policies import violations

from .aws_world import KEY, LABELS, REGION, ZONES, built, host_args, value_of  # isort: skip
from rackllama.provision.aws.capacity import BuyCapacityBlock, BuyCapacityBlockArgs, CapacityBlock, OnDemand, Spot
from rackllama.provision.aws.cluster import EFA_CARDS, GpuCluster, GpuClusterArgs
from rackllama.provision.aws.host import GpuHost, cloud_config
from rackllama.provision.aws.role import HostRole, HostRoleArgs, partition
from rackllama.provision.aws.storage import ModelBucket, ModelBucketArgs, ModelVolume, ModelVolumeArgs
from rackllama.provision.aws.watch import AutoStop, AutoStopArgs, Budget, BudgetArgs


def test_a_host_is_private_encrypted_and_asks_for_tokens():
    world = built(lambda: GpuHost("gpu1", host_args()))
    host = world.one("Instance")
    assert host["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }
    assert host["rootBlockDevice"]["encrypted"] is True
    assert host["rootBlockDevice"]["volumeType"] == "gp3"
    assert host["associatePublicIpAddress"] is False
    assert (host["availabilityZone"], host["subnetId"], host["vpcSecurityGroupIds"]) == (ZONES[0], "subnet-1", ["sg-1"])
    assert "ephemeralBlockDevices" not in host  # the instance store is the storage role's
    assert "instanceMarketOptions" not in host


def test_cloud_init_lets_in_one_key_and_no_password():
    head, _, text = cloud_config("ops", f"{KEY}\n").partition("\n")
    assert head == "#cloud-config"
    told = yaml.safe_load(text)
    assert told["users"][0]["name"] == "ops"
    assert told["users"][0]["ssh_authorized_keys"] == [KEY]
    assert told["users"][0]["lock_passwd"] is True
    assert told["ssh_pwauth"] is False


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"ssh_public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, "a private key"),
        ({"ssh_public_key": f"{KEY}\nruncmd: [evil]"}, "no public key"),
        ({"user": "root; reboot"}, "no name of a user"),
    ],
)
def test_what_nobody_can_log_in_with_is_refused(told, said):
    with pytest.raises(RackllamaError, match=said) as caught:
        host_args(**told)
    assert "BEGIN" not in str(caught.value)


def test_capacity_says_how_a_host_is_launched():
    spot = built(lambda: GpuHost("gpu1", host_args(capacity=Spot()))).one("Instance")
    assert spot["instanceMarketOptions"]["marketType"] == "spot"
    block = built(lambda: GpuHost("gpu1", host_args(capacity=CapacityBlock("cr-1")))).one("Instance")
    assert block["instanceMarketOptions"] == {"marketType": "capacity-block"}
    assert block["capacityReservationSpecification"] == {"capacityReservationTarget": {"capacityReservationId": "cr-1"}}
    assert OnDemand().launch_options() == {}


def test_a_capacity_block_is_bought_only_by_a_word():
    with pytest.raises(RackllamaError, match="nothing gives the money back"):
        BuyCapacityBlockArgs(LABELS, "cb-1")
    bought = BuyCapacityBlockArgs(LABELS, "cb-1", is_confirmed=True)
    block = built(lambda: BuyCapacityBlock("block", bought)).one("CapacityBlockReservation")
    assert block["capacityBlockOfferingId"] == "cb-1"


def test_hosts_of_a_cluster_stand_together_and_speak_efa():
    host = host_args(instance_type="p5.48xlarge")
    world = built(lambda: GpuCluster("gpu", GpuClusterArgs(host, "vpc-1", count=2, has_efa=True)))
    assert world.one("PlacementGroup")["strategy"] == "cluster"
    interfaces = world.one("LaunchTemplate")["networkInterfaces"]
    assert (interfaces[0]["interfaceType"], interfaces[0]["deviceIndex"]) == ("interface", 0)
    efa = [(one["networkCardIndex"], one["deviceIndex"]) for one in interfaces[1:]]
    assert efa == [(card, 1) for card in range(32)]
    assert not any("associatePublicIpAddress" in one for one in interfaces)  # AWS refuses it beside several
    assert {one["interfaceType"] for one in interfaces[1:]} == {"efa-only"}
    assert all(one["securityGroups"] == ["sg-1", "gpu-efa-id"] for one in interfaces)
    assert world.one("SecurityGroup")["ingress"][0]["self"] is True
    for instance in world.of("Instance"):
        assert instance["launchTemplate"] == {"id": "gpu-id"}
        assert "subnetId" not in instance
        assert "vpcSecurityGroupIds" not in instance
    assert len(world.of("Instance")) == 2


def test_hosts_without_efa_are_hosts_beside_each_other():
    world = built(lambda: GpuCluster("gpu", GpuClusterArgs(host_args(), "vpc-1", count=3)))
    assert sorted(one.name for one in world.resources) == ["gpu1", "gpu2", "gpu3"]


@pytest.mark.parametrize(
    ("kind", "count", "said"),
    [("p5.48xlarge", 1, "there is one"), ("g6.xlarge", 2, "g6.xlarge has no EFA"), ("p5.48xlarge", 0, "0 hosts")],
)
def test_a_cluster_of_one_or_without_efa_is_refused(kind, count, said):
    with pytest.raises(RackllamaError, match=said):
        GpuClusterArgs(host_args(instance_type=kind), "vpc-1", count, has_efa=True)


def test_efa_is_known_of_types_of_the_catalogue():
    assert EFA_CARDS.keys() <= read_instances().keys()


def test_a_role_is_for_session_manager_and_one_bucket():
    world = built(lambda: HostRole("host", HostRoleArgs(LABELS, REGION, "models")))
    assert world.one("RolePolicyAttachment")["policyArn"] == "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    statements = json.loads(world.one("RolePolicy")["policy"])["Statement"]
    assert {statement["Action"] for statement in statements} == {"s3:ListBucket", "s3:GetObject"}
    assert {statement["Resource"] for statement in statements} == {"arn:aws:s3:::models", "arn:aws:s3:::models/*"}
    assert built(lambda: HostRole("host", HostRoleArgs(LABELS, REGION))).of("RolePolicy") == []
    assert [partition(region) for region in ("eu-west-1", "cn-north-1", "us-gov-west-1")] == [
        "aws",
        "aws-cn",
        "aws-us-gov",
    ]


def test_a_model_volume_stands_in_its_hosts_zone():
    volumes = []

    def program():
        volumes.append(ModelVolume("models", ModelVolumeArgs(LABELS, GpuHost("gpu1", host_args()), 500)))

    world = built(program)
    volume = world.one("Volume")
    assert (volume["availabilityZone"], volume["type"], volume["size"]) == (ZONES[0], "gp3", 500)
    assert volume["encrypted"] is True
    attachment = world.one("VolumeAttachment")
    assert (attachment["instanceId"], attachment["volumeId"]) == ("gpu1-id", "models-id")
    assert attachment["stopInstanceBeforeDetaching"] is True
    (cost,) = volumes[0].costs()
    assert (cost.usd, cost.unit, cost.survives_destroy, value_of(cost.id)) == (40.0, "month", True, "models-id")


def test_a_spot_host_that_aws_does_not_stop_has_its_volume_taken_away():
    spot = host_args(capacity=Spot())
    world = built(lambda: ModelVolume("models", ModelVolumeArgs(LABELS, GpuHost("gpu1", spot), 500)))
    attachment = world.one("VolumeAttachment")
    assert (attachment["stopInstanceBeforeDetaching"], attachment["forceDetach"]) == (False, True)


def test_a_volume_that_an_earlier_stack_left_is_taken():
    args = {"size_gib": 500, "volume_id": "vol-9"}
    world = built(lambda: ModelVolume("models", ModelVolumeArgs(LABELS, GpuHost("gpu1", host_args()), **args)))
    assert world.of("Volume") == []
    assert world.one("VolumeAttachment")["volumeId"] == "vol-9"


def test_a_bucket_is_encrypted_and_nobodys():
    world = built(lambda: ModelBucket("models", ModelBucketArgs(LABELS)))
    block = world.one("BucketPublicAccessBlock")
    assert all(value is True for key, value in block.items() if key != "bucket")
    (rule,) = world.one("BucketServerSideEncryptionConfiguration")["rules"]
    assert rule["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "AES256"


def test_a_budget_counts_this_stack_and_warns_by_mail():
    world = built(lambda: Budget("budget", BudgetArgs(LABELS, 500, "ops@example.org")))
    budget = world.one("Budget")
    assert (budget["limitAmount"], budget["timeUnit"]) == ("500", "MONTHLY")
    assert budget["costFilters"] == [{"name": "TagKeyValue", "values": ["user:rackllama-stack$rackllama-aws-test"]}]
    assert {row["notificationType"] for row in budget["notifications"]} == {"ACTUAL", "FORECASTED"}
    assert all(row["subscriberEmailAddresses"] == ["ops@example.org"] for row in budget["notifications"])
    for told in ((0, "ops@example.org"), (500, "nobody")):
        with pytest.raises(RackllamaError):
            BudgetArgs(LABELS, *told)


def test_an_idle_host_is_stopped_after_hours():
    world = built(lambda: AutoStop("idle", AutoStopArgs(LABELS, REGION, GpuHost("gpu1", host_args()), hours=3)))
    alarm = world.one("MetricAlarm")
    assert (alarm["metricName"], alarm["period"], alarm["evaluationPeriods"]) == ("NetworkOut", 300, 36)
    assert alarm["dimensions"] == {"InstanceId": "gpu1-id"}
    assert alarm["alarmActions"] == ["arn:aws:automate:us-east-1:ec2:stop"]
    assert alarm["treatMissingData"] == "notBreaching"


def test_nothing_lacks_its_tags():
    def program():
        host = GpuHost("gpu1", host_args())
        ModelVolume("models", ModelVolumeArgs(LABELS, host, 500))
        ModelBucket("bucket", ModelBucketArgs(LABELS))
        HostRole("host", HostRoleArgs(LABELS, REGION, "models"))
        Budget("budget", BudgetArgs(LABELS, 500, "ops@example.org"))
        AutoStop("idle", AutoStopArgs(LABELS, REGION, host, hours=3))

    assert violations(built(program).resources) == []
