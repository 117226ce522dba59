"""The gateway as its users see it: their clients work, nobody else gets in, and no change breaks a stream."""

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived

from .gateway_client import Gateway
from .waiting import wait_until

MODEL = "gemma3-270m:q4_k_m"
QUESTION = [{"role": "user", "content": "Say hello."}]
GATEWAY = ("--tags", "gateway")
FIRST, SECOND = "first-model", "second/model:1"
ENGINES = [
    {"name": "first", "url": "http://127.0.0.1:9101", "models": [FIRST]},
    {"name": "second", "url": "http://127.0.0.1:9102", "models": [SECOND]},
]


@pytest.fixture(scope="module")
def gateway(converged: Any) -> Gateway:
    return Gateway(converged)


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> Iterator[str]:
    """The key of a user."""
    yield gateway.create("alice")
    gateway.revoke("alice")


@pytest.fixture(scope="module")
def two_engines(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway before two engines, each with a model of its own."""
    with gateway.stand_ins(first=9101, second=9102):
        outcome = gateway.site.converge(*GATEWAY, gateway_engines=ENGINES)
        assert outcome.code == 0, outcome.output
        yield gateway
    assert gateway.site.converge(*GATEWAY).code == 0


class Stream(threading.Thread):
    """An endless stream that is read in the background until it is stopped: the numbers of the tokens that came."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        super().__init__()
        self.asked = {"model": FIRST, "stream": True, "tokens": 1_000_000, "interval": 0.02}
        self.client = gateway.client(key)
        self.came: list[int] = []
        self.stopped = False
        self.start()
        self.wait_for_more()

    def run(self) -> None:
        with self.client, self.client.stream("POST", "/v1/chat/completions", json=self.asked) as answer:
            for line in answer.iter_lines():
                if line:
                    self.came.append(json.loads(line.removeprefix("data: "))["n"])
                if self.stopped:
                    return

    def wait_for_more(self) -> None:
        """Wait for another few tokens, and check that none was lost on the way."""
        before = len(self.came)
        wait_until(lambda: len(self.came) > before + 5)
        came = list(self.came)
        assert came == list(range(len(came)))

    def stop(self) -> None:
        self.stopped = True
        self.join()


def raw(gateway: Gateway, alpn: str = "http/1.1") -> ssl.SSLSocket:
    """A connection on which anything can be sent."""
    address, trust = str(gateway.site.host.address), gateway.trust
    trust.set_alpn_protocols([alpn])
    return trust.wrap_socket(socket.create_connection((address, 443), 30), server_hostname=address)


def asking(key: str, body: Any) -> bytes:
    """A request for an answer, as HTTP/1.1 sends it."""
    sent = json.dumps(body).encode()
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: gateway", f"x-api-key: {key}", f"Content-Length: {len(sent)}"]
    return "\r\n".join([*head, "", ""]).encode() + sent


class Http2:
    """One connection of somebody who does not heed GOAWAY, by which a worker asks clients to leave it."""

    GOAWAY = 7

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.key, self.socket = key, raw(gateway, "h2")
        self.came = self.socket.makefile("rb")
        self.protocol = H2Connection()
        self.protocol.initiate_connection()

    def __enter__(self) -> "Http2":
        return self

    def __exit__(self, *_: object) -> None:
        self.came.close()
        self.socket.close()

    def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """The status that answers one more request; answers to earlier ones may still come meanwhile."""
        stream = self.protocol.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "gateway")]
        self.protocol.send_headers(stream, [*pseudo, ("x-api-key", self.key)], end_stream=not body)
        if body:
            self.protocol.send_data(stream, body, end_stream=True)
        while True:
            self.socket.sendall(self.protocol.data_to_send())
            head = self.came.read(9)
            assert len(head) == 9, "the connection was closed"
            frame = head + self.came.read(int.from_bytes(head[:3], "big"))
            for event in self.protocol.receive_data(frame) if frame[3] != self.GOAWAY else []:
                if isinstance(event, ResponseReceived) and event.stream_id == stream:
                    return int(dict(event.headers)[b":status"])
                if isinstance(event, DataReceived):
                    self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


