"""The gateway of a converged host, as others see it: closed to strangers, and to its users but for inference."""

import itertools
import json
import socket
import ssl
import time
from collections.abc import Iterable, Iterator

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamEnded, StreamReset
from testinfra.host import Host

PROGRAM = "python3 -I /opt/rackllama/current/rackllama-host.pyz"
FORBIDDEN = {
    "/api/pull": "POST",
    "/api/push": "POST",
    "/api/create": "POST",
    "/api/copy": "POST",
    "/api/delete": "DELETE",
    "/api/blobs/sha256:" + "0" * 64: "POST",
    "/api/experimental/web_fetch": "POST",
    "/": "GET",
    "/metrics": "GET",
}


def spellings(path: str) -> list[str]:
    """Ways to write a path that some server somewhere takes for the same."""
    first, _, rest = path[1:].partition("/")
    return [
        path,
        f"/{path}",
        f"//{path}",
        f"{path}/",
        f"{path}//",
        f"/.{path}",
        f"/%2e{path}",
        f"/%2E/{path}",
        f"/x/..{path}",
        f"/api/chat/../..{path}",
        f"/api/chat/%2e%2e/%2e%2e{path}",
        f"/api/chat/..%2f..{path}",
        f"/api/chat/..;/..;{path}",
        f"/v1/models/../..{path}",
        f"/{first}//{rest}",
        f"/{first}/./{rest}",
        f"/{first}/%2e/{rest}",
        f"/{first}%2f{rest}",
        f"/{first}%2F{rest}",
        f"/{first}%252f{rest}",
        f"/{first};/{rest}",
        f"/{first};a=b/{rest};a=b",
        f"{path};",
        f"{path}%00",
        f"{path}%20",
        f"{path}%0d%0a",
        f"{path}?a=b",
        f"{path}#a",
        f"{path}.json",
        f"/%{ord(first[:1] or '/'):02x}{path[2:]}",
        path.upper() + ("" if rest else "X"),
        path.title() + ("" if rest else "X"),
        f"http://127.0.0.1:11434{path}",
        f"https://localhost{path}",
        path.replace("/", "\\"),
    ]


ASKED = [(method, spelt) for path, method in FORBIDDEN.items() for spelt in spellings(path)]


class Gateway:
    """The gateway of one host, reached from here as any client reaches it."""

    def __init__(self, host: Host, knobs) -> None:
        self.host = host
        self.address = (knobs["ansible_host"], knobs["gateway_port"])
        self.trust = ssl.create_default_context(cadata=host.check_output("cat /etc/rackllama/gateway/ca.crt"))

    def connect(self, alpn: str = "http/1.1") -> ssl.SSLSocket:
        self.trust.set_alpn_protocols([alpn])
        return self.trust.wrap_socket(socket.create_connection(self.address, 30), server_hostname=self.address[0])

    def ask(self, method: str, path: str, *headers: str, version: str = "1.1", body: bytes = b"") -> int:
        """The status that answers one request, sent exactly as it is given."""
        lines = [f"{method} {path} HTTP/{version}", "Host: gateway", f"Content-Length: {len(body)}", *headers]
        with self.connect() as connection:
            connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return int(answer.split()[1])

    def ask_by_http2(self, key: str, requests: Iterable[tuple[str, str]]) -> dict[int, int | None]:
        """The status that answers each request, all on one connection; None for one that was reset."""
        protocol = H2Connection(H2Configuration(normalize_outbound_headers=False, validate_outbound_headers=False))
        statuses: dict[int, int | None] = {}
        with self.connect("h2") as connection:
            protocol.initiate_connection()
            for method, path in requests:
                stream = protocol.get_next_available_stream_id()
                pseudo = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "gateway")]
                protocol.send_headers(stream, [*pseudo, ("authorization", f"Bearer {key}")], end_stream=True)
                connection.sendall(protocol.data_to_send())
                ended = False
                while not ended:
                    data = connection.recv(65536)
                    assert data, "the connection was closed"
                    for event in protocol.receive_data(data):
                        if isinstance(event, ResponseReceived):
                            statuses[stream] = int(dict(event.headers)[b":status"])
                        elif isinstance(event, StreamReset):
                            statuses.setdefault(stream, None)
                        ended = ended or isinstance(event, StreamEnded | StreamReset)
                    connection.sendall(protocol.data_to_send())
        return statuses


