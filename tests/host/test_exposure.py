"""Who gets in on a converged host: SSH and named peers, and nobody else, as seen from another host and from here."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testinfra.host import Host

CHECKOUT = Path(__file__).parents[2]
UNIT = "rackllama-firewall"
STRAY_PORT = 18080


@pytest.fixture
def stand_in(host: Host, eventually: Callable[..., None]) -> Iterator[Callable[[int], None]]:
    """Lets a web server, in the place of whatever somebody starts one day, listen to the whole world on a port."""
    started = []

    def start(port: int) -> None:
        serve = f"python3 -m http.server --bind 0.0.0.0 --directory /srv {port}"
        host.check_output(f"systemd-run --collect --unit=stand-in-{port} {serve}")
        started.append(port)
        eventually(lambda: host.socket(f"tcp://0.0.0.0:{port}").is_listening, "the stand-in listens")

    yield start
    for port in started:
        host.check_output(f"systemctl stop stand-in-{port}")


@contextmanager
def firewall_off(host: Host) -> Iterator[None]:
    """The host without its firewall."""
    host.check_output("systemctl stop %s", UNIT)
    try:
        yield
    finally:
        host.check_output("systemctl start %s", UNIT)


def exposure(knobs, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the play that tries what of the host others reach, from the next host or from here."""
    name = knobs["inventory_hostname"]
    play = ["ansible-playbook", "playbooks/exposure.yml", "--limit", name, *arguments]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(play, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def gets_in(knobs, port: int) -> bool:
    """Whether this machine can connect to a port of the host."""
    try:
        socket.create_connection((knobs["ansible_host"], port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


def rules(host: Host) -> list[str]:
    return [line.strip() for line in host.check_output("nft list table inet rackllama").splitlines()]


def test_what_listens_to_the_world_is_closed_by_the_firewall_and_found_without_it(host: Host, knobs, stand_in) -> None:
    stand_in(STRAY_PORT)
    closed, said_of_closed = exposure(knobs, "-e", "exposure_all_ports=true")
    with firewall_off(host):
        opened, said_of_opened = exposure(knobs)
    assert closed == 0, said_of_closed
    others = 65535 - (2 if "gateway" in knobs["group_names"] else 1)  # but for SSH, and the gateway's port
    assert f"{others} ports refused, 0 without an answer" in " ".join(said_of_closed.split()), said_of_closed
    assert opened != 0
    assert f"{knobs['ansible_host']} {STRAY_PORT}" in said_of_opened
    assert "wanted refused, found python3 answers" in said_of_opened


def test_named_peers_get_in_where_they_are_named_and_nowhere_else(knobs, stand_in) -> None:
    stand_in(STRAY_PORT)
    assert not gets_in(knobs, STRAY_PORT)
    for peer in knobs["firewall_peers"]:
        for port in peer["ports"]:
            stand_in(port)
            assert gets_in(knobs, port)


def test_ssh_is_taken_from_where_it_was_declared_to_be(host: Host, knobs) -> None:
    ours = [rule for rule in rules(host) if rule.endswith('accept comment "ssh"')]
    sources = knobs["firewall_ssh_sources"]
    assert ours == [
        f'ip saddr {{ {", ".join(sources)} }} tcp dport 22 accept comment "ssh"'
        if sources
        else 'tcp dport 22 accept comment "ssh"'
    ]


def test_its_unit_is_enabled_and_closed(host: Host) -> None:
    assert host.service(UNIT).is_enabled
    overall = host.check_output("systemd-analyze security --no-pager %s | grep 'Overall exposure level'", UNIT)
    assert float(overall.split(":")[1].split()[0]) <= 2.0


def test_what_flushes_all_tables_does_not_leave_the_host_open(host: Host) -> None:
    before = rules(host)
    assert "flush ruleset" in host.file("/etc/nftables.conf").content_string
    for order in ("start", "reload", "restart", "stop"):
        host.check_output("systemctl %s nftables", order)
        assert rules(host) == before, order
