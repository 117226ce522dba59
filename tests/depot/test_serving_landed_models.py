"""From shards to a model that the real Ollama serves: what it sees, what it costs, and what a failure leaves.

Needs a filled depot (`make depot`).
"""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.catalog.models import read_catalogue
from rackllama.host.errors import RackllamaError
from rackllama.host.lander.landing import LandingOptions
from rackllama.host.lander.shards import Shard, Weights
from rackllama.host.models import scrub
from rackllama.host.models.model import WantedModel, bring, found_model, plan, records
from rackllama.host.models.modelfile import ModelSettings
from rackllama.host.models.ollama_store import OllamaStore
from rackllama.lab.depot.depot import default_depot, is_filled
from rackllama.lab.depot.recipes import GEMMA
from rackllama.mirror.lock import find, in_shard_order, read_lock

from ..unit.gguf_files import EVERY_TYPE, ODD_SHAPES, Model
from .conftest import OllamaServer, running_ollama

OPTIONS = LandingOptions(reserve_bytes=0)
SETTINGS = ModelSettings(
    template=read_catalogue()["gemma3-270m"].template,
    parameters={"num_ctx": 512, "stop": ["\n"], "temperature": 0},
    licence="Gemma",
)
QUESTION = "Say hello."


@pytest.fixture
def landings(tmp_path: Path) -> Path:
    """Where landings keep their state."""
    return tmp_path / "land"


@pytest.fixture
def gemma(ollama: OllamaServer) -> WantedModel:
    """The depot's model, from its shards as they lie there."""
    assert is_filled(), "the depot is not filled; run: make depot"
    depot = default_depot()
    files = in_shard_order(find(read_lock(depot.lock_path), GEMMA.name).files)
    shards = tuple(
        Shard(file.name, (str(depot.mirror_root / file.mirror_path),), file.size, file.sha256) for file in files
    )
    weights = Weights(shards)
    return WantedModel("gemma", "gemma:q4", weights, SETTINGS, ollama.models_dir, ollama.api.url, tried=False)


def disk_bytes(folder: Path) -> int:
    """What the files of a folder take, each once, whatever its names."""
    blocks = {(found.st_dev, found.st_ino): found.st_blocks for found in (p.lstat() for p in folder.rglob("*"))}
    return sum(blocks.values()) * 512


def test_shards_become_a_model_that_answers(ollama, gemma, landings):
    assert bring(gemma, OPTIONS, landings=landings) == ["land", "create"]
    assert [model.name for model in ollama.api.models()] == ["gemma:q4"]
    assert ollama.api.chat("gemma:q4", QUESTION, {"num_predict": 4}).tokens > 0
    shown = ollama.api.show("gemma:q4")
    assert shown["template"] == SETTINGS.template
    assert shown["license"] == "Gemma"
    assert dict(line.split(maxsplit=1) for line in shown["parameters"].splitlines())["num_ctx"] == "512"
    size = next(records(landings))["weights"]["size"]
    assert disk_bytes(ollama.models_dir) < 1.01 * size
    assert not list((ollama.models_dir / "landing").iterdir())


def test_a_template_of_other_markers_fails_and_is_served_all_the_same_until_it_is_mended(ollama, gemma, landings):
    wrong = replace(SETTINGS, template="{{ range .Messages }}<|User|>{{ .Content }}<|Assistant|>{{ end }}")
    with pytest.raises(RackllamaError, match=r"<\|User\|> is plain text to this model"):
        bring(replace(gemma, settings=wrong, tried=True), OPTIONS, landings=landings)
    assert [model.name for model in ollama.api.models()] == ["gemma:q4"]
    mended = replace(gemma, tried=True)
    assert bring(mended, OPTIONS, landings=landings) == ["create", "try"]
    assert bring(mended, OPTIONS, landings=landings) == []