@pytest.fixture(scope="module")
def gateway(host: Host, knobs) -> Gateway:
    if "gateway" not in knobs["group_names"]:
        pytest.skip("no gateway on this host")
    return Gateway(host, knobs)


@pytest.fixture
def key(gateway, host: Host) -> Iterator[str]:
    yield host.check_output(f"{PROGRAM} key create tester")
    host.check_output(f"{PROGRAM} key revoke tester")


@pytest.fixture
def unreached(host: Host) -> Iterator[None]:
    """Fails where the engine was asked for anything that is forbidden meanwhile."""
    cursor = host.check_output("journalctl -u ollama -n 0 --show-cursor -o cat").partition("cursor: ")[2].strip()
    yield
    said = host.check_output("journalctl -u ollama --after-cursor %s -o cat", cursor)
    reached = [line for line in said.splitlines() if "[GIN]" in line]
    assert [line for line in reached if '"/api/version"' not in line] == []
    assert reached  # the last request was let through: the engine does tell what reaches it


@pytest.mark.usefixtures("unreached")
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_no_spelling_of_a_forbidden_path_passes(gateway, key: str, version: str) -> None:
    passed = {
        (method, path): status
        for method, path in ASKED
        for status in [gateway.ask(method, path, f"Authorization: Bearer {key}", version=version)]
        if status not in (400, 404)
    }
    assert len(ASKED) > 200
    assert passed == {}
    assert gateway.ask("GET", "/api/version", f"Authorization: Bearer {key}", version=version) == 200


@pytest.mark.usefixtures("unreached")
def test_nor_does_one_by_http2(gateway, key: str) -> None:
    # What is no path at all ends a whole connection, and is asked for on one of its own.
    usual = [(method, path) for method, path in ASKED if path.startswith("/") and "#" not in path]
    statuses = list(gateway.ask_by_http2(key, usual).values())
    assert set(statuses) <= {400, 404, None}
    assert statuses.count(404) > len(usual) / 2
    for odd in set(ASKED) - set(usual):
        assert set(gateway.ask_by_http2(key, [odd]).values()) <= {400, 404, None}
    assert set(gateway.ask_by_http2(key, [("GET", "/api/version")]).values()) == {200}


@pytest.mark.usefixtures("unreached")
def test_another_method_does_not_pass(gateway, key: str) -> None:
    methods = ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "HEAD", "post", "PROPFIND")
    for method, path in itertools.product(methods, ("/api/chat", "/v1/models", "/api/tags", "/api/show")):
        assert gateway.ask(method, path, f"Authorization: Bearer {key}") in (400, 404), (method, path)
    assert gateway.ask("CONNECT", "127.0.0.1:11434", f"Authorization: Bearer {key}") in (400, 404)
    bearer = f"Authorization: Bearer {key}"
    assert gateway.ask("GET", "/api/version", bearer, "Connection: upgrade", "Upgrade: websocket") == 400
    # Newer HAProxy forgets that this one was asked for; what matters is that nothing is switched.
    assert gateway.ask("GET", "/api/version", bearer, "Connection: upgrade", "Upgrade: h2c") in (200, 400)
    assert gateway.ask("GET", "/api/version", bearer) == 200


def test_without_a_key_every_path_is_refused_but_health(gateway) -> None:
    for path in ("/", "/v1/models", "/api/pull", "/metrics", "/healthz/", "//healthz"):
        assert gateway.ask("GET", path) == 401
    assert gateway.ask("GET", "/healthz") == 200


