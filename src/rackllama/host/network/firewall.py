"""What other hosts may reach on this one, and how nftables, ufw and firewalld are told so. Pure functions only.

nftables gets a table of its own, which denies what it does not name. Where ufw or firewalld is in charge, the same
openings are added to what it has; what it lets in besides stays the site's own affair.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Iterable, List, Mapping, Sequence, Tuple, Union
from xml.sax.saxutils import quoteattr

from ..errors import RackllamaError
from ..files import MARK

TABLE = "inet rackllama"
RULES_PATH = "/etc/rackllama/firewall.nft"
UNIT_NAME = "rackllama-firewall.service"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}")
PROTOCOLS = ("tcp", "udp")
HIGHEST_PORT = 65535

_MARK = f"# {MARK}\n"
UNIT = f"""\
{_MARK}[Unit]
Description=What other hosts may reach on this one
DefaultDependencies=no
After=local-fs.target nftables.service
Before=network-pre.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {RULES_PATH}
ExecReload=/usr/sbin/nft -f {RULES_PATH}
ExecStop=-/usr/sbin/nft delete table {TABLE}
CapabilityBoundingSet=CAP_NET_ADMIN
DevicePolicy=closed
IPAddressDeny=any
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0077

[Install]
WantedBy=sysinit.target
"""
# Every start, reload and stop of nftables.service flushes the tables of all. Ours is loaded again at once; where that
# fails, the site's own rules are none the worse for it.
NFTABLES_DROP_IN = f"""\
{_MARK}[Service]
ExecStartPost=-/usr/sbin/nft -f {RULES_PATH}
ExecReload=-/usr/sbin/nft -f {RULES_PATH}
ExecStopPost=-/usr/sbin/nft -f {RULES_PATH}
"""

_FIXED_RULES = """\
		ct state established,related accept
		ct state invalid drop
		iif "lo" accept
		icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept
		icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
		icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept
		icmpv6 type mld-listener-query ip6 hoplimit 1 accept
		udp sport 67 udp dport 68 accept comment "DHCP"
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept comment "DHCPv6"
		iifname "podman*" meta l4proto { tcp, udp } th dport 53 accept comment "names for containers"
"""
# Closed by the firewall looks like nobody listens there: a client is told at once, and a scan learns nothing. Only what
# opens a connection is answered so: a reset would end connections from before connections were tracked.
_LAST_RULES = """\
		tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset
		meta l4proto udp reject
