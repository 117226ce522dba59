"""What a host can hold of what it is declared to serve, and what its engine is told then."""

from functools import lru_cache

import pytest

from rackllama.host.lander import gguf
from rackllama.planning.hardware import from_names
from rackllama.planning.plan import Reserve
from rackllama.planning.shape import read_shape
from rackllama.planning.site import DeclaredModel, Told, plan_host

from ..planner import header_only

R1, DENSE, MOE = "deepseek-r1-mha-ud-iq1_m", "llama-3.1-8b-q4_k_m", "qwen3-30b-a3b-q4_k_m"
CARDS = from_names("4xRTX4090", "384GiB")
NO_GPU = from_names("none", "16GiB")


@lru_cache
def shape(name):
    return read_shape(gguf.from_bytes(header_only.header(name)))


def declared(name, parallel=1, **parameters):
    return DeclaredModel(
        {
            "slug": name.replace("_", "-"),
            "name": name,
            "parallel": parallel,
            "shards": [{"size": None}],
            "parameters": {"num_ctx": 8192, **parameters},
        },
        shape(name),
    )


def told_to(plans, name):
    return plans.parameters[name.replace("_", "-")]


def test_an_engine_is_told_all_that_was_planned():
    plans = plan_host(CARDS, [declared(R1)], Told())
    (check,) = plans.checks
    assert check.ok
    assert told_to(plans, R1) == {"num_ctx": 8192, "num_gpu": 62, "num_batch": 512}
    experts = int(plans.environment["LLAMA_ARG_N_CPU_MOE"])
    assert 0 < experts < 61
    assert sum(map(int, plans.environment["LLAMA_ARG_TENSOR_SPLIT"].split(","))) == 62
    assert plans.environment["OLLAMA_SCHED_SPREAD"] == "1"


def test_a_host_without_gpus_is_told_nothing_of_them():
    plans = plan_host(NO_GPU, [declared(DENSE)], Told())
    assert told_to(plans, DENSE) == {"num_ctx": 8192, "num_batch": 512}
    assert set(plans.environment) == {"OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NUM_PARALLEL"}
    assert plan_host(NO_GPU, [declared(DENSE, num_gpu=99)], Told()).checks[0].ok


def test_models_whose_plans_differ_in_what_all_are_told_go_in_whole_layers():
    plans = plan_host(CARDS, [declared(R1), declared(DENSE)], Told())
    assert not {"LLAMA_ARG_TENSOR_SPLIT", "LLAMA_ARG_N_CPU_MOE"} & set(plans.environment)
    assert plans.environment["OLLAMA_SCHED_SPREAD"] == "1"
    assert plans.plans["deepseek-r1-mha-ud-iq1-m"].placement.experts_on_host == 0
    assert 0 < told_to(plans, R1)["num_gpu"] < 62
    assert told_to(plans, DENSE)["num_gpu"] == 33


def test_experts_on_the_host_are_nothing_to_a_model_without_experts():
    one_card = from_names("RTX4090", "64GiB")
    plans = plan_host(one_card, [declared(DENSE), declared(MOE, num_ctx=40960, parallel=4)], Told())
    assert plans.environment["LLAMA_ARG_N_CPU_MOE"] == str(
        plans.plans["qwen3-30b-a3b-q4-k-m"].placement.experts_on_host
    )
    assert plans.environment["OLLAMA_NUM_PARALLEL"] == "4"  # the most that one of them declares
    assert plans.checks[-1].found.endswith("Ollama unloads one to load another")


def test_what_does_not_fit_is_told_nothing_and_by_how_much_it_does_not():
    plans = plan_host(from_names("none", "4GiB"), [declared(DENSE)], Told())
    (check,) = plans.checks
    assert not check.ok
    assert "GiB have no room, of 4.6 GiB of weights" in check.found
    assert "a quantization of at most" in check.remedy
    assert told_to(plans, DENSE) == {}
    assert plans.environment == {}


def test_only_those_gpus_are_planned_that_the_engine_may_see():
    one = plan_host(CARDS, [declared(DENSE)], Told(environment={"CUDA_VISIBLE_DEVICES": "0"}))
    (plan,) = one.plans.values()
    assert len(plan.devices) == 1
    assert "LLAMA_ARG_TENSOR_SPLIT" not in one.environment


def test_remedies_name_knobs():
    (check,) = plan_host(from_names("none", "9GiB"), [declared(DENSE, num_ctx=32768, parallel=2)], Told()).checks
    assert "ollama_kv_cache_type: q4_0" in check.remedy or "ollama_kv_cache_type: q8_0" in check.remedy
    assert "in its declaration" in check.remedy
    assert "--" not in check.remedy


def test_an_override_that_fits_is_told_as_it_is():
    plans = plan_host(CARDS, [declared(DENSE, num_gpu=20, num_batch=256)], Told())
    assert plans.checks[0].ok
    assert told_to(plans, DENSE) == {"num_ctx": 8192, "num_gpu": 20, "num_batch": 256}


def test_an_override_that_is_fatal_is_what_is_told():
    (check,) = plan_host(CARDS, [declared(R1, num_gpu=61)], Told()).checks
    assert not check.ok
    assert "it does not fit, with num_gpu 61 as declared, where the plan's own is 62" in check.found
    assert check.remedy == "leave out num_gpu"
    environment = {"LLAMA_ARG_N_CPU_MOE": "0"}
    (check,) = plan_host(CARDS, [declared(R1)], Told(environment=environment)).checks
    assert "with LLAMA_ARG_N_CPU_MOE 0 as declared" in check.found
    assert plan_host(CARDS, [declared(DENSE)], Told(environment=environment)).checks[0].ok  # it has none


def test_an_override_that_the_plan_would_choose_itself_changes_nothing():
    assert plan_host(CARDS, [declared(R1, num_gpu=62)], Told()) == plan_host(CARDS, [declared(R1)], Told())


def test_what_the_site_leaves_alone_is_not_planned_with():
    assert plan_host(NO_GPU, [declared(DENSE)], Told(reserve=Reserve(host_mib=4096))).checks[0].ok
    assert not plan_host(NO_GPU, [declared(DENSE)], Told(reserve=Reserve(host_mib=12288))).checks[0].ok


def test_a_split_of_the_sites_own_makes_the_plan_approximate():
    own = {"LLAMA_ARG_TENSOR_SPLIT": "3,1,1,1"}
    assert (
        "LLAMA_ARG_TENSOR_SPLIT of the site's own"
        in plan_host(CARDS, [declared(DENSE)], Told(environment=own)).checks[0].found
    )


@pytest.mark.parametrize(
    ("told", "parameters", "words"),
    [
        (Told(cache_type="q8_0", flash_attention=False), {}, "need flash attention"),
        (Told(cache_type="q3_0"), {}, "no cache of type"),
        (Told(), {"num_gpu": "many"}, "num_gpu is declared as 'many'"),
    ],
)
def test_settings_that_cannot_be_are_told_of_their_model(told, parameters, words):
    plans = plan_host(NO_GPU, [declared(DENSE, **parameters)], told)
    (check,) = plans.checks
    assert (check.id, check.ok) == (f"plan {DENSE}", False)
    assert words in check.found
    assert check.remedy
    assert plans.plans == {}


def test_no_models_are_no_plans():
    assert plan_host(CARDS, [], Told()).as_data() == {"plans": {}, "parameters": {}, "environment": {}}
