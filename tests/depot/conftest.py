"""The depot's real Ollama on loopback, with a folder of models of its own."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.models.ollama import Ollama
from rackllama.lab.depot.depot import default_depot, is_filled
from rackllama.lab.depot.recipes import OLLAMA
from rackllama.mirror.lock import find, read_lock

START_SECONDS = 60


@dataclass(frozen=True)
class OllamaServer:
    """A server that was started here: `models_dir` is its OLLAMA_MODELS."""

    api: Ollama
    models_dir: Path
    log: Path


def depot_archive(name: str) -> Path:
    """The one archive of a tool in the depot."""
    assert is_filled(), "the depot is not filled; run: make depot"
    depot = default_depot()
    (file,) = find(read_lock(depot.lock_path), name).files
    return depot.mirror_root / file.mirror_path


@pytest.fixture(scope="session")
def ollama_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, unpacked beside what it starts."""
    folder = tmp_path_factory.mktemp("ollama")
    subprocess.run(["tar", "--zstd", "-xf", depot_archive(OLLAMA.name), "-C", folder], check=True)
    return folder / "bin" / "ollama"


@contextlib.contextmanager
def running_ollama(program: Path, folder: Path, **environment: str) -> Iterator[OllamaServer]:
    """Start a server that keeps all it has in `folder`, wait until it answers, and stop it at the end."""
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings: Mapping[str, str] = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")},
        "HOME": str(folder),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NO_CLOUD": "1",
        **environment,
    }
    log = folder / "ollama.log"
    with (
        log.open("ab") as said,
        subprocess.Popen([program, "serve"], env=settings, stdout=said, stderr=said) as process,
    ):
        try:
            server = OllamaServer(Ollama(f"http://127.0.0.1:{port}"), folder / "models", log)
            _wait_until_it_answers(server, process)
            yield server
        finally:
            process.terminate()


@pytest.fixture
def ollama(ollama_program: Path, tmp_path: Path) -> Iterator[OllamaServer]:
    """A server with no model."""
    with running_ollama(ollama_program, tmp_path / "ollama") as server:
        yield server


def _wait_until_it_answers(server: OllamaServer, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.api.models()
        except RackllamaError:
            assert process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.1)
        else:
            return
