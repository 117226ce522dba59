"""What a landing has finished is kept: a failure costs its own step again, and nothing before it."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rackllama.host import model
from rackllama.host.errors import RackllamaError
from rackllama.host.model import Shard, WantedModel, found_model, land, plan
from rackllama.host.modelfile import ModelSettings
from rackllama.host.ollama import Ollama

SHARDS = {"gemma-00001-of-00002.gguf": b"GGUF first", "gemma-00002-of-00002.gguf": b"GGUF second"}
# Stands in for llama-gguf-split, whose real self is run by the end-to-end tests.
MERGE_TOOL = """#!/bin/sh
cat "$(dirname "$2")"/gemma-*.gguf > "$3"
"""


@dataclass
class StandInOllama:
    """The part of Ollama's API that a landing uses; `refuses` holds paths to answer with a full disk, once each."""

    blobs: set[str] = field(default_factory=set)
    models: dict[str, str] = field(default_factory=dict)
    refuses: list[str] = field(default_factory=list)
    created: list[dict] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def ollama():
    state = StandInOllama()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, document, status=200):
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        def refused(self):
            path = next((path for path in state.refuses if self.path.startswith(path)), None)
            if path:
                state.refuses.remove(path)
                self.answer({"error": "no space left on device"}, 500)
            return path

        def do_HEAD(self):
            self.answer({}, 200 if self.path.rpartition("/")[2] in state.blobs else 404)

        def do_GET(self):
            self.answer({"models": [{"name": name, "digest": found} for name, found in state.models.items()]})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.refused():
                return
            if self.path.startswith("/api/blobs/"):
                found = f"sha256:{hashlib.sha256(body).hexdigest()}"
                assert self.path.endswith(found)
                state.blobs.add(found)
                self.answer({})
            elif self.path == "/api/show":
                blob = next(iter(state.blobs)).replace(":", "-")
                self.answer({"modelfile": f"FROM /models/blobs/{blob}\n"})
            else:
                asked = json.loads(body)
                state.created.append(asked)
                state.models[asked["model"]] = f"manifest {len(state.created)}"
                self.answer({"status": "success"})

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def landing(mirror, ollama, tmp_path, monkeypatch):
    """A function that lands Gemma with these settings and gives the steps it took."""
    monkeypatch.setattr(model, "RECORDS", tmp_path / "records")
    tool = tmp_path / "llama-gguf-split"
    tool.write_text(MERGE_TOOL)
    tool.chmod(0o755)
    mirror.files.update({f"/{name}": body for name, body in SHARDS.items()})
    shards = tuple(
        Shard(name, f"{mirror.url}/{name}", hashlib.sha256(body).hexdigest(), len(body))
        for name, body in SHARDS.items()
    )

    def run(**parameters):
        wanted = WantedModel("gemma", "gemma:q4", shards, ModelSettings(parameters=parameters))
        server = Ollama(ollama.url)
        steps = plan(wanted, found_model(wanted, server))
        land(wanted, steps, server, tmp_path / "staging", tool) if steps else None
        return steps

    return run


def test_a_model_is_landed_once(landing, mirror, ollama, tmp_path):
    assert landing(num_ctx=1) == ["fetch", "merge", "create"]
    assert landing(num_ctx=1) == []
    assert len(mirror.requested_ranges) == len(SHARDS)
    assert not list((tmp_path / "staging").iterdir())


def test_other_parameters_copy_nothing(landing, ollama):
    landing(num_ctx=1)
    assert landing(num_ctx=2) == ["apply"]
    assert ollama.created[-1] == {"model": "gemma:q4", "from": "gemma:q4", "parameters": {"num_ctx": 2}}
    assert landing(num_ctx=2) == []


def test_a_model_that_cannot_be_created_is_not_fetched_again(landing, mirror, ollama):
    ollama.refuses.append("/api/create")
    with pytest.raises(RackllamaError, match="no space left on device"):
        landing(num_ctx=1)
    assert landing(num_ctx=1) == ["create"]
    assert len(mirror.requested_ranges) == len(SHARDS)


def test_a_merged_file_that_cannot_be_stored_is_kept(landing, mirror, ollama):
    ollama.refuses.append("/api/blobs/")
    with pytest.raises(RackllamaError, match="no space left on device"):
        landing(num_ctx=1)
    landing(num_ctx=1)
    assert len(mirror.requested_ranges) == len(SHARDS)
    assert landing(num_ctx=1) == []


def test_shards_that_arrived_are_kept(landing, mirror):
    second = mirror.files.pop("/gemma-00002-of-00002.gguf")
    with pytest.raises(RackllamaError, match="answered 404"):
        landing(num_ctx=1)
    mirror.files["/gemma-00002-of-00002.gguf"] = second
    landing(num_ctx=1)
    assert mirror.requested_ranges == [None] * 3


def test_a_model_deleted_by_hand_is_created_from_its_weights(landing, mirror, ollama):
    landing(num_ctx=1)
    ollama.models.clear()
    assert landing(num_ctx=1) == ["create"]
    assert len(mirror.requested_ranges) == len(SHARDS)
