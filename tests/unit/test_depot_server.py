"""The depot's server: ranges, what it refuses, and its life in the background."""

import argparse
import http.client
import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot import cli
from rackllama.lab.depot.depot import Depot, default_depot
from rackllama.lab.depot.server import DepotServer, byte_range, ensure_serving, identity, resolve, stop_serving

SHARD = bytes(range(200))


@contextmanager
def running(server: HTTPServer):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield
    server.shutdown()
    thread.join()


@pytest.fixture
def connection(tmp_path: Path):
    depot = Depot(tmp_path / "depot")
    folder = depot.mirror_root / "huggingface.co" / "resolve"
    folder.mkdir(parents=True)
    (folder / "a b.gguf").write_bytes(SHARD)
    (tmp_path / "depot" / "secret").write_text("not for serving")
    with DepotServer(depot, "127.0.0.1", 0) as server, running(server):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
        yield connection
        connection.close()


def ask(connection, path, method="GET", **headers):
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read(), response


def test_a_file_is_served_whole_with_its_length(connection):
    status, body, response = ask(connection, "/huggingface.co/resolve/a%20b.gguf")
    assert (status, body) == (200, SHARD)
    assert response.headers["Content-Length"] == "200"
    assert response.headers["Accept-Ranges"] == "bytes"


def test_a_range_is_served_as_such(connection):
    status, body, response = ask(connection, "/huggingface.co/resolve/a%20b.gguf", Range="bytes=10-19")
    assert (status, body) == (206, SHARD[10:20])
    assert response.headers["Content-Range"] == "bytes 10-19/200"


def test_a_range_beyond_the_end_is_refused_with_the_size(connection):
    status, _, response = ask(connection, "/huggingface.co/resolve/a%20b.gguf", Range="bytes=200-")
    assert status == 416
    assert response.headers["Content-Range"] == "bytes */200"


def test_head_tells_the_length_and_sends_nothing(connection):
    status, body, response = ask(connection, "/huggingface.co/resolve/a%20b.gguf", method="HEAD")
    assert (status, body, response.headers["Content-Length"]) == (200, b"", "200")


def test_one_connection_serves_many_requests(connection):
    ask(connection, "/huggingface.co/resolve/a%20b.gguf", Range="bytes=0-0")
    first = connection.sock
    ask(connection, "/huggingface.co/resolve/a%20b.gguf", method="HEAD")
    ask(connection, "/huggingface.co/resolve/a%20b.gguf", Range="bytes=999-")
    assert ask(connection, "/huggingface.co/resolve/a%20b.gguf")[1] == SHARD
    assert connection.sock is first


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/huggingface.co",
        "/huggingface.co/resolve/",
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/a%00b",
        "//[",
        f"/{'a' * 5000}",
    ],
)
def test_folders_and_what_lies_outside_are_not_found(connection, path):
    status, body, _ = ask(connection, path)
    assert status == 404
    assert b"secret" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(connection, method):
    assert ask(connection, "/huggingface.co/resolve/new", method=method)[0] == 501


def test_a_link_out_of_the_mirror_leads_nowhere(tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "secret").write_text("")
    (tmp_path / "mirror" / "link").symlink_to(tmp_path / "secret")
    assert resolve(tmp_path / "mirror", "/link") is None


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-", range(200)),
        ("bytes=5-9", range(5, 10)),
        ("bytes=190-500", range(190, 200)),
        ("bytes=-20", range(180, 200)),
        ("bytes=-500", range(200)),
        ("bytes=9-5", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=-", None),
        (f"bytes={'9' * 5000}-", None),
    ],
)
def test_what_a_range_header_asks_for(header, wanted):
    assert byte_range(header, 200) == wanted


@pytest.mark.parametrize("header", ["bytes=200-", "bytes=300-400", "bytes=-0"])
def test_a_range_of_nothing(header):
    assert byte_range(header, 200) == range(0)


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A free port, and a depot and state of this test's own; no server is left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
    yield number
    stop_serving()


def test_a_server_in_the_background_is_started_once_and_stopped(port):
    file = default_depot().mirror_root / "example.org" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("hello")
    url = ensure_serving("127.0.0.1", port)
    assert url == f"http://127.0.0.1:{port}"
    first = identity("127.0.0.1", port)
    assert first is not None
    assert first["root"] == str(default_depot().root)
    assert ensure_serving("127.0.0.1", port) == url
    assert identity("127.0.0.1", port) == first

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    assert ask(connection, "/example.org/file")[1] == b"hello"
    connection.close()

    assert stop_serving() == [url]
    assert identity("127.0.0.1", port) is None
    assert stop_serving() == []


def test_a_port_taken_by_something_else_is_told(port):
    with (
        HTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler) as other,
        running(other),
        pytest.raises(RackllamaError, match=f"port {port} .* is taken"),
    ):
        ensure_serving("127.0.0.1", port)


def test_a_port_taken_by_another_users_depot_is_told(port, tmp_path, monkeypatch):
    ensure_serving("127.0.0.1", port)
    with monkeypatch.context() as other:
        other.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        with pytest.raises(RackllamaError, match="is taken"):
            ensure_serving("127.0.0.1", port)
        assert stop_serving() == []
    assert stop_serving() == [f"http://127.0.0.1:{port}"]


def test_the_command_ends_servers_in_the_background(port, capsys):
    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers())
    url = ensure_serving("127.0.0.1", port)
    for told in (f"stopped {url}\n", "no depot is served\n"):
        arguments = parser.parse_args(["depot", "--stop"])
        assert arguments.run(arguments) == 0
        assert capsys.readouterr().out == told


def test_an_address_of_another_machine_is_told(port):
    with pytest.raises(RackllamaError, match=r"192\.0\.2\.1 is not an address of this machine"):
        ensure_serving("192.0.2.1", port)


def test_the_identity_is_json(connection):
    status, body, _ = ask(connection, "/.depot")
    assert status == 200
    assert json.loads(body).keys() == {"root", "pid"}
