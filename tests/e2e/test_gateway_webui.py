"""The name of the chat page at the gateway: what goes there, and what does not. Behind it is a stand-in that tells.

With the real Open WebUI and a real browser: tests/webui/test_behind_gateway.py.
"""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from .gateway_client import Gateway
from .waiting import wait_until

NAME = "chat.example.com"
PORT = 9103
GATEWAY = ("--tags", "gateway")
SIGN_IN = "/api/v1/auths/signin"
MIB = 1 << 20


@pytest.fixture(scope="module")
def page(converged: Any) -> Iterator[Gateway]:
    """The gateway, with a stand-in for the chat page behind that name."""
    gateway = Gateway(converged)
    with gateway.stand_ins(page=PORT):
        outcome = converged.converge(*GATEWAY, gateway_webui_name=NAME, open_webui_listen_port=PORT)
        assert outcome.code == 0, outcome.output
        with browser(gateway) as client:
            wait_until(lambda: client.get("/").status_code == 200)
        yield gateway
    assert converged.converge(*GATEWAY).code == 0


def browser(gateway: Gateway, host: str = NAME, http2: bool = False) -> httpx.Client:
    """A client that asks for the chat page by its name; to be closed."""
    return httpx.Client(base_url=gateway.url, verify=gateway.trust, headers={"Host": host}, http2=http2, timeout=60)


