"""The network of a stack: private subnets, and nothing let in or out but what was asked for."""

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.provision.policies import violations

from .aws_world import LABELS, REGION, ZONES, built  # isort: skip
from rackllama.provision.aws.network import GivenVpc, Network, NetworkArgs, OwnVpc
from rackllama.provision.aws.ways_in import LoadBalancer, NoWayIn, PeeredNetwork
from rackllama.provision.aws.ways_out import Endpoints, NatGateway, NoWayOut


def args(**told) -> NetworkArgs:
    return NetworkArgs(**{"labels": LABELS, "region": REGION, "zones": ZONES, **told})


def ingress_of_hosts(world) -> list:
    (group,) = [one for one in world.of("SecurityGroup") if one["description"].startswith("Hosts")]
    return group["ingress"]


def test_by_default_hosts_get_out_by_nat_and_nobody_gets_in():
    world = built(lambda: Network("net", args()))
    assert ingress_of_hosts(world) == []
    assert world.one("NatGateway")["subnetId"] == "net-public-us-east-1a-id"
    routes = {route["routeTableId"]: route for route in world.of("Route")}
    assert routes["net-private-id"]["natGatewayId"] == "net-nat-id"
    assert routes["net-public-id"]["gatewayId"] == "net-id"
    assert [subnet["mapPublicIpOnLaunch"] for subnet in world.of("Subnet")] == [False] * 4


def test_a_subnet_stays_where_it_is_when_zones_are_ordered_otherwise():
    def ranges(zones):
        return {
            subnet["availabilityZone"]: subnet["cidrBlock"]
            for subnet in built(lambda: Network("net", args(zones=zones, way_out=NoWayOut()))).of("Subnet")
        }

    few, many = ranges(("us-east-1c",)), ranges(("us-east-1f", "us-east-1c", "us-east-1a"))
    assert few["us-east-1c"] == many["us-east-1c"] == "10.42.32.0/20"


def test_endpoints_let_hosts_at_session_manager_and_s3_alone():
    world = built(lambda: Network("net", args(way_out=Endpoints())))
    services = {endpoint["serviceName"].rpartition(".")[2] for endpoint in world.of("VpcEndpoint")}
    assert services == {"ssm", "ssmmessages", "ec2messages", "s3"}
    assert world.of("NatGateway") == world.of("InternetGateway") == world.of("Route") == []


def test_a_load_balancer_lets_named_ranges_at_443_of_the_hosts():
    world = built(lambda: Network("net", args(way_in=LoadBalancer(("203.0.113.0/24",)))))
    (front,) = [one for one in world.of("SecurityGroup") if one["description"].startswith("Users")]
    assert [(rule["fromPort"], rule["cidrBlocks"]) for rule in front["ingress"]] == [(443, ["203.0.113.0/24"])]
    (rule,) = ingress_of_hosts(world)
    assert (rule["fromPort"], rule["toPort"], rule["securityGroups"]) == (443, 443, ["net-front-id"])
    assert world.one("LoadBalancer")["loadBalancerType"] == "network"


def test_a_peered_network_is_routed_back_and_let_in():
    world = built(lambda: Network("net", args(way_in=PeeredNetwork(("10.9.0.0/16",), "pcx-1"))))
    (rule,) = ingress_of_hosts(world)
    assert (rule["fromPort"], rule["cidrBlocks"]) == (443, ["10.9.0.0/16"])
    assert "pcx-1" in [route.get("vpcPeeringConnectionId") for route in world.of("Route")]


def test_ssh_is_let_in_from_named_ranges():
    world = built(lambda: Network("net", args(ssh_from=("198.51.100.7/32",))))
    (rule,) = ingress_of_hosts(world)
    assert (rule["fromPort"], rule["toPort"], rule["cidrBlocks"]) == (22, 22, ["198.51.100.7/32"])


def test_a_given_vpc_is_left_as_it_is():
    given = GivenVpc("vpc-1", {"us-east-1a": "subnet-a", "us-east-1b": "subnet-b"})
    world = built(lambda: Network("net", args(vpc=given, way_in=PeeredNetwork(("10.9.0.0/16",)))))
    assert [one.type for one in world.resources] == ["aws:ec2/securityGroup:SecurityGroup"]
    assert world.one("SecurityGroup")["vpcId"] == "vpc-1"
    assert ingress_of_hosts(world)[0]["cidrBlocks"] == ["10.9.0.0/16"]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"ssh_from": ["0.0.0.0/0"]}, "lets the internet in"),
        ({"ssh_from": ["0.0.0.0/1", "128.0.0.0/1"]}, "lets the internet in"),
        ({"ssh_from": ["::/0"]}, "no IPv4 range"),
        ({"ssh_from": ["198.51.100.7"]}, "no IPv4 range"),
        ({"zones": ["us-west-2a"]}, "no zone of us-east-1"),
        ({"zones": ["us-east-1-bos-1a"]}, "no zone of us-east-1"),
        ({"zones": ["us-east-1a", "us-east-1a"]}, "one twice"),
        ({"zones": []}, "names none"),
        ({"vpc": GivenVpc("vpc-1", {}), "way_in": NoWayIn()}, "no subnet of vpc-1 is given"),
        ({"vpc": GivenVpc("vpc-1", {}), "way_in": LoadBalancer(("10.0.0.0/8",))}, "changes the routes"),
        ({"vpc": GivenVpc("vpc-1", {}), "way_in": PeeredNetwork(("10.0.0.0/8",), "pcx-1")}, "changes the routes"),
    ],
)
def test_what_a_network_cannot_be_is_refused(told, said):
    with pytest.raises(RackllamaError, match=said):
        args(**told)


@pytest.mark.parametrize("make", [lambda: LoadBalancer(()), lambda: PeeredNetwork(()), lambda: OwnVpc("10.0.0.0/24")])
def test_a_way_for_nobody_and_a_range_without_room_are_refused(make):
    with pytest.raises(RackllamaError):
        make()


@pytest.mark.parametrize("way_out", [NatGateway(), Endpoints(), NoWayOut()])
@pytest.mark.parametrize("way_in", [LoadBalancer(("0.0.0.0/0",)), PeeredNetwork(("10.9.0.0/16",)), NoWayIn()])
def test_all_ways_keep_the_policies(way_out, way_in):
    assert violations(built(lambda: Network("net", args(way_out=way_out, way_in=way_in))).resources) == []


def test_ways_tell_what_they_cost():
    nat = {cost.what: cost for cost in NatGateway().costs(404.4)}
    assert nat["NAT gateway"].usd == 0.045
    assert "18.20 USD each time the model's 404 GB land" in nat["data through the NAT gateway"].note
    assert [cost.usd for cost in Endpoints().costs(404.4)] == [0.03, 0.01]
    assert [cost.usd for cost in LoadBalancer(("10.0.0.0/8",)).costs(2)] == [0.0225, 0.01]
    assert NoWayOut().costs(404.4) == NoWayIn().costs(2) == ()
