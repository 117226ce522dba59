"""How Ansible logs in to what a stack describes: by address, or through Session Manager."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.template import is_trusted_as_template

from rackllama.host.errors import RackllamaError
from rackllama.provision.inventory import inventory_groups

HOST = {"name": "gpu1", "address": "10.0.1.12", "user": "ubuntu", "gpus": ["H100-80GB"], "roles": ["serving"]}
MANAGED = {"kind": "session-manager", "instance": "i-0a1b2c", "region": "us-east-1"}
KNOWN = Path("/home/me/my state/known")


def variables(**told: Any) -> dict[str, Any]:
    return inventory_groups({"hosts": [{**HOST, **told}]}, known_hosts=KNOWN).variables["gpu1"]


def options(found: dict[str, Any]) -> dict[str, str]:
    words = shlex.split(found["ansible_ssh_common_args"])
    return dict(word.split("=", 1) for word in words if word != "-o")


def effective(found: dict[str, Any]) -> dict[str, str]:
    """What ssh itself makes of it for the host."""
    if not shutil.which("ssh"):
        pytest.skip("no ssh on this machine")
    command = ["ssh", "-F", "none", "-G", *shlex.split(found["ansible_ssh_common_args"]), found["ansible_host"]]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def test_a_new_host_is_believed_once_where_no_keys_are_given() -> None:
    told = options(variables())
    assert told["StrictHostKeyChecking"] == "accept-new"
    assert told["UserKnownHostsFile"] == f'"{KNOWN}"'
    assert "ansible_ssh_private_key_file" not in variables()


def test_given_keys_are_the_only_ones() -> None:
    found = variables(login={"key": "/keys/lab", "known_hosts": "/keys/lab.known_hosts"})
    assert found["ansible_ssh_private_key_file"] == "/keys/lab"
    told = options(found)
    assert (told["StrictHostKeyChecking"], told["UserKnownHostsFile"]) == ("yes", '"/keys/lab.known_hosts"')
    assert told["IdentitiesOnly"] == "yes"


def test_session_manager_is_what_ssh_runs_to_reach_the_host() -> None:
    found = variables(via=MANAGED)
    command = shlex.split(effective(found)["proxycommand"])
    assert command[:7] == ["aws", "ssm", "start-session", "--target", "i-0a1b2c", "--region", "us-east-1"]
    assert command[7:] == ["--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=%p"]


@pytest.mark.parametrize("told", [{"via": MANAGED}, {"console": {"kind": "aws", "instance": "i-0a1b2c"}}])
def test_an_instance_is_known_by_its_id_as_addresses_repeat(told: dict[str, Any]) -> None:
    found = variables(**told)
    assert effective(found)["hostkeyalias"] == "i-0a1b2c"
    assert found["ansible_control_path"] == "%(directory)s/i-0a1b2c-%%r"


def test_hosts_without_an_instance_are_known_by_their_address() -> None:
    assert "HostKeyAlias" not in options(variables())
    assert "ansible_control_path" not in variables()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"via": {"kind": "pigeon"}}, "reached by 'pigeon'"),
        ({"via": {**MANAGED, "instance": "i-1; rm -rf /"}}, "is no id of one"),
        ({"via": {"kind": "session-manager"}}, "has the instance ''"),
    ],
)
def test_what_ssh_is_not_to_run_is_refused(told: dict[str, Any], said: str) -> None:
    with pytest.raises(RackllamaError, match=said):
        variables(**told)


@pytest.mark.parametrize("hosts", ["gpu1", ["gpu1"]])
def test_hosts_that_are_no_list_of_mappings_are_refused(hosts: object) -> None:
    with pytest.raises(RackllamaError, match="not well-formed"):
        inventory_groups({"hosts": hosts})


def test_what_a_host_tells_of_itself_is_a_variable_and_its_own_ones_are_set() -> None:
    found = variables(labels={"zone": "us-east-1a"}, variables={"rackllama_mirror": "http://10.0.0.1"})
    assert found["rackllama_host"] == {"gpus": ["H100-80GB"], "labels": {"zone": "us-east-1a"}}
    assert found["rackllama_mirror"] == "http://10.0.0.1"


def test_a_label_that_is_a_template_is_never_evaluated() -> None:
    labels = {"owner": "{{ lookup('pipe', 'id') }}", "zone": "a"}
    trusted = inventory_groups({"hosts": [{**HOST, "labels": labels}]}).trusted()
    told = trusted.variables["gpu1"]["rackllama_host"]["labels"]
    assert not is_trusted_as_template(told["owner"])
    assert is_trusted_as_template(told["zone"])
