"""What may come in, in the words of nftables, ufw and firewalld; real nft says whether it takes ours."""

import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.network import ssh
from rackllama.host.network.firewall import (
    TABLE,
    firewalld_policy,
    nft_replacing,
    nft_rules,
    opening,
    peers,
    ufw_rules,
    ufw_steps,
)

SSH = opening("ssh", [22])
GATEWAY = opening("gateway", [443], ["10.0.0.0/8", "2001:db8::/32"])
RPC = opening("rpc", [50052, 50053], ["192.0.2.12"])


def rules(*openings):
    return [line.strip() for line in nft_rules(openings).splitlines()]


def test_what_is_named_comes_in_and_all_else_is_refused():
    assert 'tcp dport { 22 } accept comment "ssh"' in rules(SSH)
    assert "type filter hook input priority filter; policy drop;" in rules(SSH)
    assert rules(SSH)[-4:-2] == [
        "tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset",
        "meta l4proto udp reject",
    ]


def test_sources_are_told_apart_by_family():
    assert [line for line in rules(GATEWAY) if "443" in line] == [
        'ip saddr { 10.0.0.0/8 } tcp dport { 443 } accept comment "gateway"',
        'ip6 saddr { 2001:db8::/32 } tcp dport { 443 } accept comment "gateway"',
    ]


def test_networks_that_overlap_become_one_as_nft_takes_no_overlap():
    overlapping = opening("ssh", [22], ["10.1.0.0/16", "10.0.0.0/8", "10.1.2.3"])
    assert overlapping.of_version(4) == ("10.0.0.0/8",)


def test_a_peer_without_ports_is_let_in_everywhere():
    (peer,) = peers([{"name": "front", "sources": ["192.0.2.1/32"]}])
    assert 'ip saddr { 192.0.2.1 } accept comment "front"' in rules(peer)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("ssh", [0]), "names the port 0"),
        (("ssh", [65536]), "names the port 65536"),
        (("ssh", [22], ["10.0.0.300"]), "no network"),
        (("ssh", [22], ["localhost"]), "no network"),
        (('ssh" accept; "', [22]), "no usable name"),
        (("all", []), "let in everything"),
        (("ssh", [22], [], "sctp"), "is for sctp"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, complaint):
    with pytest.raises(RackllamaError, match=complaint):
        opening(*arguments)


def test_a_peer_is_named_by_its_address():
    with pytest.raises(RackllamaError, match="no sources"):
        peers([{"name": "rpc", "sources": [], "ports": [50052]}])


@pytest.mark.parametrize(
    ("client", "port", "admitted"),
    [
        ("10.1.2.3", 443, True),
        ("::ffff:10.1.2.3", 443, True),
        ("2001:db8::1", 443, True),
        ("192.0.2.1", 443, False),
        ("10.1.2.3", 22, False),
    ],
)
def test_it_is_known_beforehand_who_is_let_in(client, port, admitted):
    assert GATEWAY.admits(client, port) is admitted


def nft(script: str) -> "subprocess.CompletedProcess[str]":
    """What nft does in a network namespace of its own, as the root of a user namespace of its own."""
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", f"PATH=$PATH:/usr/sbin; {script}"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(
    not shutil.which("nft", path="/usr/sbin:/usr/bin") or nft(f"nft add table {TABLE}").returncode != 0,
    reason="needs nft and a network namespace",
)
def test_real_nft_takes_them_twice_and_back_out_again(tmp_path):
    new, none = tmp_path / "new.nft", tmp_path / "none.nft"
    new.write_text(nft_rules([SSH, GATEWAY, RPC]))
    none.write_text(nft_replacing(""))
    done = nft(f"nft -f {new} && nft -f {new} && nft list ruleset && nft -f {none} && nft list ruleset | wc -l")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("table ") == 1
    assert 'ip saddr 192.0.2.12 tcp dport { 50052, 50053 } accept comment "rpc"' in done.stdout
    assert done.stdout.endswith("\n0\n")


def test_ufw_is_told_in_its_own_words():
    assert ufw_rules([SSH, GATEWAY, RPC]) == [
        "allow 22/tcp",
        "allow from 10.0.0.0/8 to any port 443 proto tcp",
        "allow from 2001:db8::/32 to any port 443 proto tcp",
        "allow from 192.0.2.12 to any port 50052 proto tcp",
        "allow from 192.0.2.12 to any port 50053 proto tcp",
    ]


ADDED = """\
Added user rules (see 'ufw status' for running firewall):
ufw allow 22/tcp
ufw allow 80/tcp comment 'site'
ufw allow 443/tcp comment 'rackllama'
ufw allow from 192.0.2.9 to any port 50052 proto tcp comment 'rackllama'
"""


def test_ufw_keeps_what_the_site_has_and_gets_the_difference():
    assert ufw_steps(ADDED, ["allow 22/tcp", "allow 443/tcp", "allow 8443/tcp"]) == [
        ["ufw", "allow", "8443/tcp", "comment", "rackllama"],
        ["ufw", "delete", *["allow", "from", "192.0.2.9", "to", "any", "port", "50052", "proto", "tcp"]],
    ]


def test_ufw_loses_only_what_is_ours():
    assert [step[1:] for step in ufw_steps(ADDED, [])] == [
        ["delete", "allow", "443/tcp"],
        ["delete", *["allow", "from", "192.0.2.9", "to", "any", "port", "50052", "proto", "tcp"]],
    ]


def test_firewalld_gets_a_policy_from_anywhere_to_the_host():
    policy = ET.fromstring(firewalld_policy([SSH, GATEWAY]))  # noqa: S314 - our own
    assert [policy.find(end).get("name") for end in ("ingress-zone", "egress-zone")] == ["ANY", "HOST"]
    assert policy.find("port").attrib == {"port": "22", "protocol": "tcp"}
    assert [(rule.get("family"), rule.find("source").get("address")) for rule in policy.findall("rule")] == [
        ("ipv4", "10.0.0.0/8"),
        ("ipv6", "2001:db8::/32"),
    ]


SSHD = "port 22\nport 2222\naddressfamily any\nlistenaddress 192.0.2.1:2200\nlistenaddress [::]:2222\n"


def test_the_ports_of_ssh_are_what_sshd_and_systemd_say():
    assert ssh.parse_ports(SSHD) == [22, 2200, 2222]
    assert ssh.parse_ports("Listen=0.0.0.0:22 (Stream)\nListen=[::]:2022 (Stream)\n") == [22, 2022]


def test_a_session_is_told_by_its_environment():
    environment = b"HOME=/root\0SSH_CONNECTION=10.0.0.5 51234 192.0.2.1 2222\0"
    assert ssh.parse_session(environment) == ssh.Session("10.0.0.5", 51234, 2222)
    assert ssh.parse_session(b"HOME=/root\0") is None
