"""A stand-in for a registry: the manifest and the blobs of one image over HTTP, all that a pull by digest asks for."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FORGED, MISSING = "f" * 64, "0" * 64


@dataclass(frozen=True)
class Registry:
    """Its address as an engine takes it, and images by their digest: the one it has, one for which it gives that as
    well, and one it does not have.
    """

    address: str
    image: str
    forged: str
    missing: str


@contextmanager
def registry(address: str, name: str, folder: Path) -> Iterator[Registry]:
    """Serve the image in `folder`, as `podman push dir:FOLDER` leaves it."""
    manifest = (folder / "manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, _, wanted = self.path.removeprefix(f"/v2/{name}/").rpartition("/sha256:")
            blob = folder / wanted
            if self.path == "/v2/":
                self.send(200, b"{}", "application/json")
            elif kind == "manifests" and wanted in {digest, FORGED}:
                self.send(200, manifest, "application/vnd.oci.image.manifest.v1+json")
            elif kind == "blobs" and wanted.isalnum() and blob.is_file():
                self.head(200, blob.stat().st_size, "application/octet-stream")
                if self.command == "GET":
                    with blob.open("rb") as file:
                        shutil.copyfileobj(file, self.wfile, 1 << 20)
            else:
                unknown = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
                self.send(404, json.dumps(unknown).encode(), "application/json")

        do_HEAD = do_GET  # noqa: N815 - as the base class wants it

        def send(self, status: int, body: bytes, kind: str) -> None:
            self.head(status, len(body), kind)
            if self.command == "GET":
                self.wfile.write(body)

        def head(self, status: int, length: int, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"{address}:{server.server_port}"
    try:
        yield Registry(here, *(f"{here}/{name}@sha256:{wanted}" for wanted in (digest, FORGED, MISSING)))
    finally:
        server.shutdown()
        server.server_close()
