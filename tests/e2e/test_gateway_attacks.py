"""What strangers try at the gateway, what a converge could tell them, and certificates that others renew."""

import datetime
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rackllama.gateway.authority import Authority, authority, sign
from rackllama.lab.up import CHECKOUT

from .gateway_client import Gateway
from .waiting import wait_until

GATEWAY = ("--tags", "gateway")
GUESSER = Path(__file__).with_name("key_guesser.py")
GUESSES_PER_SECOND = 1000
FOLDER = "/srv/certificates"
NEW_KEY = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"


@pytest.fixture(scope="module")
def gateway(converged: Any) -> Gateway:
    return Gateway(converged)


def latency(client: Any, times: int) -> float:
    """The median seconds that an answer takes."""
    taken = []
    for _ in range(times):
        started = time.monotonic()
        assert client.get("/v1/models").status_code == 200
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


@pytest.mark.parametrize("seconds", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_guessing_keys_lets_nobody_in_and_hinders_no_user(gateway: Gateway, seconds: int) -> None:
    user = f"worker{time.time_ns()}"
    with gateway.client(gateway.create(user)) as client:
        before = latency(client, 30)
        address = str(gateway.site.host.address)
        guessing = [sys.executable, str(GUESSER), address, str(seconds), str(GUESSES_PER_SECOND)]
        with subprocess.Popen(guessing, stdout=subprocess.PIPE, text=True) as guesser:
            assert guesser.stdout
            guesser.stdout.readline()  # it begins
            during = latency(client, 30)
            assert guesser.poll() is None  # it still guesses
            statuses = json.loads(guesser.communicate()[0])
    gateway.revoke(user)
    sys.stderr.write(f"{statuses}; a user waited {before * 1000:.1f} ms before, {during * 1000:.1f} ms meanwhile\n")
    assert statuses["401"] > GUESSES_PER_SECOND * seconds / 4  # of the others some wait, and are slowed down
    assert set(statuses) == {"sent", "401"}
    assert during <= 2 * before


def test_a_converge_tells_no_key(gateway: Gateway) -> None:
    gateway.site.run("rm /etc/rackllama/gateway/certificate.pem")  # so that it makes a key
    told = gateway.site.converge(*GATEWAY, "-vvv")
    assert told.code == 0, told.output
    secret = gateway.site.run("sed -n '/BEGIN PRIVATE KEY/,/END PRIVATE KEY/p' /etc/rackllama/gateway/certificate.pem")
    lines = [line for line in secret.splitlines() if "-----" not in line]
    assert len(lines) > 1
    said = told.output + gateway.site.run("journalctl --no-pager -o cat --since -1h; ps -ef")
    assert not [line for line in lines if line in said]
    readable = "find /etc /opt /run /srv /tmp /var/lib -xdev -type f -perm /o=r -exec grep -lF -e {} {{}} + || true"
    for line in lines:
        assert gateway.site.run(readable.format(line)) == ""


# Certificates of somebody else's


@pytest.fixture
def elsewhere(gateway: Gateway, tmp_path: Path) -> Iterator[Authority]:
    """Another authority, and the gateway with a certificate of its."""
    signer = authority(tmp_path / "elsewhere", "elsewhere")
    gateway.site.run(f"mkdir -p {FOLDER}")
    renew(gateway, signer)
    given = {"gateway_certificate": f"{FOLDER}/fullchain.pem", "gateway_certificate_key": f"{FOLDER}/privkey.pem"}
    outcome = gateway.site.converge(*GATEWAY, **given)
    assert outcome.code == 0, outcome.output
    assert gateway.site.converge(*GATEWAY, **given).changed == {gateway.site.host.name: 0}
    yield signer
    assert gateway.site.converge(*GATEWAY).code == 0
    with gateway.client() as client:
        assert client.get("/healthz").status_code == 200


def renew(gateway: Gateway, signer: Authority) -> None:
    """As ACME clients do it: the certificate and its key, one after the other."""
    gateway.site.run(f"{NEW_KEY} -out {FOLDER}/new.pem")
    request = gateway.site.run(f"openssl req -new -key {FOLDER}/new.pem -subj /CN=elsewhere")
    signed = sign(signer, request, [str(gateway.site.host.address)], datetime.datetime.now(datetime.UTC))
    gateway.site.run(f"cat > {FOLDER}/fullchain.pem <<'END'\n{signed}\nEND")
    gateway.site.run(f"mv {FOLDER}/new.pem {FOLDER}/privkey.pem")


def served(gateway: Gateway) -> str:
    return ssl.get_server_certificate((str(gateway.site.host.address), 443))


@pytest.mark.slow
def test_a_renewed_certificate_is_taken_without_a_converge(gateway: Gateway, elsewhere: Authority) -> None:
    first = served(gateway)
    assert first == gateway.site.run(f"cat {FOLDER}/fullchain.pem") + "\n"
    renew(gateway, elsewhere)
    wait_until(lambda: served(gateway) != first, seconds=30)
    assert served(gateway) == gateway.site.run(f"cat {FOLDER}/fullchain.pem") + "\n"
    gateway.site.run(f"{NEW_KEY} -out {FOLDER}/privkey.pem")
    unit = "rackllama-certificate@gateway"
    wait_until(lambda: gateway.site.run(f"systemctl show {unit} --property NRestarts --value") != "0")
    assert "are no certificate and its key" in gateway.site.run(f"journalctl -u {unit} -n 20 -o cat")
    assert served(gateway) == gateway.site.run(f"cat {FOLDER}/fullchain.pem") + "\n"
    renew(gateway, elsewhere)
    wait_until(lambda: served(gateway) == gateway.site.run(f"cat {FOLDER}/fullchain.pem") + "\n")


REMOVAL = """
- hosts: gateway
  become: true
  tasks:
    - ansible.builtin.include_role: {name: rackllama.llm.gateway, tasks_from: remove}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
def test_a_removed_gateway_leaves_its_keys_and_no_unit(gateway: Gateway, tmp_path: Path) -> None:
    """The gateway comes back when the fixture converges again, with the keys that it had."""

    def remove(*arguments: str) -> None:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        environment = {**os.environ, "RACKLLAMA_LAB": gateway.site.lab.name}
        command = [program, "-i", "inventories/lab", str(playbook), *arguments]
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    playbook = tmp_path / "remove.yml"
    playbook.write_text(REMOVAL)
    users, ours = [*gateway.known(), "dora"], "'gateway*' 'rackllama-certificate*'"
    files = "find /etc/systemd /run/systemd -name 'gateway.*' -o -name 'rackllama-certificate*'"
    gateway.create("dora")
    remove("--check", "--diff")
    assert gateway.site.run(f"systemctl list-units --plain --no-legend {ours}") != ""
    for _ in range(2):  # the second time there is nothing to do
        remove()
        assert gateway.site.run(f"systemctl list-units --all --plain --no-legend {ours}") == ""
        assert gateway.site.run(files) == ""
    assert gateway.site.run("systemctl show haproxy --property LoadState --value") == "loaded"
    assert gateway.site.run("ss -Hltn sport = :443") == ""
    assert gateway.known() == users
    gateway.site.run("test -s /etc/rackllama/gateway/certificate.pem")
