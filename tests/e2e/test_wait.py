"""Hosts that are not up yet, or have not ended their boot, are waited for by the first phase of the playbook."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rackllama.lab.podman import podman
from rackllama.lab.up import CHECKOUT, start_ansible
from rackllama.provision.inventory import inventory_groups
from rackllama.provision.outputs import DescribedHost, SessionManager

from .waiting import wait_until

HOLD_LOCK = (
    "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'a'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(4)"
)
# Open connections outlive the unit, and Ansible keeps one.
STOP_SSH = "systemctl stop ssh; pkill -x sshd; true"
RESULT = "/run/cloud-init/result.json"
SEED = "/var/lib/cloud/seed/nocloud"
# What a lab host has no use for is left out: locales, keys and users of cloud-init's own.
USER_DATA = {
    "runcmd": [["sleep", "8"]],
    "power_state": {"mode": "reboot", "delay": "now"},
    "locale": False,
    "preserve_hostname": True,
    "ssh_deletekeys": False,
    "users": [],
}
INSTALL = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends cloud-init
mkdir -p {SEED} && echo 'instance-id: first' > {SEED}/meta-data
echo 'datasource_list: [NoCloud]' > /etc/cloud/cloud.cfg.d/99-test.cfg
"""
REMOVE = "apt-get purge --yes --quiet=2 cloud-init; rm -rf /var/lib/cloud /etc/cloud /run/cloud-init"


def wait(site: Any, *arguments: str, **extra_vars: Any) -> tuple[int, str, float]:
    """How playbooks/wait.yml ends: exit code, all it said in one line, and its seconds."""
    started = time.monotonic()
    given = ("-e", json.dumps(extra_vars), *arguments)
    with start_ansible(site.lab.name, "ansible-playbook", "playbooks/wait.yml", *given) as play:
        said, _ = play.communicate()
    return play.returncode, re.sub(r"\s+", " ", said), time.monotonic() - started


def on_host(site: Any, command: str, *options: str) -> None:
    """Run a command of root's on the host without SSH."""
    podman("exec", *options, site.host.container, "sh", "-c", command)


@pytest.fixture
def host(site: Any) -> Iterator[Any]:
    """The site, whose host lets us in again at the end and has no trace of cloud-init."""
    yield site
    on_host(site, "systemctl start ssh; rm -rf /run/cloud-init")


def test_a_host_that_is_up_is_not_waited_for(host: Any) -> None:
    wait(host)
    code, said, seconds = wait(host, "--check")
    assert code == 0, said
    assert "waiting for" not in said
    assert seconds < 5


def test_a_host_without_ssh_is_waited_for_until_it_is_back(host: Any) -> None:
    on_host(host, STOP_SSH)
    on_host(host, "sleep 4; systemctl start ssh", "--detach")
    code, said, _ = wait(host)
    assert code == 0, said
    assert "etoe1: waiting for SSH" in said


def test_when_the_time_is_up_the_console_log_is_shown(host: Any) -> None:
    on_host(host, STOP_SSH)
    described = {"console": {"kind": "podman", "container": host.host.container}}
    code, said, seconds = wait(host, rackllama_wait_seconds=3, rackllama_host=described)
    assert code != 0
    assert seconds < 20
    assert re.search(r"etoe1 is not ready after \d+ s, and was waited for: SSH: .*Connection refused", said)
    assert "etoe1: the end of its console log:" in said
    assert "Stopped ssh.service" in said


def test_cloud_init_that_has_just_ended_may_reboot_and_is_waited_for(host: Any) -> None:
    on_host(host, f"mkdir /run/cloud-init; echo '{json.dumps({'v1': {'errors': []}})}' > {RESULT}")
    code, said, _ = wait(host)
    assert code == 0, said
    assert "etoe1: waiting for cloud-init: it has just ended, and may reboot" in said


