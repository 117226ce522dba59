"""Ollama's store on the disk: what is put there, what is found there, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.models.ollama_store import OllamaStore, is_same_name
from rackllama.host.models.scrub import blob_checks

WEIGHTS = b"GGUF and more"
DIGEST = "sha256:fc1a33ba8d92d21c8e8d9bb4a6f40f20aa5a1e9a2d0b3fb4b4fa4c2a1a9a3f33"


@pytest.fixture
def store(tmp_path: Path) -> OllamaStore:
    store = OllamaStore(tmp_path / "models")
    store.root.mkdir()
    store.prepare()
    return store


@pytest.fixture
def landed(store: OllamaStore) -> Path:
    path = store.landing / "gemma.gguf"
    path.write_bytes(WEIGHTS)
    return path


def test_a_landed_file_becomes_a_blob_without_a_copy(store, landed):
    store.adopt(landed, DIGEST)
    assert store.has(DIGEST, len(WEIGHTS))
    assert store.blob(DIGEST).samefile(landed)
    store.release(landed)
    assert store.blob(DIGEST).read_bytes() == WEIGHTS
    assert not list(store.landing.iterdir())


def test_a_blob_that_was_cut_short_is_replaced(store, landed):
    store.blob(DIGEST).write_bytes(WEIGHTS[:5])
    assert not store.has(DIGEST, len(WEIGHTS))
    store.adopt(landed, DIGEST)
    assert store.blob(DIGEST).read_bytes() == WEIGHTS


def test_what_bears_the_name_and_is_not_the_landed_file_is_replaced(store, landed):
    store.blob(DIGEST).write_bytes(bytes(len(WEIGHTS)))  # as a power cut may leave it
    store.adopt(landed, DIGEST)
    assert store.blob(DIGEST).read_bytes() == WEIGHTS


def test_a_name_is_one_in_whatever_case_and_with_what_is_left_out(store, landed):
    store.adopt(landed, DIGEST)
    store.write_bare_model("Gemma:Q4", DIGEST)
    assert store.model("gemma:q4") == store.model("registry.ollama.ai/library/GEMMA:q4") is not None
    assert is_same_name("gemma", "library/Gemma:LATEST")


def test_a_model_without_one_of_its_blobs_is_none(store, landed):
    store.adopt(landed, DIGEST)
    store.write_bare_model("gemma:q4", DIGEST)
    store.blob(DIGEST).write_bytes(b"cut")
    assert store.model("gemma:q4") is None


def test_a_model_is_removed_with_the_blobs_that_no_other_has(store, landed):
    store.adopt(landed, DIGEST)
    store.release(landed)
    store.write_bare_model("gemma:q4", DIGEST)
    store.write_bare_model("gemma:q8", DIGEST)
    store.remove("gemma:q4")
    assert store.names() == ["registry.ollama.ai/library/gemma:q8"]
    assert store.has(DIGEST)
    store.remove("gemma:q8")
    assert list(store.blobs()) == []


def test_a_pipe_in_the_place_of_a_manifest_holds_nobody_up(store):
    path = store.root / "manifests" / "registry.ollama.ai" / "library" / "gemma" / "q4"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert store.model("gemma:q4") is None


def test_a_link_in_the_place_of_a_blob_is_no_blob(store, landed):
    store.blob(DIGEST).symlink_to(landed)
    assert not store.has(DIGEST)


def test_a_bare_model_names_its_weights_alone(store, landed):
    store.adopt(landed, DIGEST)
    store.write_bare_model("gemma:q4", DIGEST)
    model = store.model("gemma:q4")
    assert (model.weights.digest, model.weights.size) == (DIGEST, len(WEIGHTS))
    assert all(store.has(layer.digest, layer.size) for layer in model.layers)
    assert store.names() == ["registry.ollama.ai/library/gemma:q4"]
    assert store.models_of(store.blob(DIGEST)) == store.names()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("gemma", "registry.ollama.ai/library/gemma/latest"),
        ("gemma:q4", "registry.ollama.ai/library/gemma/q4"),
        ("me/gemma:q4", "registry.ollama.ai/me/gemma/q4"),
        ("hub.example:5000/me/gemma:q4", "hub.example:5000/me/gemma/q4"),
    ],
)
def test_a_name_says_where_its_manifest_is(store, landed, name, place):
    store.adopt(landed, DIGEST)
    store.write_bare_model(name, DIGEST)
    assert (store.root / "manifests" / place).is_file()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/cron.d/x",
        "..",
        "a/..:q4",
        "a:../..",
        "/etc/passwd",
        "a\0b",
        "a/b/c/d:e",
        "",
        "a" * 400,
        "gemma:",
        "a\n",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(store, name):
    with pytest.raises(RackllamaError, match="no name of a model"):
        store.model(name)


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "G" * 64, "md5:abc", "", f"{DIGEST}\n"])
def test_a_digest_that_is_none_is_refused(store, digest):
    with pytest.raises(RackllamaError, match="no digest"):
        store.blob(digest)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"layers": [{}], "config": {}}', '{"layers": [], "config": 5}'],
)
def test_a_damaged_manifest_is_no_model(store, text):
    path = store.root / "manifests" / "registry.ollama.ai" / "library" / "gemma" / "q4"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert store.model("gemma:q4") is None


def test_a_manifest_cannot_lead_out_of_the_store(store):
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/shadow", "size": 1}
    path = store.root / "manifests" / "registry.ollama.ai" / "library" / "gemma" / "q4"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"layers": [layer], "config": layer}))
    assert store.model("gemma:q4") is None


def test_a_scrub_names_the_damaged_blob_its_models_and_the_remedy(store, landed):
    store.adopt(landed, DIGEST)
    store.write_bare_model("gemma:q4", DIGEST)
    checks = list(blob_checks(store.root))
    damaged = [check for check in checks if not check.ok]
    assert len(checks) == 2
    assert [check.wanted for check in damaged] == [store.blob(DIGEST).name]  # its content is not what its name says
    assert "registry.ollama.ai/library/gemma:q4" in damaged[0].found
    assert f"rm {store.blob(DIGEST)}" in damaged[0].remedy


def test_a_scrub_of_no_store_says_so(tmp_path):
    with pytest.raises(RackllamaError, match="is no directory"):
        list(blob_checks(tmp_path / "nowhere"))