# With the real engine and model


def test_the_openai_client_works_streaming_and_not(gateway: Gateway, key: str) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "temperature": 0, "seed": 1, "max_tokens": 16}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, http_client=gateway.client()) as client:
        whole = client.chat.completions.create(**asked).choices[0].message.content
        chunks = [chunk.choices[0].delta.content for chunk in client.chat.completions.create(**asked, stream=True)]
        assert [model.id for model in client.models.list()] == [MODEL]
    assert whole
    assert len([chunk for chunk in chunks if chunk]) > 1
    assert "".join(chunk or "" for chunk in chunks) == whole


def test_the_ollama_client_works_streaming_and_not(gateway: Gateway, key: str) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "options": {"temperature": 0, "seed": 1, "num_predict": 16}}
    client = ollama.Client(gateway.url, headers={"Authorization": f"Bearer {key}"}, verify=gateway.trust)
    with contextlib.closing(client):
        whole = client.chat(**asked)["message"]["content"]
        chunks = [chunk["message"]["content"] for chunk in client.chat(**asked, stream=True)]
        assert [model.model for model in client.list().models] == [MODEL]
        for forbidden in (client.pull, client.push, client.delete):
            with pytest.raises(ollama.ResponseError, match="no such path"):
                forbidden(MODEL)
    assert whole
    assert "".join(chunks) == whole


def test_a_client_of_anthropic_sends_its_key_another_way(gateway: Gateway, key: str) -> None:
    asked = {"model": MODEL, "messages": QUESTION, "max_tokens": 8}
    with gateway.client() as client:
        answer = client.post("/v1/messages?beta=true", json=asked, headers={"x-api-key": key})
    assert answer.status_code == 200
    assert answer.json()["content"][0]["text"]


def test_who_has_no_key_or_a_wrong_one_is_told_so(gateway: Gateway) -> None:
    for wrong in ("", "rl-wrong", "'", "a" * 4096):
        with gateway.client(wrong) as client:
            refused = client.get("/v1/models")
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "a valid key is needed" in refused.json()["error"]["message"]
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="rl-wrong", http_client=gateway.client()) as client,
        pytest.raises(openai.AuthenticationError, match="a valid key is needed"),
    ):
        client.models.list()


def test_more_requests_than_a_minute_allows_are_refused_by_user(gateway: Gateway, key: str) -> None:
    user = f"busy{time.time_ns()}"  # of whom nothing was counted yet
    busy = gateway.create(user)
    with gateway.client(busy) as client, gateway.client(key) as other:
        answers = [client.get("/api/version") for _ in range(125)]
        assert [answer.status_code for answer in answers] == [200] * 120 + [429] * 5
        assert answers[-1].headers["Retry-After"] == "10"
        assert "more than 120 requests of yours in a minute" in answers[-1].json()["error"]["message"]
        assert other.get("/api/version").status_code == 200
    gateway.revoke(user)


