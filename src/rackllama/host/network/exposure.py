"""What of a host others can reach: what listens there, what answers elsewhere, and whether that is wanted."""

import http.client
import ipaddress
import json
import socket
import ssl
from dataclasses import asdict, dataclass
from typing import Any, Collection, Dict, Iterable, List, Mapping, Sequence

from .. import systemd
from ..report import Check
from . import port_probe
from .port_probe import Answer, Target
from .sockets import LISTEN, TCP_TABLES, UDP_TABLES, UNCONNECTED, all_listeners, programs

ALL_PORTS = range(1, 65536)
# Bridges to containers and virtual machines: their addresses are a host's own affair, and the same on many hosts.
INNER_INTERFACES = ("docker", "br-", "podman", "cni", "veth", "virbr", "vnet", "lxc", "cali", "flannel", "kube", "tap")
UNAUTHORIZED = 401
GATEWAY_PATH = "/v1/models"


@dataclass(frozen=True)
class Listening:
    """A socket that listens, and the program that holds it."""

    protocol: str
    address: str
    port: int
    program: str
    is_loopback: bool


@dataclass(frozen=True)
class Found:
    """What a prober found of one host: TCP answers and UDP answers, by address and port."""

    host: str
    prober: str
    tcp: Mapping[Target, Answer]
    udp: Mapping[Target, Answer]


def listening() -> List[Listening]:
    """Everything that listens on this host, TCP and UDP."""
    held_by = programs()
    tables = (("tcp", TCP_TABLES, LISTEN), ("udp", UDP_TABLES, UNCONNECTED))
    found = {
        Listening(protocol, one.address, one.port, held_by.get(one.inode, "?"), one.is_loopback)
        for protocol, paths, state in tables
        for one in all_listeners(paths, state)
    }
    return sorted(found, key=lambda one: (one.protocol, one.port, one.address))


def addresses() -> List[str]:
    """The addresses at which other hosts may find this one."""
    return parse_addresses(systemd.run("ip", "-json", "address", "show").stdout)


def parse_addresses(said: str) -> List[str]:
    """Addresses from what `ip -json address show` says, without loopback and the bridges to containers."""
    return [
        entry["local"]
        for interface in json.loads(said)
        if "LOOPBACK" not in interface.get("flags", []) and not interface["ifname"].startswith(INNER_INTERFACES)
        for entry in interface.get("addr_info", [])
        if "local" in entry
    ]


def seen_from_here(names: Iterable[str]) -> List[str]:
    """The addresses to try from here: names resolved, own ones left out, link-local ones on each interface."""
    found = {address: None for name in names for address in port_probe.resolved(name)}
    return [scoped for address in found for scoped in _scoped(address) if not port_probe.is_own(scoped)]


def _scoped(address: str) -> List[str]:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if not (parsed.version == 6 and parsed.is_link_local):  # noqa: PLR2004 - IPv6
        return [] if parsed.is_loopback else [address]
    interfaces = [name for _, name in socket.if_nameindex() if name != "lo" and not name.startswith(INNER_INTERFACES)]
    return [f"{parsed}%{name}" for name in interfaces]


@dataclass(frozen=True)
class Effort:
    """How much is tried: all TCP ports or those that listen, so many at a time, with so long to wait for each."""

    all_ports: bool = False
    connections: int = 500
    timeout_seconds: float = 3


def probe(host: str, names: Sequence[str], sockets: Sequence[Listening], effort: Effort) -> Found:
    """Try, from here, every TCP port that listens on the host, or all there are, and every UDP port that listens."""
    where = seen_from_here(names)
    ports = {one.port for one in sockets if one.protocol == "tcp"}
    routed = [address for address in where if "%" not in address]
    targets: Dict[Target, None] = {(address, port): None for address in where for port in sorted(ports)}
    if effort.all_ports:
        targets.update({(address, port): None for address in routed for port in ALL_PORTS})
    tcp = port_probe.probe_tcp(targets, effort.connections, effort.timeout_seconds)
    there = reached(tcp)
    udp_ports = sorted({one.port for one in sockets if one.protocol == "udp" and not one.is_loopback})
    udp = {(address, port): port_probe.probe_udp((address, port)) for address in there for port in udp_ports}
    return Found(host, socket.gethostname(), tcp, udp)


def reached(tcp: Mapping[Target, Answer]) -> List[str]:
    """The addresses at which something answered, be it by a refusal."""
    return list({address: None for (address, _), answer in tcp.items() if answer in (Answer.OPEN, Answer.REFUSED)})


