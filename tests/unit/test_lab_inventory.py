"""From a description of hosts to Ansible's groups and variables."""

import json
import shlex
from pathlib import Path

import pytest
from ansible._internal._json._profiles._inventory_legacy import Encoder
from ansible.inventory.data import InventoryData

from rackllama.host.errors import RackllamaError
from rackllama.provision.inventory import inventory_groups, ssh_variables

HOSTS = [
    {"name": "a1", "address": "10.0.0.2", "user": "ops", "gpus": [], "roles": ["serving", "gateway"]},
    {"name": "a2", "address": "10.0.0.3", "user": "ubuntu", "gpus": [], "roles": ["serving"]},
]


def test_a_host_is_in_the_group_of_each_of_its_roles():
    groups = inventory_groups({"hosts": HOSTS}).groups

    assert groups == {"serving": ["a1", "a2"], "gateway": ["a1"], "webui": [], "mirror": []}


def test_a_host_has_its_own_address_and_user_and_what_all_hosts_share():
    variables = inventory_groups({"hosts": HOSTS}, {"ansible_port": "2222"}).variables

    assert variables["a2"] == {"ansible_host": "10.0.0.3", "ansible_user": "ubuntu", "ansible_port": "2222"}


def test_ansibles_inventory_gets_all_of_it():
    inventory = InventoryData()
    inventory_groups({"hosts": HOSTS}).add_to(inventory)

    assert inventory.get_groups_dict()["gateway"] == ["a1"]
    assert inventory.groups["webui"].hosts == []
    assert inventory.get_host("a1").vars["ansible_host"] == "10.0.0.2"


def test_what_is_trusted_is_plain_text_to_those_who_read_the_inventory_as_json():
    def as_listed(groups):
        return json.loads(json.dumps({"_meta": {"hostvars": groups.variables}}, cls=Encoder))["_meta"]["hostvars"]

    groups = inventory_groups({"hosts": HOSTS})
    assert as_listed(groups)["a1"]["ansible_host"] == {"__ansible_unsafe": "10.0.0.2"}
    assert as_listed(groups.trusted())["a1"]["ansible_host"] == "10.0.0.2"


def test_no_hosts_make_empty_groups():
    assert inventory_groups({}).groups == {"serving": [], "gateway": [], "webui": [], "mirror": []}


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ([{**HOSTS[0], "roles": ["cooking"]}], "'a1' has the role 'cooking', which is none of serving"),
        ([{"name": "a1", "user": "ops", "roles": ["serving"]}], "'a1' has no address"),
        ([HOSTS[0], HOSTS[0]], "two hosts are named 'a1'"),
    ],
)
def test_a_description_that_is_not_of_the_schema_is_refused(hosts, said):
    with pytest.raises(RackllamaError, match=said):
        inventory_groups({"hosts": hosts})


def test_ssh_trusts_the_labs_own_known_hosts_only_also_where_a_folder_has_a_space():
    variables = ssh_variables(Path("/home/me/the key"), Path("/home/me/my labs/known_hosts"))

    arguments = shlex.split(variables["ansible_ssh_common_args"])
    assert "StrictHostKeyChecking=yes" in arguments
    assert 'UserKnownHostsFile="/home/me/my labs/known_hosts"' in arguments
    assert variables["ansible_ssh_private_key_file"] == "/home/me/the key"
