"""A stand-in for an engine or a web UI, run on a host as `python3 stand_in_engine.py NAME PORT`: tells what reaches it.

It answers each request by a JSON document with its own name, and the method, path, headers and size of what came, and
the seconds in which its body came. Where the body asks to `stream`, it sends as many lines as its `tokens` say,
`interval` seconds apart, each with its time. Asked for a WebSocket, it sends back whatever comes then.
"""

import base64
import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NAME, PORT = sys.argv[1], int(sys.argv[2])


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        if self.headers.get("Upgrade"):
            self.echo()
            return
        started = time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding"):
            body = b"".join(iter(self.read_chunk, b""))
        try:
            asked = json.loads(body or b"{}")
        except ValueError:
            asked = {}
        if isinstance(asked, dict) and asked.get("stream"):
            self.stream(int(asked["tokens"]), float(asked["interval"]))
            return
        told = {
            "engine": NAME,
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "size": len(body),
            "seconds": time.monotonic() - started,
        }
        answer = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        self.do_POST()

    def do_DELETE(self) -> None:
        self.do_POST()

    def echo(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.send_header("Connection", "Upgrade")
        digest = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + ACCEPT).encode()).digest()  # noqa: S324 - RFC 6455
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        while came := self.connection.recv(4096):
            self.connection.sendall(came)

    def read_chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def stream(self, tokens: int, interval: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        started = time.monotonic()
        for number in range(tokens):
            time.sleep(max(0.0, started + number * interval - time.monotonic()))
            line = f"data: {json.dumps({'n': number, 'sent': time.time(), 'text': 'token ' * 8})}\n\n".encode()
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None: ...


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", PORT), Engine).serve_forever()
