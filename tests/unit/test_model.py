"""A model that is there as declared is not touched; what differs decides what is done again."""

from dataclasses import replace

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.model import FoundModel, Shard, WantedModel, plan
from rackllama.host.modelfile import ModelSettings, render

GEMMA = WantedModel(
    slug="gemma",
    name="gemma:q4",
    shards=(Shard("a.gguf", "http://m/a.gguf", "a" * 64), Shard("b.gguf", "http://m/b.gguf", "b" * 64)),
    settings=ModelSettings(parameters={"num_ctx": 4096}),
)
LANDED = FoundModel(
    record={
        "weights": GEMMA.weights_digest,
        "declaration": GEMMA.declaration_digest,
        "manifest": "m1",
        "settings": GEMMA.settings.names,
    },
    manifest="m1",
    has_weights=True,
)


def test_a_model_as_declared_needs_nothing():
    assert plan(GEMMA, LANDED) == []


def test_a_new_model_is_fetched_merged_and_created():
    assert plan(GEMMA, FoundModel({}, None, has_weights=False)) == ["fetch", "merge", "create"]


def test_a_model_of_one_file_is_not_merged():
    assert plan(replace(GEMMA, shards=GEMMA.shards[:1]), FoundModel({}, None, has_weights=False)) == ["fetch", "create"]


def test_other_settings_are_applied_to_the_model_as_it_is():
    assert plan(replace(GEMMA, settings=ModelSettings(parameters={"num_ctx": 8192, "top_k": 5})), LANDED) == ["apply"]


def test_a_setting_that_disappears_is_left_out_by_creating_the_model_again():
    assert plan(replace(GEMMA, settings=ModelSettings(system="Be brief.")), LANDED) == ["create"]


def test_weights_in_the_store_are_used_after_a_landing_that_failed_later():
    uploaded = FoundModel({"weights": GEMMA.weights_digest, "blob": "sha256:1"}, None, has_weights=True)
    assert plan(GEMMA, uploaded) == ["create"]


def test_a_model_changed_by_hand_is_created_again():
    assert plan(GEMMA, replace(LANDED, manifest="m2")) == ["create"]


def test_a_model_deleted_by_hand_is_created_from_weights_that_are_left():
    assert plan(GEMMA, replace(LANDED, manifest=None)) == ["create"]


def test_lost_weights_are_fetched():
    assert plan(GEMMA, replace(LANDED, has_weights=False)) == ["fetch", "merge", "create"]


def test_other_shards_are_other_weights():
    other = replace(GEMMA, shards=(GEMMA.shards[0], Shard("b.gguf", "http://m/b.gguf", "c" * 64)))
    assert plan(other, LANDED) == ["fetch", "merge", "create"]


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
