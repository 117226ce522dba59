"""Serve the depot as a mirror: plain HTTP, read-only, with ranges, so that landings can resume; in the background too.

It has no authentication, so it is bound to one address: loopback, or that of the lab's own bridge.
"""

import errno
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot.depot import Depot, default_depot
from rackllama.paths import state_dir

PORT = 8199
IDENTITY_PATH = "/.depot"
START_SECONDS = 20.0
_POLL_SECONDS = 0.05
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


class DepotServer(ThreadingHTTPServer):
    """Serves one depot. Raises RackllamaError where it cannot listen at the address."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, depot: Depot, address: str, port: int) -> None:
        self.depot = depot
        self.mirror_root = depot.mirror_root.resolve()
        try:
            super().__init__((address, port), _Handler)
        except OSError as error:
            raise _cannot_listen(address, port, error) from error


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "rackllama-depot"
    timeout = 60  # seconds that an idle connection is kept
    disable_nagle_algorithm = True  # head and body are two writes
    server: DepotServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        try:
            if self.path == IDENTITY_PATH:
                self._send_identity()
            elif path := resolve(self.server.mirror_root, self.path):
                self._send_file(path)
            else:
                self.send_error(HTTPStatus.NOT_FOUND)
        except (ConnectionError, TimeoutError):  # the client went away; it will ask again for what it lacks
            self.close_connection = True

    def _send_identity(self) -> None:
        identity = {"root": str(self.server.depot.root), "pid": os.getpid()}
        body = json.dumps(identity).encode()
        self._send_head(HTTPStatus.OK, len(body), {"Content-Type": "application/json"})
        if self.command == "GET":
            self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            headers = {
                "Content-Type": "application/octet-stream",
                "Accept-Ranges": "bytes",
                "Last-Modified": self.date_time_string(int(status.st_mtime)),
            }
            wanted = byte_range(self.headers.get("Range"), status.st_size)
            if wanted is None:
                wanted = range(status.st_size)
                self._send_head(HTTPStatus.OK, len(wanted), headers)
            elif not wanted:
                headers["Content-Range"] = f"bytes */{status.st_size}"
                self._send_head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, headers)
            else:
                headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{status.st_size}"
                self._send_head(HTTPStatus.PARTIAL_CONTENT, len(wanted), headers)
            if wanted and self.command == "GET":
                self.connection.sendfile(file, wanted.start, len(wanted))

    def _send_head(self, status: HTTPStatus, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


def resolve(mirror_root: Path, target: str) -> Path | None:
    """The file that a request's target names, or None where there is none, or it lies outside of `mirror_root`."""
    try:
        path = (mirror_root / unquote(urlsplit(target).path).lstrip("/")).resolve()
        return path if path.is_relative_to(mirror_root) and path.is_file() else None
    except (ValueError, OSError):  # no address at all, a NUL in it, a name longer than any file's
        return None


def byte_range(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for of a file of `size` bytes; an empty range where there are none such.

    None where the whole file is to be sent: with no header, several ranges, and what is not well-formed.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if not match:
        return None
    first, last, suffix = match.groups()
    if suffix:
        return range(max(0, size - int(suffix)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1 if last else size))


def serve(address: str = "127.0.0.1", port: int = PORT, announce: Callable[[str], None] = lambda _url: None) -> None:
    """Serve this user's depot until interrupted; `announce` is told the URL once it answers.

    Raises RackllamaError where it cannot listen at the address.
    """
    with DepotServer(default_depot(), address, port) as server:
        announce(f"http://{address}:{port}")
        server.serve_forever()


def ensure_serving(address: str = "127.0.0.1", port: int = PORT) -> str:
    """The URL of this user's depot at that address, served by a process of its own that outlives this one.

    Raises RackllamaError where something else listens there, or the server does not come up.
    """
    record = _records() / f"{address}-{port}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    if not _is_served(address, port):
        _require_free(address, port)
        _start(address, port, record.with_suffix(".log"))
    record.write_text(json.dumps({"address": address, "port": port}), encoding="ascii")
    return f"http://{address}:{port}"


def stop_serving() -> list[str]:
    """End all servers of this user's depot, and return the URLs that no longer answer.

    Only a process that answers as this depot's server is ended, so that a recorded one long gone hurts nobody.
    """
    stopped = []
    for record in sorted(_records().glob("*.json")):
        at = json.loads(record.read_text(encoding="ascii"))
        address, port = at["address"], at["port"]
        found = identity(address, port)
        if found and found["root"] != str(default_depot().root):
            continue
        if found:
            os.kill(found["pid"], signal.SIGTERM)
            while identity(address, port) == found:
                time.sleep(_POLL_SECONDS)
            stopped.append(f"http://{address}:{port}")
        record.unlink(missing_ok=True)
    return stopped


def identity(address: str, port: int) -> dict[str, Any] | None:
    """Which depot is served there: its `root` and the server's `pid`. None where no depot's server answers."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", IDENTITY_PATH)
        answer = json.loads(connection.getresponse().read(4096))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return answer if isinstance(answer, dict) and {"root", "pid"} <= answer.keys() else None


def _records() -> Path:
    """The folder that names the servers in the background, with their logs."""
    return state_dir() / "depot-servers"


def _is_served(address: str, port: int) -> bool:
    return (identity(address, port) or {}).get("root") == str(default_depot().root)


def _start(address: str, port: int, log_path: Path) -> None:
    """Start a server in the background, and return once it answers."""
    argv = ["setsid", "--fork", sys.executable, "-m", "rackllama.lab.depot.server", address, str(port)]
    with log_path.open("ab") as log:
        # setsid ends at once and leaves the server to init: nothing of this process is needed, or left to reap.
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", check=True)
    deadline = time.monotonic() + START_SECONDS
    while not _is_served(address, port):
        if time.monotonic() > deadline:
            raise RackllamaError(f"the depot's server did not come up at {address} port {port}", f"read {log_path}")
        time.sleep(_POLL_SECONDS)


def _require_free(address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise _cannot_listen(address, port, error) from error


def _cannot_listen(address: str, port: int, error: OSError) -> RackllamaError:
    if error.errno == errno.EADDRINUSE:
        return RackllamaError(
            f"port {port} at {address} is taken",
            f"end what listens there (`ss -ltnp sport = :{port}` names it), or give another port",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return RackllamaError(
            f"{address} is not an address of this machine", "give one that `ip address` shows, such as 127.0.0.1"
        )
    return RackllamaError(f"cannot listen at {address} port {port}: {error.strerror}", "give another address or port")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
