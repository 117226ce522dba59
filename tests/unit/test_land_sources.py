"""`rackllama land` from where models are published. Hubs and registry are stand-ins, shaped as their clients say."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackllama.cli import main

from .land_command import BEFORE_SPLIT, FIRST, SHARDS, landed, merged, refused, sha256, state
from .landing.hub import Answer, Hub, serve

__all__ = ["state"]  # a fixture

COMMIT = "c0ffee" * 6 + "beef"
FOLDER = "UD-IQ1_M"
WHOLE = BEFORE_SPLIT.file
PUBLISHED = {**{f"{FOLDER}/{name}": data for name, data in SHARDS.items()}, "tiny-BF16.gguf": WHOLE}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Serves what a test puts there."""
    hub = Hub()
    server = serve(hub)
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def hugging_face(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A stand-in for Hugging Face, with one repository."""
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    publish_on_hugging_face(hub, PUBLISHED)
    return hub


@pytest.fixture
def model_scope(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A stand-in for ModelScope, with one repository."""
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    publish_on_model_scope(hub, PUBLISHED)
    return hub


@pytest.fixture
def registry(hub: Hub) -> Hub:
    """A mirror that stands in for the Ollama registry, with two models."""
    publish_in_registry(hub, "library/tiny", "1b", "model", "template", "license", "params")
    publish_in_registry(hub, "someone/tiny", "latest", "model", "projector")
    return hub


def publish_on_hugging_face(hub: Hub, files: dict[str, bytes], revision: str = "main") -> None:
    siblings = [
        {"rfilename": path, "size": len(data), "lfs": {"sha256": sha256(data), "size": len(data), "pointerSize": 135}}
        for path, data in files.items()
    ]
    document = {"id": "unsloth/Tiny-GGUF", "sha": COMMIT, "siblings": [{"rfilename": "README.md"}, *siblings]}
    hub.files[f"/api/models/unsloth/Tiny-GGUF/revision/{revision}?blobs=true"] = json.dumps(document).encode()
    hub.files.update({f"/unsloth/Tiny-GGUF/resolve/{COMMIT}/{path}": data for path, data in files.items()})


def publish_on_model_scope(hub: Hub, files: dict[str, bytes]) -> None:
    listed = [
        {"Name": Path(path).name, "Path": path, "Type": "blob", "Size": len(data), "Sha256": sha256(data)}
        for path, data in files.items()
    ]
    folder = {"Name": FOLDER, "Path": FOLDER, "Type": "tree", "Size": 0, "Sha256": ""}
    document = {"Code": 200, "Success": True, "Data": {"Files": [folder, *listed]}}
    address = "/api/v1/models/unsloth/Tiny-GGUF/repo/files?Revision=master&Recursive=True"
    hub.files[address] = json.dumps(document).encode()
    hub.files.update({f"/models/unsloth/Tiny-GGUF/resolve/master/{path}": data for path, data in files.items()})


def publish_in_registry(hub: Hub, name: str, tag: str, *kinds: str) -> None:
    place = f"/registry.ollama.ai/v2/{name}"
    layers = []
    for kind in kinds:
        blob = WHOLE if kind == "model" else kind.encode()
        digest = f"sha256:{sha256(blob)}"
        layers.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": len(blob)})
        hub.files[f"{place}/blobs/{digest}"] = blob
    document = {"schemaVersion": 2, "config": {}, "layers": layers}
    hub.files[f"{place}/manifests/{tag}"] = json.dumps(document).encode()


# Hugging Face


@pytest.mark.parametrize("what", [f":{FOLDER}", "@main:ud-iq1_m", f"/{FOLDER}/{FIRST}", f"@main/{FOLDER}/{FIRST}"])
def test_a_model_of_hugging_face_is_verified(hugging_face, tmp_path, capsys, what):
    out = tmp_path / "tiny.gguf"
    assert landed(capsys, f"hf:unsloth/Tiny-GGUF{what}", "--out", out)["verified"]
    assert out.read_bytes() == merged()


def test_every_byte_comes_from_the_commit_of_the_branch(hugging_face, tmp_path, capsys):
    landed(capsys, "hf:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf")
    assert (tmp_path / "tiny.gguf").read_bytes() == WHOLE
    files = {request.path for request in hugging_face.requests if "/resolve/" in request.path}
    assert files == {f"/unsloth/Tiny-GGUF/resolve/{COMMIT}/tiny-BF16.gguf"}


def test_a_gated_model_is_asked_for_with_the_token(hugging_face, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hugging_face.fault = lambda request: None if request.headers["Authorization"] == "Bearer hf_secret" else Answer(401)
    landed(capsys, "hf:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf")
    monkeypatch.delenv("HF_TOKEN")
    assert "HTTP 401" in refused(capsys, "hf:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "other.gguf")


def test_a_quantization_that_is_not_there_lists_those_that_are(hugging_face, tmp_path, capsys):
    told = refused(capsys, "hf:unsloth/Tiny-GGUF:Q4_K_M", "--out", tmp_path / "tiny.gguf")
    assert "revision main of unsloth/Tiny-GGUF has no model for Q4_K_M" in told
    assert f"name one of: {FOLDER}/{FIRST}, tiny-BF16.gguf" in told
    told = refused(capsys, "hf:unsloth/Tiny-GGUF", "--out", tmp_path / "tiny.gguf")
    assert "revision main of unsloth/Tiny-GGUF has several models" in told


def test_a_file_without_a_published_digest_is_not_called_verified(hugging_face, tmp_path, capsys):
    address = "/api/models/unsloth/Tiny-GGUF/revision/main?blobs=true"
    document = json.loads(hugging_face.files[address])
    document["siblings"][-1].pop("lfs")
    hugging_face.files[address] = json.dumps(document).encode()
    told = refused(capsys, "hf:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf")
    assert "tells no sha256 of tiny-BF16.gguf" in told


@pytest.mark.parametrize("document", [b"<html>", b"[]", b'{"sha": "%s", "siblings": [{"path": 1}]}' % COMMIT.encode()])
def test_another_answer_than_metadata(hugging_face, tmp_path, capsys, document):
    hugging_face.files["/api/models/unsloth/Tiny-GGUF/revision/main?blobs=true"] = document
    assert "metadata" in refused(capsys, "hf:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf")


def test_metadata_and_shards_come_through_a_mirror(hub, tmp_path, capsys):
    publish_on_hugging_face(hub, PUBLISHED)
    hub.files = {f"/huggingface.co{path}": data for path, data in hub.files.items()}
    result = landed(capsys, "hf:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf", "--mirror", hub.url)
    assert result["verified"]


def test_upstream_tells_what_the_mirror_does_not_know(hugging_face, tmp_path, capsys):
    mirror = ("--mirror", f"{hugging_face.url}/nothing")
    assert landed(capsys, "hf:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf", *mirror)["verified"]


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example"])
def test_an_endpoint_that_is_no_address(tmp_path, capsys, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert "HF_ENDPOINT is" in refused(capsys, "hf:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf")


# ModelScope


@pytest.mark.parametrize("what", [f":{FOLDER}", "@master:ud-iq1_m", f"/{FOLDER}/{FIRST}"])
def test_a_model_of_model_scope_is_verified(model_scope, tmp_path, capsys, what):
    out = tmp_path / "tiny.gguf"
    assert landed(capsys, f"ms:unsloth/Tiny-GGUF{what}", "--out", out)["verified"]
    assert out.read_bytes() == merged()


def test_a_private_model_of_model_scope_is_asked_for_with_its_own_token(model_scope, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    landed(capsys, "ms:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf")
    assert {request.headers["Authorization"] for request in model_scope.requests} == {"Bearer ms-secret"}


def test_a_branch_that_moved_on_is_found_out(model_scope, tmp_path, capsys):
    changed = bytearray(WHOLE)
    changed[-100] ^= 1
    model_scope.files["/models/unsloth/Tiny-GGUF/resolve/master/tiny-BF16.gguf"] = bytes(changed)
    told = refused(capsys, "ms:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf")
    assert "tiny-BF16.gguf has not the published sha256" in told


# The Ollama registry


@pytest.mark.parametrize("name", ["tiny:1b", "library/tiny:1b", "someone/tiny", "someone/tiny:latest"])
def test_the_weights_of_a_model_of_the_ollama_registry_are_verified(registry, tmp_path, capsys, name):
    out = tmp_path / "tiny.gguf"
    result = landed(capsys, f"ollama:{name}", "--out", out, "--mirror", registry.url)
    assert result["verified"]
    assert result["sha256"] == sha256(out.read_bytes()) == sha256(WHOLE)


def test_a_manifest_is_asked_for_as_one(registry, tmp_path, capsys):
    landed(capsys, "ollama:tiny:1b", "--out", tmp_path / "tiny.gguf", "--mirror", registry.url)
    (asked,) = registry.asked("/registry.ollama.ai/v2/library/tiny/manifests/1b")
    assert asked.headers["Accept"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_layers_that_are_not_taken_are_told(registry, tmp_path, capsys):
    mirror = ("--mirror", registry.url)
    assert main(["land", "ollama:tiny:1b", "--out", str(tmp_path / "a"), *mirror]) == 0
    told = "only the weights are taken, not template, license, params: put your own Modelfile on it"
    assert told in capsys.readouterr().err
    assert main(["land", "ollama:someone/tiny", "--out", str(tmp_path / "b"), *mirror]) == 0
    assert "not taken: projector; without it the model is not the one of the registry" in capsys.readouterr().err


def test_a_blob_behind_a_redirect(registry, tmp_path, capsys):
    blob = f"/registry.ollama.ai/v2/library/tiny/blobs/sha256:{sha256(WHOLE)}"
    registry.files["/cdn/blob?signature=1"] = registry.files[blob]
    registry.fault = lambda request: (
        Answer(307, {"Location": "/cdn/blob?signature=1"}) if request.path == blob else None
    )
    assert landed(capsys, "ollama:tiny:1b", "--out", tmp_path / "tiny.gguf", "--mirror", registry.url)["verified"]


def test_a_registry_kept_in_a_folder(registry, tmp_path, capsys):
    for path, data in registry.files.items():
        kept = tmp_path / "mirror" / path.lstrip("/")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(data)
    result = landed(capsys, "ollama:tiny:1b", "--out", tmp_path / "tiny.gguf", "--mirror", tmp_path / "mirror")
    assert result["verified"]
    assert not registry.requests


@pytest.mark.parametrize("kinds", [("tensor", "tensor"), ("model", "model"), ()])
def test_a_model_that_is_not_one_gguf(hub, tmp_path, capsys, kinds):
    publish_in_registry(hub, "library/odd", "latest", *kinds)
    told = refused(capsys, "ollama:odd", "--out", tmp_path / "tiny.gguf", "--mirror", hub.url)
    assert f"ollama:odd is not one GGUF: its layers are {', '.join(kinds) or 'none'}" in told


# Names that lead elsewhere


@pytest.mark.parametrize(
    "source",
    [
        "hf:unsloth",
        "hf:../../etc:Q4",
        "hf:a/..:Q4",
        "hf:a/b@main/../x:Q4",
        "hf:a/b:../Q4",
        "hf:a/b:Q\0",
        "ms:/a/b:Q4",
        "ollama:../../x",
        "ollama:a/b/c",
        "ollama:x:../y",
        "ollama:/x",
        "ollama:x\0",
        "file://elsewhere/x.gguf",
    ],
)
def test_a_name_that_is_none_is_refused_unasked(hub, tmp_path, capsys, monkeypatch, source):
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    told = refused(capsys, source, "--out", tmp_path / "tiny.gguf", "--mirror", hub.url)
    assert "names no" in told
    assert not hub.requests


@pytest.mark.parametrize("path", ["../tiny-Q4.gguf", "/etc/tiny-Q4.gguf", "a/../../b.gguf", "a\0-Q4.gguf", "a\\b.gguf"])
def test_a_path_that_leads_out_of_a_repository_is_refused(hugging_face, model_scope, tmp_path, capsys, path):
    publish_on_hugging_face(hugging_face, {**PUBLISHED, path: WHOLE})
    publish_on_model_scope(model_scope, {**PUBLISHED, path: WHOLE})
    for kind in ("hf", "ms"):
        told = refused(capsys, f"{kind}:unsloth/Tiny-GGUF:BF16", "--out", tmp_path / "tiny.gguf")
        assert "which is no path in a repository" in told
    assert not [request for request in hugging_face.requests if "/resolve/" in request.path]


@pytest.mark.parametrize("digest", ["sha256:../../x", "../x", "sha512:" + "a" * 64, "sha256:" + "A" * 64, 1])
def test_a_digest_that_leads_elsewhere_is_refused(registry, tmp_path, capsys, digest):
    address = "/registry.ollama.ai/v2/library/tiny/manifests/1b"
    document = json.loads(registry.files[address])
    document["layers"][0]["digest"] = digest
    registry.files[address] = json.dumps(document).encode()
    refused(capsys, "ollama:tiny:1b", "--out", tmp_path / "tiny.gguf", "--mirror", registry.url)
    assert [request.path for request in registry.requests] == [address]


# Folders and files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a model"
    folder.mkdir()
    for name, data in SHARDS.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", f"file://{{}}/{FIRST}"])
def test_a_folder_or_file_address(folder, tmp_path, capsys, form):
    source = form.format(folder)
    if source.startswith("file:"):
        source = source.replace(" ", "%20")
    landed(capsys, source, "--out", tmp_path / "tiny.gguf")
    assert (tmp_path / "tiny.gguf").read_bytes() == merged()


def test_a_folder_with_several_models_lists_them(folder, tmp_path, capsys):
    (folder / "whole.gguf").write_bytes(WHOLE)
    told = refused(capsys, folder, "--out", tmp_path / "tiny.gguf")
    assert f"{folder} has several models" in told
    assert f"name one of: {FIRST}, whole.gguf" in told


def test_a_folder_without_a_model(tmp_path, capsys):
    assert f"{tmp_path} has no model" in refused(capsys, tmp_path, "--out", tmp_path / "tiny.gguf")


def test_a_link_in_the_place_of_the_file_is_not_followed(folder, tmp_path, capsys):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "tiny.gguf").symlink_to(precious)
    assert "exists already" in refused(capsys, folder, "--out", tmp_path / "tiny.gguf")
    assert precious.read_text() == "precious"