def raw(gateway: Gateway, trust: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """A connection on which anything can be sent."""
    address = str(gateway.site.host.address)
    return (trust or gateway.trust).wrap_socket(socket.create_connection((address, 443), 30), server_hostname=address)


def asked(gateway: Gateway, path: str, trust: ssl.SSLContext | None = None) -> tuple[int, Any]:
    """Status and body that answer a POST to a path that is sent exactly as it is given."""
    with raw(gateway, trust) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        connection.sendall(head.encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if b"application/json" in head else None


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_its_name_reaches_the_page_and_no_other_does(page: Gateway, http2: bool) -> None:
    for name in (NAME, NAME.upper(), f"{NAME}:443"):
        with browser(page, name, http2) as client:
            answer = client.get("/auth?redirect=%2F", headers={"Cookie": "token=a", "Origin": f"https://{NAME}"})
        told = answer.json()
        assert (told["engine"], told["path"]) == ("page", "/auth?redirect=%2F")
        assert (told["headers"]["cookie"], told["headers"]["origin"]) == ("token=a", f"https://{NAME}")
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    for name in ("localhost", f"x{NAME}", f"{NAME}.org", f"{NAME}.", f"a@{NAME}", f"{NAME},{NAME}"):
        with browser(page, name, http2) as client:
            assert client.get("/auth").status_code in {400, 401}, name


def test_a_key_opens_what_it_did_and_nothing_of_the_page(page: Gateway) -> None:
    key = page.create("carol")
    with page.client(key) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/auth").status_code == 404
    page.revoke("carol")


def test_the_page_is_told_who_asks_and_by_no_one_else(page: Gateway) -> None:
    forged = {
        "X-Forwarded-For": "192.0.2.1",
        "Forwarded": "for=192.0.2.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "elsewhere.example",
        "X-Real-IP": "192.0.2.1",
    }
    with browser(page) as client:
        told = client.get("/", headers=forged).json()["headers"]
    with socket.create_connection((str(page.site.host.address), 443)) as connection:
        own = connection.getsockname()[0]
    assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == (own, "https")
    assert not {"forwarded", "x-forwarded-host", "x-real-ip"} & set(told)


SPELLINGS = [
    spelt
    for path in ("/ollama/api/pull", "/ollama/api/delete/0", "/openai/chat/completions", "/ollama", "/openai/")
    for spelt in (
        path,
        path.upper(),
        path.title(),
        f"/{path}",
        f"//{path}",
        f"/.{path}",
        f"/x/..{path}",
        f"/x/..;{path}",
        f"/%2e{path}",
        f"/x/%2e%2e{path}",
        f"/x%2f..{path}",
        f"/;{path}",
        f"/\\{path}",
        f"/%5c{path}",
        f"/%2f{path[1:]}",
        f"%2f{path[1:]}",
        f"/%00{path}",
        f"{path};a=b",
        f"{path}%zz",
        f"/%6f{path[2:]}",
        f"/%4F{path[2:]}",
        f"{path[:2]}%{ord(path[2]):02x}{path[3:]}",
        path[0] + path[1:].replace("/", "%2f"),
        path[0] + path[1:].replace("/", "//"),
        path[0] + path[1:].replace("/", ";/"),
        f"{path}?a=b",
        f"https://{NAME}{path}",
        f"https://{NAME}/%6f{path[2:]}",
    )
]


def test_no_spelling_of_what_is_closed_reaches_the_page(page: Gateway) -> None:
    reached, trust = {}, page.trust
    for path in SPELLINGS:
        status, said = asked(page, path, trust)
        assert status in {200, 400, 403}, (path, status)
        if status == 200:
            reached[path] = said["path"]
    assert reached == {}
    with browser(page) as client:
        refused = client.get("/ollama/api/tags")
        assert "closed at the gateway" in refused.json()["detail"]
        for path in ("/", "/api/v1/prompts/command/%2Fopenai", "/api/models", "/c/ollama", "/static/ollama.png"):
            assert unquote(client.get(path).json()["path"]) == unquote(path)


def test_passwords_are_guessed_slowly_from_an_address(page: Gateway) -> None:
    page.site.run("systemctl reload gateway")  # counts begin anew
    ways = [SIGN_IN, f"{SIGN_IN}/", f"{SIGN_IN}?a=b", SIGN_IN.replace("s", "%73"), SIGN_IN.replace("/", "%2f")[3:]]
    with browser(page) as client:
        statuses = [client.post(SIGN_IN, json={}).status_code for _ in range(10)]
        assert statuses == [200] * 10
        refused = client.post(SIGN_IN, json={})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
        assert "too many attempts to sign in" in refused.json()["detail"]
        assert [asked(page, way if way.startswith("/") else f"/{way}")[0] for way in ways] == [429] * len(ways)
        assert client.get("/").status_code == 200
    elsewhere = (
        "import http.client, ssl; context = ssl._create_unverified_context()\n"
        "connection = http.client.HTTPSConnection('127.0.0.1', context=context)\n"
        f"connection.request('POST', '{SIGN_IN}', '{{}}', {{'Host': '{NAME}'}})\n"
        "print(connection.getresponse().status)"
    )
    assert page.site.run(f'python3 -c "{elsewhere}"') == "200"


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_a_document_passes_as_it_comes_up_to_a_size_of_its_own(page: Gateway, http2: bool) -> None:
    def document() -> Iterator[bytes]:
        yield bytes(10 * MIB)
        time.sleep(1)
        yield bytes(10 * MIB)

    with browser(page, http2=http2) as client:
        told = client.post("/api/v1/files/", content=document(), headers={"Content-Length": str(20 * MIB)}).json()
        assert told["size"] == 20 * MIB
        assert told["seconds"] > 0.9  # its beginning was there long before its end
        for method in ("POST", "PUT", "DELETE", "GET"):
            refused = client.request(method, "/api/v1/files/", content=iter([b"{}"]))
            assert (refused.status_code, "Content-Length" in refused.text) == (411, True), method
            assert client.request(method, "/api/v1/files/").status_code == 200  # has no body


def test_one_that_is_too_large_is_told_so(page: Gateway) -> None:
    connection = http.client.HTTPSConnection(str(page.site.host.address), context=page.trust)
    connection.putrequest("POST", "/api/v1/files/", skip_host=True)
    for name, value in {"Host": NAME, "Content-Length": str(101 * MIB)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["detail"]) == (413, "larger than 100 MiB")
    connection.close()


def test_a_websocket_goes_on_through_a_reload(page: Gateway) -> None:
    with raw(page) as connection:
        head = [f"GET /ws/socket.io/?EIO=4 HTTP/1.1\r\nHost: {NAME}", "Connection: Upgrade", "Upgrade: websocket"]
        head += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        connection.sendall("\r\n".join(head).encode())
        assert connection.recv(65536).split()[1] == b"101"
        before = page.workers()
        page.site.run("systemctl reload gateway")
        wait_until(lambda: page.workers() - before)
        for message in (b"ping", b"pong"):
            connection.sendall(message)
            assert connection.recv(65536) == message


def test_the_log_tells_the_page_and_neither_query_nor_cookie(page: Gateway) -> None:
    with browser(page) as client:
        client.get("/s/log-entry?code=a-secret", headers={"Cookie": "token=a-secret"})
    wait_until(lambda: "log-entry" in page.site.run("journalctl -u gateway -n 20 -o cat"))
    said = page.site.run("journalctl -u gateway -n 20 -o cat")
    told = next(json.loads(line) for line in said.splitlines() if "log-entry" in line)
    assert (told["host"], told["engine"], told["path"], told["status"]) == (NAME, "webui", "/s/log-entry", 200)
    assert "a-secret" not in said


def test_a_page_that_does_not_run_is_told_of(page: Gateway) -> None:
    page.site.run("systemctl stop page")
    with browser(page) as client:
        answer = client.get("/")
    page.start_stand_in("page", PORT)
    assert (answer.status_code, answer.text.split(".")[0]) == (503, "The chat page does not answer")
