"""Several gateways, one of them down: keys change at the others, and at that one when it is back, by what is told."""

import os
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from rackllama.lab import hosts
from rackllama.lab.depot.progress import Progress
from rackllama.lab.podman import podman
from rackllama.lab.up import Stopwatch, start_converge, start_lab, stop_lab

pytestmark = pytest.mark.slow
LAB = "gates"


@dataclass(frozen=True)
class Pair:
    """Two gateways without an engine: who is let in is told that no engine answers."""

    lab: hosts.Lab
    inventory: Path

    def rackllama(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The command, as it is typed."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("rackllama")), *arguments],
            env={**os.environ, "RACKLLAMA_LAB": self.lab.name},
            capture_output=True,
            text=True,
            check=False,
        )

    def key(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`rackllama key`, for both."""
        return self.rackllama("key", *arguments, "-i", "inventories/lab", "-i", str(self.inventory))

    def lets_in(self, number: int, key: str) -> bool:
        """Whether one of them lets a key in."""
        host = self.lab.hosts[number]
        with hosts.ssh_client(self.lab, host) as client:
            _, stdout, _ = client.exec_command("cat /etc/rackllama/gateway/ca.crt")
            trust = ssl.create_default_context(cadata=stdout.read().decode())
        answer = httpx.get(f"https://{host.address}/v1/models", headers={"x-api-key": key}, verify=trust)
        assert answer.status_code in {401, 503}
        return answer.status_code == 503


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    lab = start_lab(LAB, 2, "bookworm", Stopwatch(Progress()))
    inventory = tmp_path / "gateways.yml"
    inventory.write_text(yaml.safe_dump({"gateway": {"hosts": {host.name: {} for host in lab.hosts}}}))
    with start_converge(LAB, "-i", str(inventory), "--tags", "gateway") as play:
        said, _ = play.communicate()
    assert play.returncode == 0, said
    yield Pair(lab, inventory)
    stop_lab(LAB)


def told(said: str) -> list[str]:
    """What a failed command says to type."""
    return shlex.split(said.partition("type: rackllama ")[2].splitlines()[0])


def test_keys_change_where_a_gateway_is_up_and_at_the_other_when_it_is_back(pair: Pair) -> None:
    bob = pair.key("create", "bob").stdout.strip()
    assert [pair.lets_in(number, bob) for number in (0, 1)] == [True, True]
    podman("stop", "--time=60", pair.lab.hosts[1].container)

    created, revoked = pair.key("create", "alice"), pair.key("revoke", "bob")
    alice = created.stdout.strip()
    assert (created.returncode, revoked.returncode) == (2, 2)
    for command in (created, revoked):
        assert "gates2 failed" in command.stderr
    assert (pair.lets_in(0, alice), pair.lets_in(0, bob)) == (True, False)

    start_lab(LAB, 2, "bookworm", Stopwatch(Progress()))
    assert (pair.lets_in(1, alice), pair.lets_in(1, bob)) == (False, True)
    for command in (created, revoked):
        again = pair.rackllama(*told(command.stderr))
        assert again.returncode == 0, again.stderr
    assert (pair.lets_in(1, alice), pair.lets_in(1, bob)) == (True, False)
    assert pair.lets_in(0, alice)