def test_a_key_is_taken_both_ways_and_exactly(gateway, key: str) -> None:
    for header in (f"Authorization: Bearer {key}", f"authorization: bearer {key}", f"x-api-key: {key}"):
        assert gateway.ask("GET", "/v1/models", header) == 200
    for wrong in (key.upper(), key[:-1], f"{key}x", key[3:], "", "tester"):
        assert gateway.ask("GET", "/v1/models", f"Authorization: Bearer {wrong}") == 401
    assert gateway.ask("GET", "/v1/models", f"Authorization: Basic {key}") == 401
    assert gateway.ask("GET", f"/v1/models?key={key}") == 401


def test_only_its_port_is_open_to_others(gateway, host: Host, knobs) -> None:
    shown = host.check_output("ss -Hltnp").splitlines()
    own = {line.split()[3] for line in shown if "haproxy" in line}
    assert own == {f"0.0.0.0:{knobs['gateway_port']}", f"127.0.0.1:{knobs['gateway_metrics_port']}"}


def test_its_sandbox_is_tight_and_its_user_its_own(gateway, host: Host) -> None:
    overall = host.check_output("systemd-analyze security --no-pager gateway | grep 'Overall exposure level'")
    assert float(overall.split(":")[1].split()[0]) <= 2.0
    main = host.check_output("systemctl show gateway --property MainPID --value")
    assert host.check_output("ps -o user= -p %s --ppid %s", main, main).split() == ["gateway", "gateway"]


def test_the_distributions_own_unit_cannot_run(gateway, host: Host) -> None:
    assert host.check_output("systemctl show haproxy --property LoadState --value") == "masked"


def test_keys_and_the_certificates_key_are_for_the_gateway_alone(gateway, host: Host) -> None:
    for path in ("/var/lib/rackllama/keys.map", "/etc/rackllama/gateway/certificate.pem"):
        found = host.file(path)
        assert (found.user, found.group, found.mode) == ("root", "gateway", 0o640)


def test_a_key_stands_nowhere_on_the_host(gateway, host: Host, key: str) -> None:
    assert gateway.ask("GET", f"/v1/models?key={key}", f"Authorization: Bearer {key}") == 200
    assert gateway.ask("POST", f"/api/chat/{'x' * 90}", f"x-api-key: {key}", body=b"{}") == 404
    assert key not in host.check_output(
        "journalctl --no-pager -o cat --since -1h; ps -ef; cat /proc/*/environ | tr '\\0' '\\n'"
    )
    found = host.run("grep -rlF %s /etc /opt /run /srv /tmp /var/lib /var/log --exclude-dir=journal", key).stdout
    assert found == ""


def test_the_log_tells_who_asked_for_what_and_no_more(gateway, host: Host, key: str) -> None:
    body = json.dumps({"model": "no-such-model", "messages": [{"role": "user", "content": "a secret prompt"}]}).encode()
    gateway.ask("POST", "/api/chat?secret=value", f"Authorization: Bearer {key}", body=body)
    deadline, lines = time.monotonic() + 10, []
    while not lines:
        assert time.monotonic() < deadline
        said = host.check_output("journalctl -u gateway -n 50 -o cat")
        lines = [line for line in said.splitlines() if "no-such-model" in line]
    told = json.loads(lines[-1])
    assert (told["user"], told["path"], told["model"], told["status"]) == ("tester", "/api/chat", "no-such-model", 404)
    assert "secret" not in said


def test_metrics_are_for_the_host_itself(gateway, host: Host, knobs) -> None:
    ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    port = knobs["gateway_metrics_port"]
    assert "haproxy_frontend_http_responses_total" in host.check_output(
        "python3 -c %s %s", ask, f"http://127.0.0.1:{port}/metrics"
    )
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((knobs["ansible_host"], port), timeout=10)
