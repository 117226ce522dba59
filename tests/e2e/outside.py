"""The world outside of a site that wants a secret for everything: a proxy, an index of packages, S3 and a hub.

All are one server. Nothing is had but through the proxy, which answers by itself for the depot too.
"""

import base64
import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import SplitResult, urlsplit

from rackllama.lab.depot.depot import default_depot
from rackllama.lab.depot.server import byte_range, resolve
from rackllama.lab.hosts import network_gateway

HUB = "huggingface.co"
BUCKET = "/bucket/"
INDEX = "/simple/"


def basic(user: str, password: str) -> str:
    """The header of a user and a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass
class Outside:
    """What is offered and who may have it. `used` are the secrets that somebody came with and that were right."""

    secrets: Mapping[str, str]
    packages: Mapping[str, bytes]
    used: set[str] = field(default_factory=set)
    place: str = ""

    def proxy(self, password: str) -> str:
        """The address of the proxy."""
        return f"http://me:{password}@{self.place}"

    @property
    def index(self) -> str:
        """The address of the index."""
        return f"http://me:{self.secrets['index']}@{self.place}{INDEX}"

    @property
    def store(self) -> str:
        """The endpoint of S3."""
        return f"http://{self.place}"


class Handler(BaseHTTPRequestHandler):
    server: "Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if not self._comes_with("proxy", "Proxy-Authorization", basic("me", self._secret("proxy"))):
            self._answer(407, b"", {"Proxy-Authenticate": 'Basic realm="proxy"'})
        elif asked.hostname == HUB:
            self._comes_with("hub", "Authorization", f"Bearer {self._secret('hub')}")
            self._answer(401)  # a token that is not the right one
        elif asked.path.startswith(INDEX):
            if self._comes_with("index", "Authorization", basic("me", self._secret("index"))):
                self._answer(200, self._package(asked.path.removeprefix(INDEX).strip("/")))
            else:
                self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="index"'})
        elif asked.path.startswith(BUCKET):
            signed = f"AWS4-HMAC-SHA256 Credential={self._secret('s3-id')}/"
            path = next(default_depot().mirror_root.rglob(asked.path.removeprefix(BUCKET)))
            self._send_file(path) if self._comes_with("s3-id", "Authorization", signed) else self._answer(403)
        else:
            self._send_depot(asked)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _secret(self, name: str) -> str:
        return self.server.outside.secrets[name]

    def _comes_with(self, name: str, header: str, beginning: str) -> bool:
        comes = self.headers.get(header, "").startswith(beginning)
        if comes:
            self.server.outside.used.add(name)
        return comes

    def _package(self, asked: str) -> bytes:
        packages = self.server.outside.packages
        name = asked.rpartition("/")[2]
        page = "".join(f'<a href="{wheel}">{wheel}</a>' for wheel in packages)
        return packages.get(name) or f"<!DOCTYPE html><html><body>{page}</body></html>".encode()

    def _send_depot(self, asked: SplitResult) -> None:
        path = resolve(default_depot().mirror_root, asked.path)
        self._send_file(path) if path else self._answer(404)

    def _send_file(self, path: Path) -> None:
        size = path.stat().st_size
        wanted = byte_range(self.headers.get("Range"), size)
        part = range(size) if wanted is None else wanted
        headers = {} if wanted is None else {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}"}
        with path.open("rb") as file:
            self._head(200 if wanted is None else 206, len(part), headers)
            self.connection.sendfile(file, part.start, len(part))

    def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self._head(status, len(body), headers or {"Content-Type": "text/html"})
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, outside: Outside) -> None:
        super().__init__((network_gateway(), 0), Handler)
        self.outside = outside
        outside.place = f"{self.server_address[0]!s}:{self.server_address[1]}"


@contextmanager
def serving(outside: Outside) -> Iterator[Outside]:
    """Offer it to the hosts of a lab."""
    with Server(outside) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield outside
        finally:
            server.shutdown()
            thread.join()


def wheel(folder: Path, name: str, version: str, program: str, module: Path) -> Path:
    """A package in that folder whose program is the `main` of one module."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    files = {
        module.name: module.read_text(encoding="utf-8"),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{program} = {module.stem}:main\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(inner, text)
    return path


def requirement(path: Path, name: str, version: str) -> str:
    """The line that pins a wheel by its hash."""
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
