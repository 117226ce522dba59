"""A stand-in for what serves shards: a hub that keeps connections alive, counts, and can be told to misbehave."""

import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 1 << 16
TRICKLE_SECONDS = 0.01


@dataclass
class Request:
    """What was asked, by which connection (its port)."""

    path: str
    headers: Message
    connection: int
    method: str = "GET"

    @property
    def range(self) -> tuple[int, int] | None:
        """First and last byte asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        return (int(asked[1]), int(asked[2])) if asked else None


@dataclass
class Answer:
    """What to answer in place of the file; `body` None: the file itself, as asked, with these headers added.

    Until `trickles_until` is set, a byte now and then is all that comes.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    shift: int = 0
    trickles_until: threading.Event | None = None


@dataclass
class Hub:
    """Files by path. `fault` sees each request and may give an Answer for it; None means no fault."""

    files: dict[str, bytes] = field(default_factory=dict)
    fault: Callable[[Request], Answer | None] = lambda _: None
    serves_ranges: bool = True
    etag: str | None = '"1"'
    requests: list[Request] = field(default_factory=list)
    bytes_sent: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, path: str) -> list[Request]:
        """The requests for one path."""
        return [request for request in self.requests if request.path == path]


def first(count: int, answer: Answer) -> Callable[[Request], Answer | None]:
    """A fault that the first `count` requests meet."""
    left = [answer] * count

    def fault(_: Request) -> Answer | None:
        return left.pop() if left else None

    return fault


class Handler(BaseHTTPRequestHandler):
    server: "HubServer"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        hub = self.server.hub
        request = Request(self.path, self.headers, self.client_address[1], self.command)
        with hub.lock:
            hub.requests.append(request)
        answer = hub.fault(request) or Answer()
        body, status, headers = self._file(hub, request, answer)
        if answer.body is not None or answer.status is not None:
            body, status = memoryview(answer.body or b""), answer.status or status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        end = len(body) if answer.cut_after is None else min(answer.cut_after, len(body))
        begin = self._trickle(hub, body[:end], answer.trickles_until) if answer.trickles_until else 0
        self._send(hub, body[begin:end])
        self.close_connection = self.close_connection or end < len(body)

    def do_PUT(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        """A proxy that lets nobody through."""
        with self.server.hub.lock:
            self.server.hub.requests.append(Request(f"CONNECT {self.path}", self.headers, self.client_address[1]))
        self.send_error(403)

    def _file(self, hub: Hub, request: Request, answer: Answer) -> tuple[memoryview, int, dict[str, str]]:
        whole = hub.files.get(request.path)
        if whole is None:
            return memoryview(b""), 404, {}
        headers = {"ETag": hub.etag} if hub.etag else {}
        if request.range is None or not hub.serves_ranges:
            return memoryview(whole), 200, headers
        start, last = (place + answer.shift for place in request.range)
        if start >= len(whole):
            return memoryview(b""), 416, {"Content-Range": f"bytes */{len(whole)}"}
        last = min(last, len(whole) - 1)
        headers["Content-Range"] = f"bytes {start}-{last}/{len(whole)}"
        return memoryview(whole)[start : last + 1], 206, headers

    def _trickle(self, hub: Hub, body: memoryview, until: threading.Event) -> int:
        sent = 0
        while sent < len(body) and not until.wait(TRICKLE_SECONDS):
            self._send(hub, body[sent : sent + 1])
            sent += 1
        return sent

    def _send(self, hub: Hub, body: memoryview) -> None:
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            self.wfile.write(piece)
            with hub.lock:
                hub.bytes_sent += len(piece)

    def log_message(self, *_: object) -> None: ...


class HubServer(ThreadingHTTPServer):
    """Serves a hub on loopback."""

    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        hub.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(hub: Hub) -> HubServer:
    """Serve until shut down."""
    server = HubServer(hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server
