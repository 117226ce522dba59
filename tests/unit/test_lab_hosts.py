"""Labs: which hosts are made, kept, started again and removed, and where in the network they are."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import islice

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab.hosts import (
    Host,
    Lab,
    Plan,
    check_devices,
    check_maker,
    check_name,
    free_addresses,
    free_subnet,
    mac_address,
    made_from,
    networks_subnets,
    parse_hosts,
    plan,
    routed_networks,
    run_arguments,
)
from rackllama.provision.inventory import inventory_groups

SUBNET = IPv4Network("10.9.8.0/24")


def host(number, *, lab="lab", made="m1", state="running", address=None):
    return Host(lab, number, IPv4Address(address or f"10.9.8.{number + 1}"), "bookworm", made, state)


def wanted(count, made="m1"):
    return [host(number, made=made, state="absent", address="10.9.8.0") for number in range(1, count + 1)]


def names(hosts):
    return [host.name for host in hosts]


def test_new_hosts_get_the_lowest_free_addresses_after_the_gateways():
    create = plan(wanted(2), [host(1, lab="other", address="10.9.8.3")], SUBNET).create

    assert [(host.name, str(host.address)) for host in create] == [("lab1", "10.9.8.2"), ("lab2", "10.9.8.4")]


def test_a_lab_that_is_as_wanted_is_left_alone():
    found = (host(1), host(2))

    assert plan(wanted(2), found, SUBNET) == Plan(remove=(), create=(), restart=(), keep=found)


def test_more_hosts_are_added_and_fewer_removed_without_touching_the_others():
    more = plan(wanted(3), [host(1), host(3)], SUBNET)
    fewer = plan(wanted(1), [host(1), host(2)], SUBNET)

    assert (names(more.keep), names(more.create)) == (["lab1", "lab3"], ["lab2"])
    assert (names(fewer.keep), names(fewer.remove)) == (["lab1"], ["lab2"])


@pytest.mark.parametrize("state", ["exited", "created"])
def test_hosts_that_do_not_run_are_started_again_with_their_address(state):
    steps = plan(wanted(1), [host(1, state=state, address="10.9.8.77")], SUBNET)

    assert [str(host.address) for host in steps.restart] == ["10.9.8.77"]


@pytest.mark.parametrize(
    "found",
    [
        host(1, made="another image"),
        host(1, state="stopping"),
        host(1, address="10.1.1.2"),  # the network was made anew, with another subnet
    ],
)
def test_a_host_that_cannot_stay_is_made_anew(found):
    steps = plan(wanted(1), [found], SUBNET)

    assert (names(steps.remove), names(steps.create)) == (["lab1"], ["lab1"])
    assert str(steps.create[0].address) == "10.9.8.2"


def test_hosts_of_other_labs_are_never_touched():
    others = [host(1, lab="other"), host(2, lab="other", state="exited")]
    new = host(1, made="m2", state="absent", address="10.9.8.4")

    assert plan(wanted(1, made="m2"), others, SUBNET) == Plan(remove=(), create=(new,), restart=(), keep=())


def test_a_lab_that_somebody_else_keeps_is_not_taken_over():
    by_hand, by_stack = host(1), replace(host(1), maker="rackllama-lab/dev")

    check_maker("lab", "", [by_hand, replace(by_stack, lab="other")])
    check_maker("lab", "rackllama-lab/dev", [by_stack])
    with pytest.raises(RackllamaError, match="lab is there already, and was made by hand"):
        check_maker("lab", "rackllama-lab/dev", [by_stack, by_hand])
    with pytest.raises(RackllamaError, match="the stack rackllama-lab/dev keeps it"):
        check_maker("lab", "", [by_stack])


def test_a_full_network_is_an_error():
    small = IPv4Network("10.9.8.0/30")

    assert [str(address) for address in islice(free_addresses(small, []), 1)] == ["10.9.8.2"]
    with pytest.raises(RackllamaError, match=r"10\.9\.8\.0/30 are taken"):
        next(free_addresses(small, [IPv4Address("10.9.8.2")]))


def test_the_subnet_overlaps_no_route_of_the_machine():
    candidates = [IPv4Network("10.9.8.0/24"), IPv4Network("172.29.0.0/24")]
    routes = routed_networks([{"dst": "default", "gateway": "192.0.2.1"}, {"dst": "10.0.0.0/8"}, {"dst": "192.0.2.7"}])

    assert free_subnet(routes, candidates) == candidates[1]
    assert free_subnet([], candidates) == candidates[0]
    with pytest.raises(RackllamaError, match=r"routed elsewhere: 10\.9\.8\.0/24"):
        free_subnet(routes, candidates[:1])


def test_networks_of_podman_that_are_not_up_count_as_well():
    networks = [
        {"name": "podman", "subnets": [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]},
        {"name": "six", "subnets": [{"subnet": "fd00::/64"}]},
        {"name": "none"},
    ]

    assert networks_subnets(networks) == [IPv4Network("10.88.0.0/16")]


@pytest.mark.parametrize("maker", ["", "rackllama-lab/dev"])
def test_what_podman_prints_of_a_host_is_the_host_it_was_run_as(maker):
    made = replace(host(2), maker=maker)
    arguments = run_arguments(made)
    labels = dict(argument.removeprefix("--label=").split("=", 1) for argument in arguments if "--label=" in argument)

    assert parse_hosts([{"Labels": labels, "State": "running", "Names": [made.container]}]) == [made]
    assert f"--name={made.container}" in arguments
    assert f"--hostname={made.name}" in arguments


def test_hosts_are_listed_by_lab_and_by_number_not_by_letter():
    containers = [
        {
            "State": "exited",
            "Labels": {
                "rackllama.lab": lab,
                "rackllama.lab.number": number,
                "rackllama.lab.address": "10.9.8.2",
                "rackllama.lab.suite": "trixie",
                "rackllama.lab.made": "m1",
            },
        }
        for lab, number in [("b", "1"), ("a", "10"), ("a", "9")]
    ]

    assert names(parse_hosts(containers)) == ["a9", "a10", "b1"]


def test_a_host_is_made_otherwise_when_its_image_is():
    assert made_from("recipe 1") == made_from("recipe 1") != made_from("recipe 2")


def test_two_addresses_never_share_a_mac_and_one_address_keeps_its_own():
    macs = {mac_address(address) for address in SUBNET.hosts()}

    assert len(macs) == 254
    assert mac_address(IPv4Address("10.9.8.2")) == "02:4c:0a:09:08:02"


@pytest.mark.parametrize("name", ["lab", "x", "gguf-model", "a1b"])
def test_a_lab_is_named_so_that_its_hosts_can_be(name):
    check_name(name)


@pytest.mark.parametrize("name", ["", "lab1", "-lab", "Lab", "lab_a", "lab-", "a" * 33, "../lab"])
def test_names_that_make_no_hostname_or_could_mean_two_hosts_are_refused(name):
    with pytest.raises(RackllamaError, match="cannot name a lab"):
        check_name(name)


def test_the_inventory_of_a_lab_is_that_of_any_other_maker_of_hosts(tmp_path):
    lab = Lab("lab", (host(1), replace(host(2), state="exited")), "ops", tmp_path / "key", tmp_path / "known_hosts")

    assert lab.inventory["hosts"][0] == {
        "name": "lab1",
        "address": "10.9.8.2",
        "user": "ops",
        "gpus": [],
        "roles": ["serving", "gateway"],
    }
    assert inventory_groups(lab.inventory).groups["serving"] == ["lab1", "lab2"]
    assert inventory_groups(lab.inventory).groups["gateway"] == ["lab1"]


def test_a_device_is_handed_to_the_one_host_and_its_host_is_made_otherwise():
    assert "--device=/dev/loop3" in run_arguments(host(1), ["/dev/loop3"])
    assert made_from("recipe", ["/dev/loop3"]) != made_from("recipe")


def test_only_a_block_device_is_handed_and_to_one_host_alone():
    with pytest.raises(RackllamaError, match="two hosts would write to the same device"):
        check_devices(["/dev/loop3"], 2)
    with pytest.raises(RackllamaError, match="/dev/null is no block device"):
        check_devices(["/dev/null"], 1)
    check_devices([], 5)
