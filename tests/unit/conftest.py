"""A stand-in for whatever serves artefacts over HTTP: a mirror that can be told to misbehave."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class StandInMirror:
    """Files by path, and the faults to show: `statuses` are answered, one a request, before the file itself is."""

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    cut_after: int | None = None
    cuts: int = 1
    serves_ranges: bool = True
    requested_ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def mirror() -> Iterator[StandInMirror]:
    state = StandInMirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requested_ranges.append(self.headers["Range"])
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            body, status = state.files.get(self.path), 200
            if body is None:
                self.send_error(404)
                return
            if state.serves_ranges and (asked := self.headers["Range"]):
                body, status = body[int(asked.removeprefix("bytes=").removesuffix("-")) :], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut_after])
            state.cuts -= 1
            if state.cuts == 0:
                state.cut_after = None

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # so that closing it waits for its last answer
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()
