"""`rackllama lock`, from the command line to the file, against a stand-in upstream: a folder laid out as a mirror."""

import functools
import json
import threading
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rackllama.cli import main
from rackllama.mirror.lock import Artefact, LockedFile, read_lock, write_lock

RELEASES = "https://github.com/ollama/ollama/releases/download"
NAME = "ollama-linux-amd64.tar.zst"
COMMIT = "c" * 40


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """(folder, address) of a stand-in upstream, where `publish` and `publish_model` put metadata."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "upstream"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "artefacts.lock"
    ollama = LockedFile(f"{RELEASES}/v0.33.0/{NAME}", architecture="amd64")
    entries = [
        Artefact("ollama", "0.33.0", "MIT", "github-release:ollama/ollama", (ollama,)),
        Artefact("gemma3-270m-q4-k-m", "main", "Gemma", "huggingface:unsloth/gemma-GGUF", (), "gemma-Q4_K_M.gguf"),
    ]
    write_lock(path, {entry.name: entry for entry in entries})
    return path


@pytest.fixture
def run(upstream, lock, capsys):
    """`rackllama lock ARGUMENTS` -> (exit code, what it printed)."""

    def command(*arguments):
        code = main(["lock", *arguments, "--lock", str(lock), "--mirror", upstream[1]])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return command


def publish(upstream, version, content):
    page = upstream[0] / f"api.github.com/repos/ollama/ollama/releases/tags/v{version}"
    page.parent.mkdir(parents=True, exist_ok=True)
    asset = {"name": NAME, "size": len(content), "digest": f"sha256:{sha256(content).hexdigest()}"}
    page.write_text(json.dumps({"assets": [asset]}))


def publish_model(upstream, content):
    for revision in ("main", COMMIT):
        page = upstream[0] / f"huggingface.co/api/models/unsloth/gemma-GGUF/revision/{revision}"
        page.parent.mkdir(parents=True, exist_ok=True)
        blob = {"size": len(content), "sha256": sha256(content).hexdigest()}
        page.write_text(json.dumps({"sha": COMMIT, "siblings": [{"rfilename": "gemma-Q4_K_M.gguf", "lfs": blob}]}))


def test_locking_fills_the_lock_and_prints_the_difference(upstream, lock, run):
    publish(upstream, "0.33.0", b"archive")
    code, printed = run("ollama")
    assert code == 0
    assert read_lock(lock)["ollama"].file_for("x86_64").size == len(b"archive")
    assert f"-    sha256: null\n+    size: 7\n+    sha256: {sha256(b'archive').hexdigest()}" in printed
    assert "ollama  0.33.0   1      learnt" in printed


def test_locking_again_changes_nothing(upstream, lock, run):
    publish(upstream, "0.33.0", b"archive")
    run("ollama")
    before = lock.stat()
    code, printed = run("ollama")
    assert (code, printed) == (0, "name    version  files  state\nollama  0.33.0   1      locked\n")
    assert lock.stat() == before


def test_a_model_is_pinned_to_its_commit(upstream, lock, run):
    publish_model(upstream, b"weights")
    assert run("gemma3-270m-q4-k-m")[0] == 0
    model = read_lock(lock)["gemma3-270m-q4-k-m"]
    assert model.version == COMMIT
    assert [file.url for file in model.files] == [
        f"https://huggingface.co/unsloth/gemma-GGUF/resolve/{COMMIT}/gemma-Q4_K_M.gguf"
    ]


def test_a_new_version_is_locked_in_one_step(upstream, lock, run):
    publish(upstream, "0.33.0", b"archive")
    publish(upstream, "0.33.1", b"new archive")
    run("ollama")
    code, printed = run("ollama", "--version", "0.33.1")
    assert code == 0
    assert "+  version: 0.33.1" in printed
    file = read_lock(lock)["ollama"].file_for("x86_64")
    assert (file.url, file.sha256) == (f"{RELEASES}/v0.33.1/{NAME}", sha256(b"new archive").hexdigest())


def test_what_a_models_shards_become_is_written_down_until_it_moves(upstream, lock, run):
    merged = sha256(b"merged").hexdigest()
    publish_model(upstream, b"weights")
    run("gemma3-270m-q4-k-m")
    code, printed = run("gemma3-270m-q4-k-m", "--merged", merged)
    assert (code, f"+  merged_sha256: {merged}" in printed) == (0, True)
    run("gemma3-270m-q4-k-m")
    assert read_lock(lock)["gemma3-270m-q4-k-m"].merged_sha256 == merged
    run("gemma3-270m-q4-k-m", "--version", "main")
    assert read_lock(lock)["gemma3-270m-q4-k-m"].merged_sha256 is None


def test_a_version_that_upstream_lacks_leaves_the_lock_alone(lock, run):
    before = lock.read_text()
    code, printed = run("ollama", "--version", "9.9.9")
    assert code == 2
    assert "upstream has no" in printed
    assert lock.read_text() == before


def test_a_known_checksum_is_never_replaced_by_another_one(upstream, lock, run):
    publish(upstream, "0.33.0", b"archive")
    run("ollama")
    before = lock.read_text()
    publish(upstream, "0.33.0", b"another archive")
    code, printed = run("ollama")
    assert code == 1
    assert f"ollama: upstream now publishes another checksum for {NAME}" in printed
    assert lock.read_text() == before


def test_drift_can_be_accepted_by_name_and_version(upstream, lock, run):
    publish(upstream, "0.33.0", b"archive")
    run("ollama")
    publish(upstream, "0.33.0", b"another archive")
    assert run("ollama", "--version", "0.33.0")[0] == 0
    assert read_lock(lock)["ollama"].file_for("x86_64").sha256 == sha256(b"another archive").hexdigest()


def test_check_tells_what_is_unlocked_and_changes_nothing(upstream, lock, run):
    publish(upstream, "0.33.0", b"archive")
    run("ollama")
    before = lock.read_text()
    code, printed = run("--check")
    assert code == 1
    assert [line.split() for line in printed.splitlines()[:3]] == [
        ["name", "version", "files", "state"],
        ["gemma3-270m-q4-k-m", "main", "0", "unlocked"],
        ["ollama", "0.33.0", "1", "locked"],
    ]
    assert "run: rackllama lock gemma3-270m-q4-k-m" in printed
    assert lock.read_text() == before


def test_check_finds_what_upstream_changed(upstream, run):
    publish(upstream, "0.33.0", b"archive")
    run("ollama")
    publish(upstream, "0.33.0", b"another archive")
    code, printed = run("--check", "ollama")
    assert code == 1
    assert "ollama  0.33.0   1      drifted" in printed


def test_check_passes_when_all_is_locked(upstream, run):
    publish(upstream, "0.33.0", b"archive")
    publish_model(upstream, b"weights")
    assert run("--all")[0] == 0
    assert run("--check")[0] == 0


def test_one_upstream_that_fails_does_not_keep_the_others_from_being_locked(upstream, lock, run):
    publish(upstream, "0.33.0", b"archive")
    code, printed = run("--all")
    assert code == 2
    assert read_lock(lock)["ollama"].is_locked
    assert "gemma3-270m-q4-k-m: upstream has no" in printed


def test_the_result_is_told_as_json(upstream, lock, run):
    publish(upstream, "0.33.0", b"archive")
    code, printed = run("ollama", "--json")
    result = json.loads(printed)
    assert code == 0
    assert result["lock"] == str(lock)
    assert [(entry["name"], entry["state"]) for entry in result["artefacts"]] == [("ollama", "learnt")]
    assert sha256(b"archive").hexdigest() in result["diff"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "no artefact is named"),
        (["olama"], "nothing named 'olama' stands in the lock"),
        (["--all", "--version", "1"], "--version moves one artefact"),
        (["ollama", "--check", "--version", "1"], "--version moves one artefact"),
        (["gemma3-270m-q4-k-m", "--merged", "../x"], "--merged takes one model"),
        (["--merged", "a" * 64], "--merged takes one model"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, arguments, complaint):
    code, printed = run(*arguments)
    assert code == 2
    assert complaint in printed