def test_a_failed_cloud_init_is_told_at_once(host: Any) -> None:
    failed = json.dumps({"v1": {"errors": ["scripts-user: no such disk"]}})
    on_host(host, f"mkdir /run/cloud-init; echo '{failed}' > {RESULT}")
    code, said, _ = wait(host)
    assert code != 0
    assert "etoe1 is not ready, cloud-init has failed: scripts-user: no such disk" in said
    assert "see /var/log/cloud-init-output.log" in said


def test_whoever_installs_packages_is_waited_for_by_name(host: Any) -> None:
    on_host(host, f'python3 -c "{HOLD_LOCK}"', "--detach")
    code, said, _ = wait(host)
    assert code == 0, said
    assert re.search(r"etoe1: waiting for packages: python3 \(process \d+\) holds /var/lib/dpkg/lock-frontend", said)


def test_a_time_limit_that_is_none_is_refused(host: Any) -> None:
    code, said, _ = wait(host, rackllama_wait_seconds="soon")
    assert code != 0
    assert "rackllama_wait_seconds is 'soon'" in said
    assert "give a number of seconds" in said


STAND_IN_AWS = """#!{python}
import socket, sys, threading

asked = sys.argv[1:]
assert asked[:6] == ["ssm", "start-session", "--target", "i-0a1", "--region", "us-east-1"], asked
assert asked[6:] == ["--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=22"], asked
with socket.create_connection(("{address}", 22)) as host:
    def up():
        while sent := sys.stdin.buffer.read1():
            host.sendall(sent)
    threading.Thread(target=up, daemon=True).start()
    while received := host.recv(65536):
        sys.stdout.buffer.write(received)
        sys.stdout.buffer.flush()
"""


def test_a_host_is_reached_through_session_manager_alone(host: Any, tmp_path: Path) -> None:
    # AWS is stood in for by a program that passes the bytes on: what ssh runs, and trusts, is real.
    (tmp_path / "aws").write_text(STAND_IN_AWS.format(python=sys.executable, address=host.host.address))
    (tmp_path / "session-manager-plugin").touch()
    for program in ("aws", "session-manager-plugin"):
        (tmp_path / program).chmod(0o755)
    described = DescribedHost(
        name="etoe1",
        address="192.0.2.1",  # where nobody is (RFC 5737)
        user=host.lab.user,
        gpus=[],
        roles=["serving"],
        via=SessionManager("i-0a1", "us-east-1"),
        login={"key": str(host.lab.key)},
    )
    known_hosts = tmp_path / "known hosts"
    groups = inventory_groups({"hosts": [described.as_data()]}, known_hosts=known_hosts)
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"serving": {"hosts": groups.variables}}))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "playbooks/wait.yml"],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert known_hosts.read_text().startswith("i-0a1 ssh-ed25519 ")


@pytest.fixture
def cloud_host(host: Any) -> Iterator[Any]:
    """The site, whose host runs a real cloud-init at its next boot, for eight seconds, and is then rebooted by it."""
    on_host(host, f"{INSTALL}\nprintf '#cloud-config\\n%s' '{json.dumps(USER_DATA)}' > {SEED}/user-data")
    yield host
    if state(host) != "running":
        podman("start", host.host.container)
    on_host(host, REMOVE)


def state(site: Any) -> str:
    return podman("inspect", "--format={{.State.Status}}", site.host.container).strip()


@pytest.mark.slow
def test_a_real_cloud_init_is_waited_for_and_so_is_its_reboot(cloud_host: Any) -> None:
    podman("stop", "--time=30", cloud_host.host.container)
    podman("start", cloud_host.host.container)
    with start_ansible(cloud_host.lab.name, "ansible-playbook", "playbooks/wait.yml") as play:
        wait_until(lambda: state(cloud_host) == "exited", seconds=60)  # a container that reboots ends
        assert play.poll() is None
        podman("start", cloud_host.host.container)
        said, _ = play.communicate()
    assert play.returncode == 0, said
    assert "etoe1: waiting for cloud-init: in the stage modules-final" in said
