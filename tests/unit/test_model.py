"""A model that is there as declared is not touched; what differs decides what is done again."""

from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.shards import Shard, Weights
from rackllama.host.models.model import FoundModel, LandedWeights, WantedModel, found_model, plan, wanted_model
from rackllama.host.models.modelfile import ModelSettings, render
from rackllama.host.models.ollama_store import StoredModel

SHARDS = (Shard("a.gguf", ("http://m/a.gguf",), 1, "a" * 64), Shard("b.gguf", ("http://m/b.gguf",), 1, "b" * 64))
GEMMA = WantedModel(
    slug="gemma",
    name="gemma:q4",
    weights=Weights(SHARDS),
    settings=ModelSettings(parameters={"num_ctx": 4096}),
    store=Path("/var/lib/ollama/models"),
)
SERVED = FoundModel(
    record={"declaration": GEMMA.declaration_digest, "manifest": "m1", "tried": GEMMA.declaration_digest},
    model=StoredModel("m1", ()),
    weights=LandedWeights(GEMMA.weights_digest, f"sha256:{'c' * 64}", 2, verified=True),
)


def test_a_model_as_declared_needs_nothing():
    assert plan(GEMMA, SERVED) == []


def test_a_new_model_is_landed_and_created():
    assert plan(GEMMA, FoundModel({}, None, None)) == ["land", "create", "try"]


@pytest.mark.parametrize(
    "settings", [ModelSettings(parameters={"num_ctx": 8192}), ModelSettings(system="Be brief."), ModelSettings()]
)
def test_other_settings_create_the_model_again_from_the_weights_that_are_there(settings):
    assert plan(replace(GEMMA, settings=settings), SERVED) == ["create", "try"]


def test_weights_of_a_landing_that_failed_later_are_used():
    assert plan(GEMMA, replace(SERVED, record={}, model=None)) == ["create", "try"]


def test_a_model_changed_by_hand_is_created_again():
    assert plan(GEMMA, replace(SERVED, model=StoredModel("m2", ()))) == ["create", "try"]


def test_a_model_deleted_by_hand_is_created_from_weights_that_are_left():
    assert plan(GEMMA, replace(SERVED, model=None)) == ["create", "try"]


def test_lost_weights_are_landed_again():
    assert plan(GEMMA, replace(SERVED, weights=None)) == ["land", "create", "try"]


def test_a_model_that_was_not_tried_yet_is_tried_unless_nobody_wants_that():
    untried = replace(SERVED, record={key: SERVED.record[key] for key in ("declaration", "manifest")})
    assert plan(GEMMA, untried) == ["try"]
    assert plan(replace(GEMMA, tried=False), untried) == []


def test_other_sources_of_the_same_shards_change_nothing():
    elsewhere = tuple(replace(shard, sources=("file:///mnt/usb",)) for shard in SHARDS)
    assert replace(GEMMA, weights=Weights(elsewhere)).declaration_digest == GEMMA.declaration_digest


def test_shards_with_no_published_digest_are_told_apart_by_their_sources():
    def digest_of(source):
        return replace(GEMMA, weights=Weights((Shard("a.gguf", (source,)),))).weights_digest

    assert digest_of("http://one/a.gguf") != digest_of("http://other/a.gguf")


def test_a_host_where_nothing_is_yet(tmp_path):
    nowhere = replace(GEMMA, store=tmp_path / "models")
    assert found_model(nowhere, tmp_path / "land") == FoundModel({}, None, None)


def test_a_model_is_made_from_a_job():
    job = {
        "slug": "gemma",
        "name": "gemma:q4",
        "shards": [{**vars(shard), "sources": list(shard.sources)} for shard in SHARDS],
        "parameters": {"num_ctx": 4096},
        "store": "/var/lib/ollama/models",
        "context": 4096,
    }
    assert wanted_model(job) == GEMMA


def test_a_modelfile_reads_as_people_write_it():
    settings = ModelSettings(
        template="{{ .Prompt }}",
        system="Be brief.",
        parameters={"stop": ["<a>", "<b>"], "num_ctx": 4096, "use_mmap": True},
    )
    assert render("a.gguf", settings) == (
        "FROM a.gguf\n"
        'TEMPLATE """{{ .Prompt }}"""\n'
        "PARAMETER num_ctx 4096\n"
        'PARAMETER stop "<a>"\n'
        'PARAMETER stop "<b>"\n'
        "PARAMETER use_mmap true\n"
        'SYSTEM """Be brief."""\n'
    )


def test_a_template_cannot_end_its_own_block():
    with pytest.raises(RackllamaError, match="cannot hold"):
        render("a.gguf", ModelSettings(template='"""\nFROM other'))
