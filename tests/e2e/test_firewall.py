"""Nobody is locked out, whoever is in charge of the host's firewall; and the rules are there after a boot."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

ELSEWHERE = ["203.0.113.0/24"]  # where nobody is (RFC 5737)
PEER = [{"name": "rpc", "sources": ["192.0.2.12", "2001:db8::12"], "ports": [50052]}]
MANAGERS = {
    "ufw": {
        "start": "ufw allow 22/tcp comment rackllama && ufw --force enable",
        "rules": "ufw show added",
        "stop": "ufw --force disable && apt-get purge --yes ufw",
    },
    "firewalld": {
        "start": "firewall-cmd --permanent --remove-service=ssh",
        "rules": "firewall-cmd --info-policy=rackllama",
        "stop": "apt-get purge --yes firewalld",
    },
}


def rules(site: Any) -> str:
    """What the kernel has of ours."""
    return str(site.run("nft list table inet rackllama"))


def locking_out(site: Any) -> Any:
    """The outcome of a converge whose rules let in SSH from elsewhere alone."""
    return site.converge("--tags", "firewall", firewall_ssh_sources=ELSEWHERE, firewall_rollback_seconds=5)


def test_rules_that_would_lock_us_out_are_taken_back(converged: Any) -> None:
    before = rules(converged)
    outcome = locking_out(converged)
    again = converged.converge("--tags", "firewall")

    assert outcome.code != 0
    told = re.sub(r"\s+", " ", outcome.output)
    assert "firewall on etoe1: the new rules do not let in a new SSH connection, and the former ones are back" in told
    assert "remedy: name the network that the controller comes from in firewall_ssh_sources" in told
    assert rules(converged) == before
    assert (again.code, again.changed) == (0, {"etoe1": 0}), again.output


def test_a_host_whose_firewall_is_not_ours_keeps_nothing_of_us(converged: Any) -> None:
    removed = converged.converge("--tags", "firewall", firewall_managed=False)
    left = converged.run("nft list tables | grep rackllama; find /etc -name '*firewall*' | grep rackllama; true")
    again = converged.converge("--tags", "firewall")

    assert (removed.code, again.code) == (0, 0), removed.output + again.output
    assert left == ""
    assert "policy drop" in rules(converged)


@pytest.mark.slow
def test_the_rules_are_there_after_a_boot(converged: Any) -> None:
    before = rules(converged)
    converged.reboot()
    assert rules(converged) == before


@pytest.fixture(params=MANAGERS)
def in_charge(request: pytest.FixtureRequest, converged: Any) -> Iterator[dict[str, str]]:
    """Another manager in charge of the host's firewall, which lets in SSH only as we tell it."""
    manager = MANAGERS[request.param]
    install = f"DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {request.param}"
    converged.run(f"apt-get update && {install}")
    if request.param == "firewalld":
        assert converged.converge("--tags", "firewall").code == 0
    converged.run(manager["start"])
    yield manager
    converged.run(manager["stop"])
    assert converged.converge("--tags", "firewall").code == 0


@pytest.mark.slow
def test_another_manager_is_told_what_to_let_in_and_locks_nobody_out(converged: Any, in_charge: dict[str, str]) -> None:
    first = converged.converge("--tags", "firewall", firewall_peers=PEER)
    told = converged.run(in_charge["rules"])
    second = converged.converge("--tags", "firewall", firewall_peers=PEER)
    shut = locking_out(converged)
    after = converged.run(in_charge["rules"])

    assert first.code == 0, first.output
    assert "192.0.2.12" in told
    assert "2001:db8::12" in told
    assert "rackllama" not in converged.run("nft list tables; true")
    assert (second.code, second.changed) == (0, {"etoe1": 0}), second.output
    assert "the former ones are back" in re.sub(r"\s+", " ", shut.output), shut.output
    assert after == told