def checks(found: Found, sockets: Sequence[Listening], expected: Collection[int]) -> List[Check]:
    """The checks that follow from what was found. Pure."""
    there = reached(found.tcp)
    where = ", ".join(there) or "no answer at any address"
    return [
        Check(
            f"reached from {found.prober}",
            bool(there),
            "an answer, be it a refusal",
            where,
            "nothing was proven: let a host try that has a way there, -e exposure_from=HOST",
        ),
        *(check for address in there for check in _tcp_checks(address, found, sockets, expected)),
        *_loopback_checks(found, sockets),
        *(_udp_check(target, answer, sockets, expected) for target, answer in sorted(found.udp.items())),
    ]


def _tcp_checks(address: str, found: Found, sockets: Sequence[Listening], expected: Collection[int]) -> Iterable[Check]:
    answers = {port: answer for (where, port), answer in sorted(found.tcp.items()) if where == address}
    for port, answer in answers.items():
        if answer is Answer.OPEN:
            program = _programs(sockets, "tcp", port)
            yield Check(
                f"tcp {address} {port}",
                port in expected,
                "any answer" if port in expected else "refused",
                f"{program} answers{', as it ought to' if port in expected else ''}",
                f"let {program} listen on loopback, close the port (firewall_managed), or name it in "
                "exposure_expected_ports",
            )
    closed = [answer for answer in answers.values() if answer is not Answer.OPEN]
    silent = sum(answer is not Answer.REFUSED for answer in closed)
    yield Check(
        f"tcp {address} others", True, "no answer", f"{len(closed) - silent} ports refused, {silent} without an answer"
    )


def _loopback_checks(found: Found, sockets: Sequence[Listening]) -> Iterable[Check]:
    """What listens on loopback alone must not be reached by any other address, whatever forwards there."""
    tcp = [one for one in sockets if one.protocol == "tcp"]
    for port in sorted({one.port for one in tcp} - {one.port for one in tcp if not one.is_loopback}):
        at = [address for (address, where), answer in found.tcp.items() if where == port and answer is Answer.OPEN]
        program = _programs(sockets, "tcp", port)
        yield Check(
            f"loopback {program} {port}",
            not at,
            "closed to others",
            f"answers at {', '.join(at)}" if at else "closed to others",
            f"see what forwards port {port} to loopback: a proxy, a rule of nftables, a container's published port",
        )


def _udp_check(target: Target, answer: Answer, sockets: Sequence[Listening], expected: Collection[int]) -> Check:
    address, port = target
    program = _programs(sockets, "udp", port)
    return Check(
        f"udp {address} {port}",
        answer is not Answer.OPEN or port in expected,
        "no answer",
        f"{program}: {'answers' if answer is Answer.OPEN else answer.value}",
        f"let {program} listen on loopback, close the port, or name it in exposure_expected_ports",
    )


def _programs(sockets: Sequence[Listening], protocol: str, port: int) -> str:
    names = sorted({one.program for one in sockets if (one.protocol, one.port) == (protocol, port)})
    return "/".join(names) or "something that shows no socket"


def gateway_checks(found: Found, port: int) -> List[Check]:
    """Whether the gateway turns away who has no key, wherever it answers."""
    opened = [address for (address, where), answer in found.tcp.items() if where == port and answer is Answer.OPEN]
    at = [address for address in opened if "%" not in address]  # no server expects the name of a client's interface
    if not at:
        remedy = "converge the gateway, or try from where it may be reached: -e exposure_from=HOST"
        return [Check(f"gateway {port} without a key", False, str(UNAUTHORIZED), "no answer at any address", remedy)]
    return [_gateway_check(address, port) for address in at]


def _gateway_check(address: str, port: int) -> Check:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # what is asked is who is let in, not who answers
    connection = http.client.HTTPSConnection(address, port, timeout=10, context=context)
    try:
        connection.request("GET", GATEWAY_PATH)
        said = str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        said = f"no answer: {error}"
    finally:
        connection.close()
    return Check(
        f"gateway {address} {port} without a key",
        said == str(UNAUTHORIZED),
        str(UNAUTHORIZED),
        said,
        "converge the gateway, and see its log: journalctl -u gateway",
    )


def as_data(sockets: Iterable[Listening]) -> List[Dict[str, Any]]:
    """Sockets as plain data, for the way to another host."""
    return [asdict(one) for one in sockets]


def from_data(data: Iterable[Mapping[str, Any]]) -> List[Listening]:
    """Sockets from plain data."""
    return [Listening(**one) for one in data]
