"""From a declared model to what a host serves."""

from dataclasses import replace
from hashlib import sha256

import pytest

from rackllama.catalog.models import CatalogueEntry, resolve, resolve_all
from rackllama.host.errors import RackllamaError
from rackllama.mirror.lock import Artefact, LockedFile

HUB = "https://hub.test/unsloth/R1-GGUF/resolve/main"
CATALOGUE = {
    "deepseek-r1": CatalogueEntry(
        name="deepseek-r1",
        family="deepseek2",
        licence="MIT",
        source="https://hub.test/unsloth/R1-GGUF",
        variants=("ud-iq1_s", "ud-iq1_m"),
        trained_context=163840,
        template="{{ .Prompt }}",
        system="Be brief.",
        parameters={"temperature": 0.6, "stop": ["User:"]},
        sources={},
        reasoning=True,
        renderer="deepseek",
    )
}
SHARDS = tuple(
    LockedFile(f"{HUB}/R1-{number:05d}-of-00003.gguf", number, sha256(b"%d" % number).hexdigest())
    for number in (1, 2, 3)
)
LOCK = {
    "deepseek-r1-ud-iq1-s": Artefact("deepseek-r1-ud-iq1-s", "main", "MIT", "huggingface:a/b", SHARDS),
    "deepseek-r1-ud-iq1-m": Artefact("deepseek-r1-ud-iq1-m", "main", "MIT", "huggingface:a/b", (), "R1-*.gguf"),
}
R1 = {"name": "deepseek-r1", "variant": "ud-iq1_s", "engine": "ollama", "context": 16384, "parallel": 2}
OWN = {
    "name": "own",
    "variant": "q8_0",
    "source": "https://files.test/models/",
    "shards": [{"name": "own.gguf", "sha256": sha256(b"own").hexdigest(), "size": 3}],
    "licence": "ours",
    "template": "{{ .Prompt }}",
    "parameters": {"stop": ["</s>"]},
}


def refusal(declaration):
    with pytest.raises(RackllamaError) as caught:
        resolve(declaration, LOCK, CATALOGUE)
    return caught.value


def test_a_declaration_is_completed_from_the_catalogue_and_the_lock():
    model = resolve(R1, LOCK, CATALOGUE)
    assert (model.slug, model.name) == ("deepseek-r1-ud-iq1-s", "deepseek-r1:ud-iq1_s")
    assert (model.context, model.parallel, model.licence) == (16384, 2, "MIT")
    assert (model.template, model.system) == ("{{ .Prompt }}", "Be brief.")
    assert (model.reasoning, model.renderer, model.parser) == (True, "deepseek", "")
    assert model.shards == SHARDS
    assert model.parameters == {"temperature": 0.6, "stop": ["User:"], "num_ctx": 16384}


def test_the_digest_of_the_landed_file_comes_from_the_lock_or_the_declaration():
    merged = sha256(b"merged").hexdigest()
    lock = {slug: replace(artefact, merged_sha256=merged) for slug, artefact in LOCK.items()}
    assert resolve(R1, lock, CATALOGUE).as_data()["sha256"] == merged
    assert resolve({**OWN, "sha256": merged}, {}, {}).as_data()["sha256"] == merged
    assert resolve(R1, LOCK, CATALOGUE).as_data()["sha256"] is None


def test_name_and_variant_are_enough():
    model = resolve({"name": "deepseek-r1", "variant": "ud-iq1_s"}, LOCK, CATALOGUE)
    assert (model.engine, model.context, model.parallel) == ("ollama", 8192, 1)


def test_overrides_have_the_last_word():
    parameters = resolve(
        {**R1, "overrides": {"num_gpu": 28, "temperature": 0, "num_ctx": 99}}, LOCK, CATALOGUE
    ).parameters
    assert parameters == {"temperature": 0, "stop": ["User:"], "num_ctx": 99, "num_gpu": 28}


def test_shards_are_in_order_whatever_the_order_of_the_lock():
    lock = {"deepseek-r1-ud-iq1-s": Artefact("deepseek-r1-ud-iq1-s", "main", "MIT", "o", SHARDS[::-1])}
    assert resolve(R1, lock, CATALOGUE).shards == SHARDS


def test_plain_data_has_the_mirror_before_upstream():
    shard = resolve(R1, LOCK, CATALOGUE).as_data("http://10.0.0.1:8199/")["shards"][0]
    assert shard == {
        "name": "R1-00001-of-00003.gguf",
        "sources": (
            "http://10.0.0.1:8199/hub.test/unsloth/R1-GGUF/resolve/main/R1-00001-of-00003.gguf",
            "https://hub.test/unsloth/R1-GGUF/resolve/main/R1-00001-of-00003.gguf",
        ),
        "size": 1,
        "sha256": sha256(b"1").hexdigest(),
    }


def test_an_inline_model_needs_neither_catalogue_nor_lock():
    model = resolve(OWN, {}, {})
    assert (model.slug, model.name, model.licence) == ("own-q8-0", "own:q8_0", "ours")
    assert model.shards == (LockedFile("https://files.test/models/own.gguf", 3, sha256(b"own").hexdigest()),)
    assert model.parameters == {"stop": ["</s>"], "num_ctx": 8192}


def test_an_inline_model_may_think_and_name_its_renderer_and_parser():
    data = resolve({**OWN, "reasoning": True, "renderer": "own", "parser": "own-thinking"}, {}, {}).as_data()
    assert (data["reasoning"], data["renderer"], data["parser"]) == (True, "own", "own-thinking")
    data = resolve(OWN, {}, {}).as_data()
    assert (data["reasoning"], data["renderer"], data["parser"]) == (False, "", "")


