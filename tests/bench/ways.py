"""The ways from shards on a server to a model of Ollama's: as manuals say, as a clever hand does it, and ours."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.host.models.ollama import Ollama
from rackllama.host.models.ollama_store import OllamaStore

from .inputs import Input, Tools

START_SECONDS = 60
MODEL = "bench:latest"
CHECKOUT = Path(__file__).parents[2]
HASHERS = {"sha256sum": ("sha256sum",), "openssl": ("openssl", "dgst", "-sha256", "-r")}


@dataclass(frozen=True)
class Place:
    """Where one way does its work: a fresh folder, a fresh Ollama (its process and its store), and the file server."""

    folder: Path
    api: Ollama
    store: Path
    process: int
    files_url: str

    @property
    def environment(self) -> dict[str, str]:
        """For commands that talk to this Ollama."""
        return {**os.environ, "OLLAMA_HOST": self.api.url, "HOME": str(self.folder)}


Way = Callable[[Place], float | None]


def naive(found: Input, tools: Tools, place: Place) -> None:
    """Parallel curl, `llama-gguf-split --merge`, `ollama create`."""
    merged = _downloaded_and_merged(found, tools, place)
    (place.folder / "Modelfile").write_text(f"FROM {merged}\n")
    command = [tools.ollama, "create", MODEL, "-f", place.folder / "Modelfile"]
    _run(command, place.environment)


def by_hand(found: Input, tools: Tools, hasher: str, place: Place) -> None:
    """Parallel curl, merge, one digest, a rename into the store, and config and manifest written by hand."""
    merged = _downloaded_and_merged(found, tools, place)
    told = subprocess.run([*HASHERS[hasher], merged], capture_output=True, text=True, check=True)
    digest = f"sha256:{told.stdout.split()[0]}"
    store = OllamaStore(place.store)
    store.prepare()
    merged.rename(store.blob(digest))
    store.write_bare_model(MODEL, digest)


def ours(found: Input, sha256s: bool, merged_sha256: bool, place: Place) -> float:
    """What `rackllama-host land` does: the shards, one pass, the store, and `POST /api/create`."""
    command, environment = bring_command(found, sha256s, merged_sha256, place)
    return float(json.loads(_run(command, environment))["landed_at"])


def bring_command(
    found: Input, sha256s: bool, merged_sha256: bool, place: Place
) -> tuple[list[str | Path], dict[str, str]]:
    """The command, and its environment, that brings the model with these digests published or not."""
    shards = [
        {
            "name": shard.name,
            "sources": [f"{place.files_url}/{shard.name}"],
            "size": shard.stat().st_size,
            "sha256": sha256 if sha256s else None,
        }
        for shard, sha256 in zip(found.shards, found.sha256s, strict=True)
    ]
    job = {
        "slug": "bench",
        "name": MODEL,
        "shards": shards,
        "sha256": found.merged_sha256 if merged_sha256 else None,
        "store": str(place.store),
        "ollama_url": place.api.url,
    }
    path = place.folder / "job.json"
    path.write_text(json.dumps(job))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    return [sys.executable, CHECKOUT / "tests/bench/bring.py", path, place.folder / "land"], environment


def curl(found: Input, files_url: str, into: Path | None) -> None:
    """Fetch all shards at once."""
    commands = [
        ["curl", "--silent", "--fail", "--output", into / name if into else "/dev/null", f"{files_url}/{name}"]
        for name in (shard.name for shard in found.shards)
    ]
    for process in [subprocess.Popen(command) for command in commands]:
        if process.wait():
            raise RackllamaError("curl failed", "see above")


def require_served(found: Input, place: Place) -> None:
    """Raise RackllamaError unless Ollama lists the model, and has its weights as their name says."""
    if [model.name for model in place.api.models()] != [MODEL]:
        raise RackllamaError("Ollama does not list the model", f"see {place.folder}")
    store = OllamaStore(place.store)
    model = store.model(MODEL)
    weights = model.weights if model else None
    if weights is None:
        raise RackllamaError("the model has no weights", f"see {place.folder}")
    with store.blob(weights.digest).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if weights.digest != f"sha256:{digest}":
        raise RackllamaError("the weights are not what their name says", f"see {place.folder}")


def faster_hasher(sample: Path) -> str:
    """Which of the usual tools takes a digest sooner here."""
    seconds = {}
    for name, command in HASHERS.items():
        started = time.monotonic()
        subprocess.run([*command, sample], stdout=subprocess.DEVNULL, check=True)
        seconds[name] = time.monotonic() - started
    return min(seconds, key=lambda name: seconds[name])


@contextmanager
def fresh_place(tools: Tools, folder: Path, files_url: str) -> Iterator[Place]:
    """An empty folder with an Ollama of its own, gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")},
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NO_CLOUD": "1",
    }
    try:
        with (
            (folder / "ollama.log").open("wb") as log,
            subprocess.Popen([tools.ollama, "serve"], env=environment, stdout=log, stderr=log) as process,
        ):
            place = Place(folder, Ollama(f"http://127.0.0.1:{port}"), folder / "models", process.pid, files_url)
            try:
                _wait_for(place.api)
                yield place
            finally:
                process.terminate()
    finally:
        shutil.rmtree(folder)


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """The address of a server of the files of a folder, in a process of its own."""
    command = [sys.executable, CHECKOUT / "tests/bench/server.py", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        yield process.stdout.readline().strip()
        process.stdin.close()


def _downloaded_and_merged(found: Input, tools: Tools, place: Place) -> Path:
    downloads = place.folder / "downloads"
    downloads.mkdir()
    curl(found, place.files_url, downloads)
    merged = place.folder / "merged.gguf"
    _run([tools.gguf_split, "--merge", downloads / found.shards[0].name, merged], dict(os.environ))
    return merged


def _run(command: list[str | Path], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RackllamaError(f"{command[0]} failed: {done.stdout[-500:]}{done.stderr[-1000:]}", "see above")
    return done.stdout


def _wait_for(api: Ollama) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            api.models()
        except RackllamaError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
