"""Plans in a playbook: the host tells its hardware and reads headers, and the controller keeps them and plans."""

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import gguf
from rackllama.host.lander.gguf import GgufError
from rackllama.host.lander.shards import Shard, Weights
from rackllama.host.models import packed_headers as packing
from rackllama.host.models.model import FoundModel, LandedWeights, WantedModel
from rackllama.host.models.modelfile import ModelSettings
from rackllama.host.models.ollama_store import OllamaStore
from rackllama.host.models.packed_headers import packed_headers, unpacked
from rackllama.planning.header_cache import HeaderCache
from rackllama.planning.playbook import SitePlanner

from ..planner import header_only

NAME, SLUG = "llama-3.1-8b-q4_k_m", "llama-3.1-8b-q4-k-m"
HARDWARE = {"gpus": [], "ram_mib": 16384, "network_mbs": None}
UNKNOWN_GPU = {"name": None, "product": None, "device": "10de:0001", "memory_mib": None}


@pytest.fixture
def wanted(tmp_path, monkeypatch):
    """A model whose one shard is a file of the host's own."""
    path = header_only.write(NAME, tmp_path)
    monkeypatch.setattr(packing, "found_model", lambda _: FoundModel({}, None, None))
    shard = Shard(path.name, (f"file://{path}",), path.stat().st_size, "a" * 64)
    return WantedModel(SLUG, NAME, Weights((shard,)), ModelSettings(), tmp_path / "store")


def arguments(wanted, **more):
    model = {
        "slug": SLUG,
        "name": NAME,
        "parallel": 1,
        "shards": [{"sha256": shard.sha256, "size": shard.size} for shard in wanted.weights.shards],
        "parameters": {"num_ctx": 8192},
    }
    return {"models": [model], **more}


@pytest.fixture
def cache(tmp_path):
    return HeaderCache(tmp_path / "headers")


def planned(wanted, cache, hardware=HARDWARE, **more):
    planner = SitePlanner("gpu1", arguments(wanted, **more), cache)
    return planner.answer(hardware, {slug: packed_headers(wanted, {}) for slug in planner.unread()})


def test_headers_come_from_where_the_host_would_land_them(wanted):
    (packed,) = packed_headers(wanted, {})["headers"]
    assert unpacked(packed).raw == header_only.header(NAME)
    assert len(packed["header"]) < len(header_only.header(NAME))


def test_the_header_of_landed_weights_does_instead(wanted, tmp_path, monkeypatch):
    blob = f"sha256:{'b' * 64}"
    store = OllamaStore(wanted.store)
    store.root.mkdir()
    store.prepare()
    (tmp_path / f"{NAME}.gguf").rename(store.blob(blob))
    landed = LandedWeights(wanted.weights_digest, blob, store.blob(blob).stat().st_size, verified=True)
    monkeypatch.setattr(packing, "found_model", lambda _: FoundModel({}, None, landed))
    assert unpacked(packed_headers(wanted, {})["headers"][0]).raw == header_only.header(NAME)


@pytest.mark.parametrize("packed", [{}, {"size": 9, "header": "%"}, {"size": 9, "header": "R0dVRg=="}])
def test_what_is_no_packed_header_is_told(packed):
    with pytest.raises(GgufError):
        unpacked(packed)


def test_a_header_is_read_once_on_each_host(wanted, cache):
    """What one host tells is believed of itself alone."""
    assert planned(wanted, cache)["ansible_facts"]["rackllama_plans"]["plans"][SLUG]["fits"]
    assert SitePlanner("gpu1", arguments(wanted), cache).unread() == []
    assert SitePlanner("gpu2", arguments(wanted), cache).unread() == [SLUG]


def test_headers_that_are_not_those_of_the_shards_are_told_each_time(wanted, cache):
    packed = packed_headers(wanted, {})["headers"]
    for sent in ([], packed * 2):
        for _ in range(2):
            planner = SitePlanner("gpu1", arguments(wanted), cache)
            assert planner.unread() == [SLUG]
            answer = planner.answer(HARDWARE, {SLUG: {"headers": sent}})
            assert f"a host sent {len(sent)} headers of a model of 1 shards" in answer["msg"]


def test_a_cache_that_cannot_be_written_only_costs_time(wanted, tmp_path):
    (tmp_path / "file").write_text("no folder")
    closed = HeaderCache(tmp_path / "file" / "headers")
    assert planned(wanted, closed)["ansible_facts"]["rackllama_plans"]["plans"][SLUG]["fits"]