@pytest.mark.parametrize("source", ["https://me:geheim@files.test/models", "https://files.test/models?key=geheim"])
def test_a_source_with_a_secret_in_it_is_refused_and_not_told(source):
    with pytest.raises(RackllamaError, match="has a password or a query in it") as caught:
        resolve({**OWN, "source": source}, {}, {})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("source", ["s3://bucket/models", "file:///mnt/usb"])
def test_what_is_in_the_sites_own_hands_is_not_looked_for_at_a_mirror(source):
    shard = resolve({**OWN, "source": source}, {}, {}).as_data("http://10.0.0.1:8199")["shards"][0]
    assert shard["sources"] == (f"{source}/own.gguf",)


def test_an_unlocked_model_names_the_command_that_locks_it():
    error = refusal({**R1, "variant": "ud-iq1_m"})
    assert error.remedy == "run: rackllama lock deepseek-r1-ud-iq1-m"


@pytest.mark.parametrize(
    ("change", "complaint", "remedy"),
    [
        ({"name": "deepseek-r2"}, "no model 'deepseek-r2' (did you mean deepseek-r1?)", "deepseek-r1"),
        (
            {"variant": "ud-iq1-m"},
            "no variant 'ud-iq1-m' in the catalogue (did you mean ud-iq1_m",
            "ud-iq1_s, ud-iq1_m",
        ),
        ({"engine": "vllm"}, "the engine of deepseek-r1 is 'vllm', which is not built", "use one of: ollama"),
        ({"contxt": 4096}, "no key 'contxt' (did you mean context?)", "overrides"),
        ({"template": "x"}, "no key 'template'", "use one of: name, variant"),
        ({"context": 200000}, "trained on 163840 tokens of context, and 200000 are declared", "at most 163840"),
        ({"context": "8k"}, "declared with context '8k'", "1 or more"),
        ({"context": True}, "declared with context True", "1 or more"),
        ({"parallel": 0}, "declared with parallel 0", "1 or more"),
        ({"overrides": ["num_gpu"]}, "overrides ['num_gpu']", "as a mapping"),
        ({"hosts": "gpu1"}, "the hosts 'gpu1'", "as a list"),
        ({"name": None}, "the name None", "lower-case letters"),
        ({"variant": "../../etc"}, "the variant '../../etc'", "lower-case letters"),
        ({"name": ".."}, "the name '..'", "lower-case letters"),
        ({"name": "a/b"}, "the name 'a/b'", "lower-case letters"),
        ({"name": "a--b"}, "the name 'a--b'", "lower-case letters"),
        ({"name": "R1"}, "the name 'R1'", "lower-case letters"),
        ({"name": "r1\n"}, r"the name 'r1\n'", "lower-case letters"),
        ({"name": "a" * 81}, "the name 'aaa", "lower-case letters"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_accepted(change, complaint, remedy):
    error = refusal({**R1, **change})
    assert complaint in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"source": "/srv/models"}, "the source '/srv/models'"),
        ({"source": None}, "the source None"),
        ({"shards": "own.gguf"}, "no list of mappings"),
        ({"shards": ["own.gguf"]}, "no list of mappings"),
        ({"shards": [{"name": "own.gguf", "sha256": None}]}, "own.gguf has no sha256"),
        ({"shards": [{"name": "own.gguf", "sha256": "abc"}]}, "own.gguf has no sha256"),
        ({"shards": [{"name": "../own.gguf", "sha256": "abc"}]}, "a shard named '../own.gguf'"),
        ({"shards": []}, "not all the shards"),
        ({"parameters": "stop"}, "parameters 'stop'"),
        ({"reasoning": "yes"}, "with reasoning 'yes'"),
        ({"renderer": True}, "with renderer True"),
        ({"parser": ["qwen3"]}, "with parser ['qwen3']"),
    ],
)
def test_an_inline_model_is_checked_as_strictly(change, complaint):
    assert complaint in refusal({**OWN, **change}).message


def test_a_declaration_that_is_only_a_name_is_refused():
    assert "'deepseek-r1:ud-iq1_s', which is no mapping" in refusal("deepseek-r1:ud-iq1_s").message


def test_two_declarations_of_one_model_are_refused():
    with pytest.raises(RackllamaError, match="own:q8_0 and own:q8-0 would both be own-q8-0 on one host"):
        resolve_all([OWN, {**OWN, "variant": "q8-0"}], LOCK, CATALOGUE)


def test_a_host_gets_the_models_that_name_it_or_its_group_or_nobody():
    declared = [
        R1,
        {**OWN, "hosts": ["gpu1"]},
        {**OWN, "name": "small", "hosts": ["laptops"]},
        {**OWN, "context": 99, "hosts": ["gpu2"]},
    ]
    names = [model.name for model in resolve_all(declared, LOCK, CATALOGUE, ["gpu1", "serving"])]
    assert names == ["deepseek-r1:ud-iq1_s", "own:q8_0"]
    assert [model.name for model in resolve_all(declared, LOCK, CATALOGUE, ["pc", "laptops"])][1:] == ["small:q8_0"]


def test_an_unlocked_model_of_another_host_keeps_nobody_from_working():
    elsewhere = {**R1, "variant": "ud-iq1_m", "hosts": ["gpu1"]}
    assert resolve_all([elsewhere], LOCK, CATALOGUE, ["laptop"]) == []
