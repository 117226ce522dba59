"""A person at a browser elsewhere: reaches the chat page by its name, through the gateway and by HTTPS only."""

import base64
import hashlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from rackllama.host.webui.open_webui import Session

from .browser import Browser, browser
from .conftest import ADMIN, PASSWORD
from .test_chat import MODEL, ask

pytestmark = pytest.mark.slow
NAME = "chat.example.com"
PORT = 443
FORGED = "192.0.2.77"


@pytest.fixture(scope="module")
def behind(converged) -> Iterator[Any]:
    """The host with its page behind the gateway; the address that browsers use follows from its name."""
    given = {"gateway_webui_name": NAME, "open_webui_public_url": None}
    outcome = converged.converge("--tags", "gateway,webui", **given)
    assert outcome.code == 0, outcome.output
    yield converged
    back = converged.converge("--tags", "gateway,webui")
    assert back.code == 0, back.output


@contextmanager
def person(site) -> Iterator[Browser]:
    """Somebody who has signed in at the page, from another machine than its host."""
    settings = {"ui": {"version": str(Session(site.url).ask("GET", "/api/config")["version"])}}
    site.session().ask("POST", "/api/v1/users/user/settings/update", settings)  # no notes of a release in the way
    address = str(site.lab.hosts[0].address)
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate((address, PORT)).encode())
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    trusted = base64.b64encode(hashlib.sha256(key).digest()).decode()
    flags = (f"--host-resolver-rules=MAP {NAME} {address}", f"--ignore-certificate-errors-spki-list={trusted}")
    with browser(flags=flags) as window:
        window.open(f"https://{NAME}")
        window.write("#email", ADMIN)
        window.write("#password", PASSWORD)
        window.click("button[type=submit]")
        window.wait(lambda: window.count("#chat-input"), "the chat page after signing in")
        yield window


def asked(site, method: str, path: str, token: str = "", body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and answer of the page's API, through the gateway and trusting the site's own authority."""
    trust = ssl.create_default_context(cadata=site.run("cat /etc/rackllama/gateway/ca.crt"))
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), urllib.request.ProxyHandler({}))
    sent = {"Host": NAME, "Content-Type": "application/json", "Authorization": f"Bearer {token}", **headers}
    data = None if method == "GET" else json.dumps(body or {}).encode()
    request = urllib.request.Request(f"https://{site.lab.hosts[0].address}:{PORT}{path}", data, sent, method=method)
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_person_signs_in_by_its_name_and_sees_the_answer_come(behind) -> None:
    with person(behind) as page:
        seen = ask(page, MODEL, "What is a lighthouse? Explain in detail.")
        page.screenshot(behind.artefacts / "behind-the-gateway.png")
    assert len(seen) > 3, seen  # it came piece by piece, and so by the WebSocket
    assert "lighthouse" in seen[-1]
    said = behind.run("journalctl -u gateway -o cat -n 500")
    told = [json.loads(line) for line in said.splitlines() if line.startswith('{"client"')]
    sockets = [line for line in told if line["path"] == "/ws/socket.io/" and line["status"] in (101, 200)]
    assert sockets
    assert {line["host"] for line in sockets} == {NAME}


def test_a_page_that_is_open_stays_connected_through_a_reload(behind) -> None:
    main = behind.run("systemctl show gateway --property MainPID --value")

    def workers() -> set[str]:
        return set(behind.run(f"pgrep --parent {main}").split())

    with person(behind) as page:
        before = workers()
        behind.run("systemctl reload gateway")
        page.wait(lambda: workers() - before, "a worker of the new configuration")
        assert "lighthouse" in ask(page, MODEL, "What is a lighthouse?")[-1]
        assert before <= workers()  # its WebSocket is still that of before


def test_not_even_the_admin_reaches_the_engines_own_api(behind) -> None:
    token = behind.session().ask("POST", "/api/v1/auths/signin", {"email": ADMIN, "password": PASSWORD})["token"]
    cursor = behind.run("journalctl -u ollama -n 0 --show-cursor -o cat").partition("cursor: ")[2].strip()
    pull, delete = {"model": "smollm"}, {"model": MODEL}
    for prefix in (
        "/ollama",
        "/%6fllama",
        "/OLLAMA",
        "//ollama",
        "/ollama%2f",
        "/./ollama",
        "/ollama/",
        "/x/../ollama",
    ):
        for method, path, body in (
            ("POST", "/api/pull/0", pull),
            ("DELETE", "/api/delete/0", delete),
            ("POST", "/api/create/0", pull),
            ("POST", "/models/upload/0", {}),
            ("POST", "/api/chat", delete),
        ):
            assert asked(behind, method, prefix + path, token, body)[0] in {400, 403}, prefix + path
    assert asked(behind, "GET", "/openai/config", token)[0] == 403
    assert asked(behind, "GET", "/api/models", token)[0] == 200
    reached = behind.run(f"journalctl -u ollama --after-cursor '{cursor}' -o cat").splitlines()
    assert [line for line in reached if "[GIN]" in line and "GET" not in line] == []


def test_its_name_opens_nothing_of_the_api_and_needs_no_key(behind) -> None:
    assert asked(behind, "GET", "/v1/models", Host="localhost")[0] == 401
    status, page = asked(behind, "GET", "/")
    assert (status, b"<html" in page) == (200, True)


def test_passwords_are_guessed_slowly_and_by_the_address_that_the_gateway_sees(behind) -> None:
    behind.run("systemctl reload gateway")  # counts begin anew
    wrong = {"email": ADMIN, "password": "wrong"}
    forged = {"X-Forwarded-For": FORGED}
    statuses = [asked(behind, "POST", "/api/v1/auths/signin", "", wrong, **forged)[0] for _ in range(12)]
    assert statuses[10:] == [429] * 2
    assert 429 not in statuses[:3]
    assert FORGED not in behind.run("journalctl -u open_webui -u gateway -o cat -n 200")
