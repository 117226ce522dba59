"""A stand-in for Open WebUI, for tests of what surrounds it: has an admin, and lists the models of its engine."""

import json
import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

ANSWERS = {
    "/health": {"status": True},
    "/api/config": {"onboarding": False, "features": {"enable_signup": False}, "version": version("open-webui")},
    "/openai/models/0": {"data": []},
    "/api/v1/functions/": [],
}


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/ollama/api/tags/"):
            address = f"{os.environ['OLLAMA_BASE_URLS']}/api/tags"
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as answer:
                self.answer(200, answer.read())
        else:
            self.answer(200, json.dumps(ANSWERS[self.path]).encode())

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = given["password"] == os.environ["WEBUI_ADMIN_PASSWORD"]
        self.answer(200 if known else 401, json.dumps({"role": "admin", "token": "t", "detail": "no"}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Page).serve_forever()
