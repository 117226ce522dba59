"""`rackllama land` on the depot's real model: the file is what upstream's own merge makes of the same shards."""

import json
from pathlib import Path

import pytest

from rackllama.cli import main
from rackllama.host.models.ollama_store import OllamaStore
from rackllama.lab.depot.depot import Depot, default_depot, is_filled
from rackllama.lab.depot.recipes import GEMMA
from rackllama.mirror.lock import find, read_lock

from .conftest import OllamaServer

MERGED_SHA256 = "d0bd36413a629ddcb89ffe21862ae44a39e4652512bebdfb15b563e33b49c393"


@pytest.fixture
def depot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Depot:
    """The depot; landings keep their state elsewhere than the user's."""
    assert is_filled(), "the depot is not filled; run: make depot"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return default_depot()


def landed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict, str]:
    """The result, and what else was told."""
    code = main(["land", "--json", *map(str, arguments)])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out), told.err


def test_the_depots_model(depot, tmp_path, capsys):
    out = tmp_path / "gemma.gguf"
    known = ("--lock", depot.lock_path, "--mirror", depot.mirror_root)
    result, _ = landed(capsys, GEMMA.name, "--out", out, *known)
    assert (result["sha256"], result["verified"]) == (MERGED_SHA256, True)
    out.unlink()


def test_into_the_ollama_of_this_machine_as_the_catalogue_runs_it(depot, ollama: OllamaServer, capsys, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", ollama.api.url)
    known = ("--lock", depot.lock_path, "--mirror", depot.mirror_root, "--models-dir", ollama.models_dir)
    result, _ = landed(capsys, "gemma3-270m:q4_k_m", "--ollama", "gemma:mine", *known)
    assert result["steps"] == ["land", "create", "try"]
    assert (Path(result["file"]).name, result["verified"]) == (f"sha256-{MERGED_SHA256}", True)
    assert [model.name for model in ollama.api.models()] == ["gemma:mine"]
    assert "Question: " in ollama.api.show("gemma:mine")["template"]
    assert landed(capsys, "gemma3-270m:q4_k_m", "--ollama", "gemma:mine", *known)[0]["steps"] == []


def test_from_the_folder_and_as_ollama_keeps_it(depot, ollama: OllamaServer, tmp_path, capsys):
    """A model that the real Ollama made, served as its registry would: its manifest is read, its blob is the file."""
    first = find(read_lock(depot.lock_path), GEMMA.name).files[0]
    out = tmp_path / "gemma.gguf"
    result, _ = landed(capsys, (depot.mirror_root / first.mirror_path).parent, "--out", out)
    assert (result["sha256"], result["verified"]) == (MERGED_SHA256, False)

    digest = f"sha256:{MERGED_SHA256}"
    store = OllamaStore(ollama.models_dir)
    store.adopt(out, digest)
    store.write_bare_model("bare", digest)
    settings = {"template": "{{ .Prompt }}", "license": "Gemma", "parameters": {"num_ctx": 512}}
    ollama.api.create("gemma:q4", {"from": "bare", **settings})
    registry = tmp_path / "mirror" / "registry.ollama.ai" / "v2" / "library" / "gemma"
    for folder in ("manifests", "blobs"):
        (registry / folder).mkdir(parents=True)
    manifest = ollama.models_dir / "manifests" / "registry.ollama.ai" / "library" / "gemma" / "q4"
    (registry / "manifests" / "q4").hardlink_to(manifest)
    (registry / "blobs" / digest).hardlink_to(store.blob(digest))

    again = tmp_path / "again.gguf"
    result, told = landed(capsys, "ollama:gemma:q4", "--out", again, "--mirror", tmp_path / "mirror")
    assert (result["sha256"], result["verified"]) == (MERGED_SHA256, True)
    assert "only the weights are taken, not" in told
    assert all(kind in told for kind in ("template", "license", "params"))
    for path in (out, again):
        path.unlink()