@pytest.mark.parametrize(
    ("given", "told"),
    [({"parallel": "auto"}, "ollama_num_parallel"), ({"reserve": 8192}, "rackllama_plan_reserve")],
)
def test_knobs_that_are_none_are_named_and_do_not_matter_where_nothing_is_planned(wanted, cache, given, told):
    with pytest.raises(RackllamaError, match=told):
        SitePlanner("gpu1", arguments(wanted, **given), cache)
    assert SitePlanner("gpu1", arguments(wanted, mode="none", **given), cache).plans_nothing


def test_a_damaged_file_of_the_cache_is_read_anew(wanted, cache):
    planned(wanted, cache)
    (path,) = cache.folder.iterdir()
    path.write_text('[{"size": 5, "header": "eJw="}]')
    assert SitePlanner("gpu1", arguments(wanted), cache).unread() == [SLUG]


def test_other_shards_are_another_model(wanted, cache):
    planned(wanted, cache)
    other = arguments(wanted)
    other["models"][0]["shards"][0]["sha256"] = "c" * 64
    assert SitePlanner("gpu1", other, cache).unread() == [SLUG]


def test_the_plan_of_a_host_is_a_fact_of_plain_data(wanted, cache):
    answer = planned(wanted, cache)
    facts = answer["ansible_facts"]["rackllama_plans"]
    assert (facts["gpus"], facts["parameters"]) == (0, {SLUG: {"num_ctx": 8192, "num_batch": 512}})
    assert not answer.get("failed")
    assert answer["shown"][0].startswith(f"ok    plan {NAME}  all on the host: ")
    assert facts["plans"][SLUG]["hardware"] == "gpu1"


def test_what_does_not_fit_fails_where_plans_are_enforced(wanted, cache):
    answer = planned(wanted, cache, {**HARDWARE, "ram_mib": 4096})
    assert answer["failed"]
    assert answer["msg"].startswith(f"plan for gpu1: 1 of 1 checks failed\nFAIL  plan {NAME}  wanted a context of 8192")
    assert "remedy:" in answer["msg"]
    assert "rackllama_plan: advisory" in answer["msg"]


def test_what_does_not_fit_is_a_warning_where_plans_are_advisory(wanted, cache):
    answer = planned(wanted, cache, {**HARDWARE, "ram_mib": 4096}, mode="advisory")
    assert not answer.get("failed")
    assert "does not fit" in answer["warnings"][0]
    facts = answer["ansible_facts"]["rackllama_plans"]
    assert (facts["parameters"], facts["environment"]) == ({SLUG: {}}, {})


def test_nothing_planned_leaves_nothing_of_an_earlier_plan(wanted, cache):
    planner = SitePlanner("gpu1", arguments(wanted, mode="none"), cache)
    assert planner.plans_nothing
    facts = planner.nothing()["ansible_facts"]["rackllama_plans"]
    assert facts == {"plans": {}, "parameters": {}, "environment": {}, "gpus": 0}


def test_a_header_that_cannot_be_read_is_told_of_its_model(wanted, cache, tmp_path):
    (tmp_path / f"{NAME}.gguf").unlink()
    answer = planned(wanted, cache)
    assert answer["failed"]
    assert f"the header of {NAME}.gguf cannot be read" in answer["msg"]
    assert "rackllama_plan: none" in answer["msg"]


def test_what_is_no_model_is_told_of_its_model(wanted, cache, monkeypatch):
    empty = gguf.from_bytes(header_only.header(NAME))
    monkeypatch.setattr(packing, "read_headers", lambda *_: [(empty, 1)])
    assert planned(wanted, cache)["failed"]


def test_a_gpu_whose_driver_is_to_come_is_planned_for_when_it_is_there(wanted, cache):
    answer = planned(wanted, cache, {**HARDWARE, "gpus": [UNKNOWN_GPU]})
    assert not answer.get("failed")
    assert "not yet: nobody tells the memory" in answer["shown"][0]
    facts = answer["ansible_facts"]["rackllama_plans"]
    assert (facts["plans"], facts["gpus"]) == ({}, 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": False}, "rackllama_plan is False"),
        ({"reserve": {"host_gib": 2}}, "host_gib"),
        ({"reserve": {"host_mib": "much"}}, "host_mib: much"),
        ({"flash_attention": "perhaps"}, "ollama_flash_attention"),
        ({"kv_cache_type": "q9"}, "ollama_kv_cache_type is 'q9'"),
    ],
)
def test_a_knob_that_is_none_is_named(wanted, cache, given, words):
    with pytest.raises(RackllamaError, match=words):
        SitePlanner("gpu1", arguments(wanted, **given), cache)


def test_switches_may_come_as_text(wanted, cache):
    answer = planned(wanted, cache, flash_attention="false", parallel="2")
    environment = answer["ansible_facts"]["rackllama_plans"]["environment"]
    assert (environment["OLLAMA_FLASH_ATTENTION"], environment["OLLAMA_NUM_PARALLEL"]) == ("0", "2")
