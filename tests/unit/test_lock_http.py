"""The HTTP client of the lock, against a stand-in upstream on loopback."""

import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.mirror.http import ATTEMPTS, Fetcher, retry_after_seconds, tokens_from


class StandInUpstream:
    """An HTTP server that answers each path with the next of its prepared (status, headers, body)."""

    def __init__(self):
        upstream = self
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.requests: list[tuple[str, str | None]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                upstream.requests.append((self.path, self.headers.get("Authorization")))
                prepared = upstream.answers.get(self.path, [(404, {}, b"")])
                status, headers, body = prepared.pop(0) if len(prepared) > 1 else prepared[0]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.site = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def upstream():
    stand_in = StandInUpstream()
    yield stand_in
    stand_in.close()


@pytest.fixture
def other_host():
    stand_in = StandInUpstream()
    yield stand_in
    stand_in.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_token_goes_to_its_own_host(upstream):
    upstream.answers["/release"] = [(200, {}, b"{}")]
    assert Fetcher(tokens={upstream.site: "s3cret"})(f"{upstream.site}/release") == b"{}"
    assert upstream.requests == [("/release", "Bearer s3cret")]


def test_a_token_is_never_sent_to_the_host_of_a_redirect(upstream, other_host):
    upstream.answers["/release"] = [(302, {"Location": f"{other_host.site}/blob"}, b"")]
    other_host.answers["/blob"] = [(200, {}, b"sums")]
    assert Fetcher(tokens={upstream.site: "s3cret"})(f"{upstream.site}/release") == b"sums"
    assert other_host.requests == [("/blob", None)]


def test_a_redirect_within_the_host_keeps_the_token(upstream):
    upstream.answers["/old-name"] = [(307, {"Location": "/new-name"}, b"")]
    upstream.answers["/new-name"] = [(200, {}, b"{}")]
    Fetcher(tokens={upstream.site: "s3cret"})(f"{upstream.site}/old-name")
    assert upstream.requests == [("/old-name", "Bearer s3cret"), ("/new-name", "Bearer s3cret")]


def test_a_mirror_gets_the_host_in_the_path_and_no_token(upstream):
    upstream.answers["/m/huggingface.co/api/models/a/b?blobs=true"] = [(200, {}, b"{}")]
    Fetcher(f"{upstream.site}/m/", {"https://huggingface.co": "s3cret"})(
        "https://huggingface.co/api/models/a/b?blobs=true"
    )
    assert upstream.requests == [("/m/huggingface.co/api/models/a/b?blobs=true", None)]


def test_a_proxy_of_the_environment_is_used(upstream, monkeypatch):
    monkeypatch.setenv("http_proxy", upstream.site)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    upstream.answers["http://get.test/sums"] = [(200, {}, b"sums")]
    assert Fetcher()("http://get.test/sums") == b"sums"


def test_too_many_requests_are_repeated_after_as_long_as_upstream_says(upstream):
    waits = []
    upstream.answers["/release"] = [(429, {"Retry-After": "17"}, b""), (503, {}, b""), (200, {}, b"{}")]
    assert Fetcher(sleep=waits.append)(f"{upstream.site}/release") == b"{}"
    assert waits == [17, 2]


def test_an_upstream_that_stays_broken_is_given_up_with_growing_waits(upstream):
    waits = []
    upstream.answers["/release"] = [(502, {}, b"")]
    with pytest.raises(RackllamaError, match="HTTP 502") as caught:
        Fetcher(sleep=waits.append)(f"{upstream.site}/release")
    assert waits == [1, 2, 4]
    assert len(upstream.requests) == ATTEMPTS
    assert "try again later" in caught.value.remedy


def test_an_hour_to_wait_is_told_instead_of_waited(upstream):
    upstream.answers["/release"] = [(429, {"Retry-After": "3600"}, b"")]
    with pytest.raises(RackllamaError, match="come back in: 3600"):
        Fetcher(sleep=pytest.fail)(f"{upstream.site}/release")


def test_what_upstream_does_not_have_is_not_asked_for_again(upstream):
    with pytest.raises(RackllamaError, match="upstream has no http://127"):
        Fetcher(sleep=pytest.fail)(f"{upstream.site}/release")
    assert len(upstream.requests) == 1


def test_a_refused_token_is_not_shown(upstream):
    upstream.answers["/release"] = [(401, {}, b"")]
    fetcher = Fetcher(tokens={upstream.site: "s3cret"}, sleep=pytest.fail)
    with pytest.raises(RackllamaError, match="HTTP 401") as caught:
        fetcher(f"{upstream.site}/release")
    assert "s3cret" not in str(caught.value) + repr(fetcher)


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(RackllamaError, match=r"mirror\.test .* has a password") as caught:
        Fetcher("http://me:geheim@mirror.test")("https://hub.test/file")
    assert "geheim" not in str(caught.value)


def test_a_dead_upstream_names_proxy_and_mirror(other_host):
    waits = []
    other_host.close()
    with pytest.raises(RackllamaError, match="Connection refused") as caught:
        Fetcher(sleep=waits.append)(f"{other_host.site}/release")
    assert "--mirror" in caught.value.remedy
    assert len(waits) == ATTEMPTS - 1


def test_a_cut_answer_is_fetched_again(upstream):
    upstream.answers["/sums"] = [(200, {"Content-Length": "99"}, b"half"), (200, {}, b"whole")]
    assert Fetcher(sleep=lambda _: None)(f"{upstream.site}/sums") == b"whole"


def test_tokens_are_those_that_the_environment_holds():
    assert tokens_from({"GITHUB_TOKEN": "a", "HF_TOKEN": " ", "HOME": "/"}) == {"https://api.github.com": "a"}


def test_retry_after_is_seconds_or_a_date():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_seconds("17", now) == 17
    assert retry_after_seconds("Thu, 01 Jan 2026 00:01:00 GMT", now) == 60
    assert retry_after_seconds("Wed, 31 Dec 2025 00:00:00 GMT", now) == 0
    assert retry_after_seconds("soon", now) == 0