def test_a_second_run_has_nothing_to_do_and_reads_no_weights(gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    blob = OllamaStore(gemma.store).blob(next(records(landings))["weights"]["blob"])
    os.truncate(blob, 0)
    os.truncate(blob, next(records(landings))["weights"]["size"])  # whoever read it would find nothing but zeros
    assert bring(gemma, OPTIONS, landings=landings) == []


def test_settings_are_exactly_those_declared_and_copy_nothing(ollama, gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    blob = OllamaStore(gemma.store).blob(next(records(landings))["weights"]["blob"])
    inode = blob.stat().st_ino
    other = replace(gemma, settings=ModelSettings(template=SETTINGS.template, parameters={"num_ctx": 256}))
    assert bring(other, OPTIONS, landings=landings) == ["create"]
    shown = ollama.api.show("gemma:q4")
    assert dict(line.split(maxsplit=1) for line in shown["parameters"].splitlines()) == {"num_ctx": "256"}
    assert "license" not in shown  # what is no longer declared is gone
    assert blob.stat().st_ino == inode


def test_two_models_of_the_same_weights_share_them(ollama, gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    short = replace(gemma, slug="gemma-short", name="gemma:short", settings=ModelSettings(parameters={"num_ctx": 256}))
    assert bring(short, OPTIONS, landings=landings) == ["create"]
    assert {model.name for model in ollama.api.models()} == {"gemma:q4", "gemma:short"}
    ollama.api.delete("gemma:q4")
    assert ollama.api.chat("gemma:short", QUESTION, {"num_predict": 2}).tokens > 0


def test_a_model_deleted_by_hand_is_landed_anew(ollama, gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    ollama.api.delete("gemma:q4")  # its blobs go with it
    assert bring(gemma, OPTIONS, landings=landings) == ["land", "create"]
    assert ollama.api.chat("gemma:q4", QUESTION, {"num_predict": 2}).tokens > 0


def test_a_model_changed_by_hand_is_put_right(ollama, gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    ollama.api.create("gemma:q4", {"from": "gemma:q4", "parameters": {"num_ctx": 99}})
    assert bring(gemma, OPTIONS, landings=landings) == ["create"]
    assert plan(gemma, found_model(gemma, landings)) == []


def test_what_was_landed_waits_for_ollama(ollama_program, tmp_path, gemma, landings, monkeypatch):
    monkeypatch.setattr("rackllama.host.models.model.API_SECONDS", 0.0)
    nobody = replace(gemma, ollama_url="http://127.0.0.1:9", store=tmp_path / "second" / "models")
    nobody.store.mkdir(parents=True)
    with pytest.raises(RackllamaError, match="does not answer"):
        bring(nobody, OPTIONS, landings=landings)
    with running_ollama(ollama_program, tmp_path / "second") as server:  # it prunes its store as it starts
        later = replace(nobody, ollama_url=server.api.url)
        assert bring(later, OPTIONS, landings=landings) == ["create"]
        assert server.api.chat("gemma:q4", QUESTION, {"num_predict": 2}).tokens > 0


def test_what_a_server_prunes_as_it_starts_is_a_blob_again(ollama_program, tmp_path, gemma, landings, monkeypatch):
    monkeypatch.setattr("rackllama.host.models.model.API_SECONDS", 0.0)
    nobody = replace(gemma, ollama_url="http://127.0.0.1:9", store=tmp_path / "second" / "models")
    nobody.store.mkdir(parents=True)
    with pytest.raises(RackllamaError, match="does not answer"):
        bring(nobody, OPTIONS, landings=landings)
    blob = OllamaStore(nobody.store).blob(next(records(landings))["weights"]["blob"])
    with running_ollama(ollama_program, tmp_path / "second") as server:
        later = replace(nobody, ollama_url=server.api.url)
        # As where both start at once after a boot: the unit has looked, and then Ollama removes what no model names.
        monkeypatch.setattr("rackllama.host.models.model._wait_for", lambda *_: blob.unlink())
        assert bring(later, OPTIONS, landings=landings) == ["create"]
        assert server.api.chat("gemma:q4", QUESTION, {"num_predict": 2}).tokens > 0


def test_other_weights_declared_before_the_first_were_served_take_their_place(gemma, landings, monkeypatch, tmp_path):
    monkeypatch.setattr("rackllama.host.models.model.API_SECONDS", 0.0)
    tiny = tmp_path / "tiny.gguf"
    tiny.write_bytes(Model(EVERY_TYPE, ODD_SHAPES).file)
    first = replace(gemma, weights=Weights((Shard("tiny.gguf", (str(tiny),)),)), ollama_url="http://127.0.0.1:9")
    with pytest.raises(RackllamaError, match="does not answer"):
        bring(first, OPTIONS, landings=landings)
    assert bring(gemma, OPTIONS, landings=landings) == ["land", "create"]


def test_what_another_declaration_left_unfinished_is_tidied_up(gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    left = gemma.store / "landing" / f"gemma.{'0' * 16}.part"
    left.write_bytes(b"half")
    assert bring(gemma, OPTIONS, landings=landings) == ["tidy"]
    assert not left.exists()
    assert bring(gemma, OPTIONS, landings=landings) == []


def test_beside_a_model_whose_name_is_written_in_another_case(ollama, gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    digest = next(records(landings))["weights"]["blob"]
    OllamaStore(gemma.store).write_bare_model("hub.example/somebody/Other:Q4_K_M", digest)
    second = replace(gemma, slug="second", name="gemma:q4_k_m")
    assert bring(second, OPTIONS, landings=landings) == ["create"]  # which Ollama calls gemma:Q4_K_M
    assert bring(second, OPTIONS, landings=landings) == []
    assert ollama.api.chat("gemma:q4_k_m", QUESTION, {"num_predict": 2}).tokens > 0


def test_a_lost_small_blob_is_put_back(ollama, gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    store = OllamaStore(gemma.store)
    small = min((layer for layer in store.model("gemma:q4").layers), key=lambda layer: layer.size)
    store.blob(small.digest).unlink()
    assert bring(gemma, OPTIONS, landings=landings) == ["create"]
    assert ollama.api.chat("gemma:q4", QUESTION, {"num_predict": 2}).tokens > 0


def test_settings_that_ollama_refuses_leave_nothing_behind(ollama, gemma, landings):
    broken = replace(gemma, settings=ModelSettings(template="{{ .Foo"))
    with pytest.raises(RackllamaError, match="template error"):
        bring(broken, OPTIONS, landings=landings)
    assert ollama.api.models() == []


def test_a_wrong_digest_of_the_whole_destroys_no_other_model(ollama, gemma, landings, tmp_path):
    bring(gemma, OPTIONS, landings=landings)
    digest = next(records(landings))["weights"]["blob"]
    file = tmp_path / "tiny.gguf"
    file.write_bytes(Model(EVERY_TYPE, ODD_SHAPES).file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    shard = Shard("tiny.gguf", (str(file),), file.stat().st_size, sha256)
    claimed = Weights((shard,), sha256=digest.removeprefix("sha256:"))
    with pytest.raises(RackllamaError, match=r"is a blob of .*gemma:q4 already"):
        bring(replace(gemma, slug="tiny", name="tiny:1", weights=claimed), OPTIONS, landings=landings)
    assert ollama.api.chat("gemma:q4", QUESTION, {"num_predict": 2}).tokens > 0


def test_a_server_with_another_store_is_told_from_ours(gemma, landings, tmp_path):
    elsewhere = replace(gemma, store=tmp_path / "elsewhere")
    elsewhere.store.mkdir()
    with pytest.raises(RackllamaError, match="does not keep its models in"):
        bring(elsewhere, OPTIONS, landings=landings)
    assert disk_bytes(elsewhere.store) < 1 << 20  # before the first byte was fetched


def test_a_flipped_bit_is_named_by_the_scrub_and_mended_by_its_remedy(ollama, gemma, landings):
    bring(gemma, OPTIONS, landings=landings)
    assert all(check.ok for check in scrub.blob_checks(gemma.store))
    blob = OllamaStore(gemma.store).blob(next(records(landings))["weights"]["blob"])
    with blob.open("r+b") as file:
        file.seek(200_000_000)
        byte = file.read(1)[0]
        file.seek(200_000_000)
        file.write(bytes([byte ^ 1]))
    (damaged,) = [check for check in scrub.blob_checks(gemma.store) if not check.ok]
    assert damaged.wanted == blob.name
    assert "gemma:q4" in damaged.found
    blob.unlink()  # as the remedy says
    assert bring(gemma, OPTIONS, landings=landings) == ["land", "create"]
    assert f"sha256-{hashlib.sha256(blob.read_bytes()).hexdigest()}" == blob.name