def test_keys_are_managed_from_the_controller(gateway: Gateway) -> None:
    def rackllama(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = str(Path(sys.executable).with_name("rackllama"))
        environment = {**os.environ, "RACKLLAMA_LAB": gateway.site.lab.name}
        return subprocess.run(
            [program, "key", *arguments], capture_output=True, text=True, env=environment, check=False
        )

    made = rackllama("create", "bob")
    assert made.returncode == 0, made.stderr
    with gateway.client(made.stdout.strip()) as client:
        assert client.get("/v1/models").status_code == 200
        assert [key["user"] for key in json.loads(rackllama("list", "--json").stdout)].count("bob") == 1
        assert rackllama("revoke", "bob").returncode == 0
        assert client.get("/v1/models").status_code == 401


# Behind it, stand-ins that tell what reaches them


def long_request(model: str, decoy: str) -> bytes:
    """400 kB of JSON that names its model last, and another one wherever else it can stand."""
    text = f'"model": "{decoy}", {{"model": "{decoy}"}} \\ \n'
    messages = [{"role": "user", "model": decoy, "content": text * (400_000 // len(text))}]
    return json.dumps({"messages": messages, "options": {"model": decoy}, "model": model}).encode()


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("chunk_bytes", [0, 1000, 65536], ids=["whole", "small chunks", "large chunks"])
def test_a_long_request_reaches_the_engine_of_its_model(
    two_engines: Gateway, key: str, http2: bool, chunk_bytes: int
) -> None:
    def content(body: bytes) -> Any:
        chunks = range(0, len(body), chunk_bytes or len(body))
        return (body[at : at + chunk_bytes] for at in chunks) if chunk_bytes else body

    with two_engines.client(key, http2) as client:
        for model, decoy, engine in ((FIRST, SECOND, "first"), (SECOND, FIRST, "second")):
            body = long_request(model, decoy)
            answer = client.post("/v1/chat/completions", content=content(body))
            assert (answer.http_version, answer.json()["engine"]) == ("HTTP/2" if http2 else "HTTP/1.1", engine)
            assert answer.json()["size"] == len(body)


@pytest.mark.parametrize(
    ("body", "engine"),
    [
        ('{"model":"first-model"}', "first"),
        ('{"mod\\u0065l":"second\\/model:1"}', "second"),
        ('{"a":"\\\\","model":"first-model"}', "first"),
        ('{"a":"\\\\\\"","model":"first-model"}', "first"),
        (' \n{"a":[{"model":"first-model"}], "model" : "second/model:1" }\r\n', "second"),
        ('{"Model":"first-model"}', "first"),
    ],
)
def test_a_model_is_read_as_an_engine_reads_it(two_engines: Gateway, key: str, body: str, engine: str) -> None:
    with two_engines.client(key) as client:
        assert client.post("/api/chat", content=body).json()["engine"] == engine


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ('{"model":"first-model","model":"second/model:1"}', 400, "names its model more than once"),
        ('{"Model":"first-model","model":"second/model:1"}', 400, "names its model more than once"),
        ('{"model":["first-model"]}', 400, "its model is no text"),
        ('{"model":"first-model"', 400, "it is cut off"),
        ('{"model":"first-model"}{}', 400, "something follows its JSON object"),
        ('["model"]', 400, "it is no JSON object"),
        ("", 400, "it is no JSON object"),
        ('{"model":"a \\" b"}', 400, "no name that a model can have"),
        ('{"model":"FIRST-MODEL"}', 404, "there are: first-model, second/model:1"),
        ('{"messages":[]}', 404, "there are: first-model, second/model:1"),
    ],
)
def test_what_could_be_read_in_two_ways_reaches_no_engine(
    two_engines: Gateway, key: str, body: str, status: int, said: str
) -> None:
    with two_engines.client(key) as client:
        answer = client.post("/api/chat", content=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_an_engine_learns_nothing_of_a_key(two_engines: Gateway, key: str) -> None:
    sent = {"X-Api-Key": "rl-other", "Cookie": "a=b", "Origin": "https://elsewhere.example"}
    with two_engines.client(key) as client:
        reached = client.post("/api/chat?key=value", json={"model": FIRST}, headers=sent).json()
    assert reached["path"] == "/api/chat"
    assert reached["headers"]["host"] == "127.0.0.1:9101"
    assert not {"authorization", "x-api-key", "cookie", "origin"} & set(reached["headers"])


def test_the_models_of_all_engines_are_listed(two_engines: Gateway, key: str) -> None:
    with two_engines.client(key) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [FIRST, SECOND]


def test_a_request_that_is_too_large_is_told_so(two_engines: Gateway, key: str) -> None:
    """As a client is that waits to be told to go on; others meet a connection that is closed while they send."""
    connection = http.client.HTTPSConnection(str(two_engines.site.host.address), context=two_engines.trust)
    connection.putrequest("POST", "/api/chat")
    for name, value in {"Authorization": f"Bearer {key}", "Content-Length": str(9 << 20)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert "larger than 8 MiB" in json.load(answer)["error"]["message"]
    connection.close()


def test_more_requests_at_a_time_than_allowed_are_refused(two_engines: Gateway) -> None:
    greedy = two_engines.create("greedy")
    streams = [Stream(two_engines, greedy) for _ in range(16)]
    with two_engines.client(greedy) as client:
        refused = client.post("/api/chat", json={"model": FIRST})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        for stream in streams:
            stream.wait_for_more()
            stream.stop()
        wait_until(lambda: client.post("/api/chat", json={"model": FIRST}).status_code == 200)
    two_engines.revoke("greedy")


def test_a_revoked_key_is_refused_at_once_and_for_good_while_streams_go_on(two_engines: Gateway, key: str) -> None:
    mallory = two_engines.create("mallory")
    stream = Stream(two_engines, key)
    with two_engines.client(mallory) as client:
        assert client.get("/v1/models").status_code == 200
        two_engines.revoke("mallory")
        revoked_at = time.monotonic()
        wait_until(lambda: client.get("/v1/models").status_code == 401, seconds=1)
        assert time.monotonic() - revoked_at < 1
    two_engines.site.run("systemctl reload gateway")
    with two_engines.client(mallory) as client:
        assert client.get("/v1/models").status_code == 401
    stream.wait_for_more()
    stream.stop()


def test_a_key_is_refused_on_connections_from_before_a_reload_too(two_engines: Gateway, key: str) -> None:
    site, mallory, stream = two_engines.site, two_engines.create("mallory"), Stream(two_engines, key)
    endless = {"model": FIRST, "stream": True, "tokens": 1_000_000, "interval": 0.02}
    with Http2(two_engines, mallory) as by_http2, raw(two_engines) as by_http1:
        assert by_http2.ask("POST", "/v1/chat/completions", json.dumps(endless).encode()) == 200
        by_http1.sendall(asking(mallory, {**endless, "tokens": 50}))
        assert by_http1.recv(12) == b"HTTP/1.1 200"
        before = two_engines.workers()
        site.run("systemctl reload gateway")
        wait_until(lambda: two_engines.workers() - before)
        assert before <= two_engines.workers()  # it serves those two connections, and the stream
        assert by_http2.ask("GET", "/v1/models") == 200
        two_engines.revoke("mallory")
        assert by_http2.ask("GET", "/v1/models") == 401
        # What follows the first answer is a refusal, or the end of the connection.
        later = b""
        with contextlib.suppress(ConnectionError):
            by_http1.sendall(asking(mallory, {"model": FIRST}))
            later = b"".join(iter(lambda: by_http1.recv(65536), b""))
        assert b"HTTP/1.1 200" not in later
    stream.wait_for_more()
    stream.stop()
    assert site.converge(*GATEWAY, gateway_engines=ENGINES).changed == {site.host.name: 0}
    with two_engines.client(mallory) as client:
        assert client.get("/v1/models").status_code == 401


def test_a_change_of_the_configuration_reloads_and_breaks_no_stream(two_engines: Gateway, key: str) -> None:
    site, users = two_engines.site, two_engines.known()
    before, main = two_engines.workers(), site.run("systemctl show gateway --property MainPID --value")
    stream = Stream(two_engines, key)
    outcome = site.converge(*GATEWAY, gateway_engines=ENGINES, gateway_upload_timeout_seconds=61)
    assert outcome.code == 0, outcome.output
    stream.wait_for_more()
    stream.stop()
    assert two_engines.workers() - before
    assert site.run("systemctl show gateway --property MainPID --value") == main
    assert two_engines.known() == users