"""


@dataclass(frozen=True)
class Opening:
    """What may come in: `ports` (none means all, of any protocol) from `sources` (networks; none means anywhere)."""

    name: str
    ports: Tuple[int, ...]
    sources: Tuple[str, ...] = ()
    protocol: str = "tcp"

    def of_version(self, version: int) -> Tuple[str, ...]:
        """Its sources in IPv4 or IPv6, in the fewest networks; a single address stands without a length."""
        networks = [network for network in map(ipaddress.ip_network, self.sources) if network.version == version]
        return tuple(_shortest(network) for network in ipaddress.collapse_addresses(networks))  # type: ignore[type-var]

    def admits(self, client: str, port: int) -> bool:
        """Whether a connection from that address to that port may come in by it."""
        address = ipaddress.ip_address(client.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        named = not self.sources or any(address in ipaddress.ip_network(source) for source in self.sources)
        return named and (not self.ports or (self.protocol == "tcp" and port in self.ports))


def _shortest(network: Union[ipaddress.IPv4Network, ipaddress.IPv6Network]) -> str:
    return str(network.network_address if network.num_addresses == 1 else network)


def opening(name: str, ports: Sequence[int], sources: Iterable[str] = (), protocol: str = "tcp") -> Opening:
    """An opening as people declare it, checked. Raises RackllamaError naming what is wrong."""
    where = f"the opening {name!r} of the firewall"
    if not NAME.fullmatch(name):
        raise RackllamaError(f"{where} has no usable name", "use letters, digits, spaces and . _ -, at most 60")
    if protocol not in PROTOCOLS:
        raise RackllamaError(f"{where} is for {protocol}", f"choose one of: {', '.join(PROTOCOLS)}")
    wrong = [port for port in ports if not 1 <= int(port) <= HIGHEST_PORT]
    if wrong:
        raise RackllamaError(f"{where} names the port {wrong[0]}", f"name ports from 1 to {HIGHEST_PORT}")
    networks = []
    for source in sources:
        try:
            networks.append(str(ipaddress.ip_network(source, strict=False)))
        except ValueError as error:
            raise RackllamaError(f"{where} has a source that is no network: {error}", "write 10.0.0.0/8") from error
    if not ports and not networks:
        raise RackllamaError(f"{where} would let in everything", "name its ports, or the networks it is for")
    return Opening(name, tuple(sorted(set(map(int, ports)))), tuple(networks), protocol)


def peers(declared: Sequence[Mapping[str, Any]]) -> List[Opening]:
    """Openings to named peers, from `{name, sources, ports, protocol}` each. Without sources it is none."""
    for peer in declared:
        if not peer.get("sources"):
            raise RackllamaError(f"the peer {peer['name']!r} of the firewall has no sources", "name its addresses")
    return [
        opening(peer["name"], peer.get("ports") or (), peer.get("sources") or (), peer.get("protocol") or "tcp")
        for peer in declared
    ]


def nft_rules(openings: Sequence[Opening]) -> str:
    """A file for `nft -f` that puts our table in the place of what there is of it, in one step."""
    rules = "".join(f"\t\t{rule}\n" for each in openings for rule in _nft_rules_of(each))
    return (
        "#!/usr/sbin/nft -f\n"
        f"# {MARK} Other tables are left alone.\n"
        "# What containers are sent is forwarded, and passes by this one.\n"
        f"{nft_replacing(_nft_table(rules))}"
    )


def nft_replacing(table: str) -> str:
    """A file for `nft -f` that puts `table`, as `nft list table` shows ours, or nothing in the place of ours."""
    # There is no older word for "delete it if it is there".
    return f"table {TABLE}\ndelete table {TABLE}\n{table}"


def _nft_table(rules: str) -> str:
    head = "\t\ttype filter hook input priority filter; policy drop;\n"
    return f"table {TABLE} {{\n\tchain input {{\n{head}{_FIXED_RULES}{rules}{_LAST_RULES}\t}}\n}}\n"


def _nft_rules_of(each: Opening) -> List[str]:
    ports = f"{each.protocol} dport {{ {', '.join(map(str, each.ports))} }} " if each.ports else ""
    end = f'{ports}accept comment "{each.name}"'
    if not each.sources:
        return [end]
    families = (("ip", each.of_version(4)), ("ip6", each.of_version(6)))
    return [f"{family} saddr {{ {', '.join(sources)} }} {end}" for family, sources in families if sources]


def ufw_rules(openings: Sequence[Opening]) -> List[str]:
    """The rules in ufw's own words, as `ufw show added` says them, without the comment that marks them as ours."""
    return [rule for each in openings for rule in _ufw_rules_of(each)]


def _ufw_rules_of(each: Opening) -> List[str]:
    sources = [*each.of_version(4), *each.of_version(6)]
    if not sources:
        return [f"allow {port}/{each.protocol}" for port in each.ports]
    if not each.ports:
        return [f"allow from {source}" for source in sources]
    return [
        f"allow from {source} to any port {port} proto {each.protocol}" for source in sources for port in each.ports
    ]


UFW_MARK = "comment 'rackllama'"


def ufw_steps(added: str, wanted: Sequence[str]) -> List[List[str]]:
    """The commands that make what `ufw show added` said hold the wanted rules, and no others of ours.

    A rule that the site has added itself is as good as ours, and is not touched.
    """
    lines = [line[len("ufw ") :] for line in added.splitlines() if line.startswith("ufw ")]
    ours = [line[: -len(UFW_MARK)].strip() for line in lines if line.endswith(UFW_MARK)]
    present = {*ours, *(re.sub(r" comment '.*'$", "", line) for line in lines)}
    add = [["ufw", *rule.split(), "comment", "rackllama"] for rule in wanted if rule not in present]
    return add + [["ufw", "delete", *rule.split()] for rule in ours if rule not in wanted]


def firewalld_policy(openings: Sequence[Opening]) -> str:
    """A policy of firewalld, from anywhere to this host: lets in what is named, and leaves all else to the zones."""
    rules = "".join(f"  {rule}\n" for each in openings for rule in _firewalld_rules_of(each))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<policy priority="-100" target="CONTINUE">\n'
        "  <short>rackllama</short>\n"
        f"  <description>{MARK}</description>\n"
        f'{rules}  <ingress-zone name="ANY"/>\n  <egress-zone name="HOST"/>\n</policy>\n'
    )


def _firewalld_rules_of(each: Opening) -> List[str]:
    ports = [f'<port port="{port}" protocol="{each.protocol}"/>' for port in each.ports]
    if not each.sources:
        return ports
    return [
        f'<rule family="ipv{version}"><source address={quoteattr(source)}/>{port}<accept/></rule>'
        for version in (4, 6)
        for source in each.of_version(version)
        for port in ports or [""]
    ]
