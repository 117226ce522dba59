"""What others can reach: real sockets on loopback are tried, and judged as another host's would be."""

import json
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from rackllama.host.network import exposure, port_probe
from rackllama.host.network.exposure import Found, Listening, checks, parse_addresses
from rackllama.host.network.port_probe import Answer

ADDRESS = "192.0.2.11"
OPEN, REFUSED, SILENT = Answer.OPEN, Answer.REFUSED, Answer.SILENT
SSHD = Listening("tcp", "0.0.0.0", 22, "sshd", False)
ENGINE = Listening("tcp", "127.0.0.1", 11434, "ollama", True)
STRAY = Listening("tcp", "0.0.0.0", 18080, "python3", False)
RESOLVER = Listening("udp", "0.0.0.0", 5353, "mdns", False)


def failed(tcp, *sockets, udp=None, expected=(22,)):
    """The ids of what is wrong, where these ports were found so from elsewhere."""
    answers = {(ADDRESS, port): answer for port, answer in tcp.items()}
    datagrams = {(ADDRESS, port): answer for port, answer in (udp or {}).items()}
    found = Found("gpu1", "gpu2", answers, datagrams)
    return [check.id for check in checks(found, sockets, expected) if not check.ok]


def test_a_host_that_answers_where_it_ought_to_is_well():
    assert failed({22: OPEN, 11434: REFUSED}, SSHD, ENGINE) == []


def test_what_answers_unexpectedly_is_named():
    assert failed({22: OPEN, 18080: OPEN}, SSHD, STRAY) == ["tcp 192.0.2.11 18080"]
    assert failed({22: OPEN, 18080: OPEN}, SSHD, STRAY, expected=(22, 18080)) == []


def test_what_listens_to_all_and_is_closed_on_the_way_is_well():
    assert failed({22: OPEN, 18080: REFUSED}, SSHD, STRAY) == []
    assert failed({22: OPEN, 18080: SILENT}, SSHD, STRAY) == []


def test_a_loopback_port_that_answers_elsewhere_is_forwarded_by_something():
    assert "loopback ollama 11434" in failed({22: OPEN, 11434: OPEN}, SSHD, ENGINE, expected=(22, 11434))


def test_what_answers_without_a_socket_is_found_as_well():
    """As a port does that is published by a container's engine, by a rule alone."""
    assert failed({22: OPEN, 8080: OPEN}, SSHD) == ["tcp 192.0.2.11 8080"]


def test_a_host_that_never_answers_proves_nothing():
    assert failed({22: SILENT}, SSHD) == ["reached from gpu2"]
    assert failed({}, SSHD) == ["reached from gpu2"]


@pytest.mark.parametrize(("answer", "wrong"), [(OPEN, ["udp 192.0.2.11 5353"]), (SILENT, []), (REFUSED, [])])
def test_udp_is_wrong_where_it_answers(answer, wrong):
    assert failed({22: OPEN}, SSHD, RESOLVER, udp={5353: answer}) == wrong


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate that nobody has signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    pem = tmp_path_factory.mktemp("gateway") / "gateway.pem"
    pem.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return pem


@pytest.mark.parametrize(("status", "well"), [(401, True), (200, False), (403, False)])
def test_a_gateway_must_turn_away_who_has_no_key(certificate, status, well):
    class StandInGateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), StandInGateway) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        found = Found("gpu1", "gpu2", {("127.0.0.1", server.server_port): OPEN}, {})
        (check,) = exposure.gateway_checks(found, server.server_port)
        serving.join()
    assert (check.ok, check.found) == (well, str(status))


def test_a_gateway_that_is_declared_must_answer():
    (check,) = exposure.gateway_checks(Found("gpu1", "gpu2", {(ADDRESS, 443): REFUSED}, {}), 443)
    assert not check.ok


def test_addresses_are_those_that_others_can_have_a_way_to():
    said = [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "addr_info": [{"local": "127.0.0.1"}]},
        {"ifname": "eth0", "flags": ["UP"], "addr_info": [{"local": ADDRESS}, {"local": "fe80::1"}]},
        {"ifname": "docker0", "flags": ["UP"], "addr_info": [{"local": "172.17.0.1"}]},
        {"ifname": "eth1", "flags": []},
    ]
    assert parse_addresses(json.dumps(said)) == [ADDRESS, "fe80::1"]


def test_own_addresses_are_not_tried():
    assert port_probe.is_own("127.0.0.1")
    assert exposure.seen_from_here(["127.0.0.1", "localhost", "no-such-host.invalid"]) == []
    assert exposure.seen_from_here([ADDRESS]) == [ADDRESS]


def test_sockets_that_listen_are_told_with_their_program():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("0.0.0.0", 0))
        ours = {server.getsockname()[1]: ("tcp", True), datagrams.getsockname()[1]: ("udp", False)}
        found = {one.port: (one.protocol, one.is_loopback) for one in exposure.listening() if one.program != "?"}
    assert {port: found.get(port) for port in ours} == ours


def test_ports_that_answer_are_told_from_ports_that_refuse():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as gone:
        closed = ("127.0.0.1", gone.getsockname()[1])
        gone.close()
        opened = server.getsockname()
        assert port_probe.probe_tcp([opened, closed], 10, 5) == {opened: OPEN, closed: REFUSED}


def test_every_port_is_told_however_few_are_tried_at_a_time():
    targets = [("127.0.0.1", port) for port in range(1, 1001)]
    answers = port_probe.probe_tcp(targets, 2, 5)
    assert sorted(answers) == targets
    assert set(answers.values()) <= {OPEN, REFUSED}


def test_udp_tells_a_refusal_and_silence_apart():
    with socket.socket(type=socket.SOCK_DGRAM) as silent, socket.socket(type=socket.SOCK_DGRAM) as gone:
        silent.bind(("127.0.0.1", 0))
        gone.bind(("127.0.0.1", 0))
        closed = gone.getsockname()
        gone.close()
        assert port_probe.probe_udp(closed) is REFUSED
        assert port_probe.probe_udp(silent.getsockname(), 0.05) is SILENT


def test_udp_that_answers_is_open():
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        answering = threading.Thread(target=lambda: server.sendto(b"!", server.recvfrom(1)[1]))
        answering.start()
        assert port_probe.probe_udp(server.getsockname(), 5) is OPEN
        answering.join()
