"""An install image for a BMC to fetch: one file, served by HTTP on one address for the time of an install, read-only.

BMCs read a medium in ranges, as a drive does, and go on reading for as long as the installer needs it.
"""

import ipaddress
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rackllama.host.errors import RackllamaError

RANGE = re.compile(r"bytes=(\d*)-(\d*)")
CHUNK = 1 << 20
IDLE_SECONDS = 60


@contextmanager
def served(image: Path, at: str) -> Iterator[str]:
    """Serve that file alone, and yield the URL, which nobody can guess.

    `at` is an address of this machine that the BMC reaches, as `10.0.0.2` or `10.0.0.2:8044`; without a port any free
    one is taken. Raises RackllamaError where it cannot be listened on.
    """
    host, port = listening_address(at)
    path = f"/{secrets.token_urlsafe(32)}/{image.name}"
    try:
        server = _Server((host, port), image, path)
    except OSError as error:
        raise RackllamaError(
            f"the install image cannot be served at {at}: {error.strerror}",
            "give an address of this machine that the BMC reaches as `serve_at`, and a free port where a firewall asks",
        ) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}{path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def listening_address(at: str) -> tuple[str, int]:
    """The address and port of `serve_at`, 0 for any. Raises RackllamaError unless it names one IPv4 address."""
    host, _, port = at.partition(":")
    try:
        address = ipaddress.IPv4Address(host)
        number = int(port or 0)
    except ValueError:
        raise RackllamaError(f"{at!r} is no address to serve at", "write an IPv4 address, or ADDRESS:PORT") from None
    if address.is_unspecified:
        raise RackllamaError(
            "the install image would be served to every network of this machine",
            "name the address of this machine on the BMC's network as `serve_at`",
        )
    return host, number


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte that are asked for, the whole file where no range is; None where the file has none of it."""
    match = RANGE.fullmatch(header or "")
    if not match or not any(match.groups()):
        return 0, size - 1
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size - 1
    start, end = int(first), min(int(last or size - 1), size - 1)
    return (start, end) if start <= end else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], image: Path, path: str) -> None:
        self.image, self.path = image, path
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rackllama", ""
    timeout = IDLE_SECONDS
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        if not secrets.compare_digest(self.path.encode(), self.server.path.encode()):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with self.server.image.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            wanted = byte_range(self.headers["Range"], size)
            if wanted is None:
                self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
            first, last = wanted
            whole = (first, last) == (0, size - 1)
            self.send_response(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            if not whole:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.end_headers()
            file.seek(first)
            left = last + 1 - first
            while body and left and (chunk := file.read(min(CHUNK, left))):
                self.wfile.write(chunk)
                left -= len(chunk)

    def log_message(self, *_: object) -> None:
        """Keep the path, which is not to be known, out of every log."""
