"""What engines are told, in names that llama.cpp b10488 and Ollama 0.33 have."""

from rackllama.planning.engine_settings import command_line, settings
from rackllama.planning.serving import Placement, Serving


def test_a_model_on_one_gpu_needs_no_split():
    told = settings(Serving(context=8192), Placement((33,)), 32)
    assert told["llama_cpp"]["options"] == {
        "ctx-size": 8192,
        "parallel": 1,
        "gpu-layers": 33,
        "flash-attn": "on",
        "cache-type-k": "f16",
        "cache-type-v": "f16",
        "batch-size": 2048,
        "ubatch-size": 512,
        "fit": "off",
    }
    assert told["ollama"] == {
        "parameters": {"num_ctx": 8192, "num_gpu": 33, "num_batch": 512},
        "environment": {
            "OLLAMA_FLASH_ATTENTION": "1",
            "OLLAMA_NUM_PARALLEL": "1",
            "OLLAMA_KV_CACHE_TYPE": "f16",
        },
    }


def test_layers_are_handed_out_by_their_counts_as_shares():
    told = settings(Serving(), Placement((30, 32)), 61)
    assert told["llama_cpp"]["options"]["gpu-layers"] == 62
    assert told["llama_cpp"]["environment"]["LLAMA_ARG_TENSOR_SPLIT"] == "30,32"


def test_ollama_is_told_of_split_and_experts_by_what_it_hands_on():
    environment = settings(Serving(), Placement((30, 32), experts_on_host=40), 61)["ollama"]["environment"]
    assert environment["LLAMA_ARG_TENSOR_SPLIT"] == "30,32"
    assert environment["LLAMA_ARG_N_CPU_MOE"] == "40"
    assert environment["OLLAMA_SCHED_SPREAD"] == "1"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_ollama_multiplies_its_context_by_its_slots():
    told = settings(Serving(context=32768, parallel=4), Placement((33,)), 32)
    assert told["llama_cpp"]["options"]["ctx-size"] == 32768
    assert told["ollama"]["parameters"]["num_ctx"] == 8192
    assert told["ollama"]["environment"]["OLLAMA_NUM_PARALLEL"] == "4"
    assert told["ollama"]["environment"]["LLAMA_ARG_KV_UNIFIED"] == "1"


def test_keys_and_values_of_different_types_pass_ollama_by():
    serving = Serving(key_type="q8_0", value_type="q4_0")
    environment = settings(serving, Placement((33,)), 32)["ollama"]["environment"]
    assert environment["OLLAMA_KV_CACHE_TYPE"] == ""
    assert environment["LLAMA_ARG_CACHE_TYPE_K"] == "q8_0"
    assert environment["LLAMA_ARG_CACHE_TYPE_V"] == "q4_0"


def test_what_is_all_on_the_host_has_no_split():
    told = settings(Serving(), Placement((0, 0)), 32)
    assert told["llama_cpp"]["options"]["gpu-layers"] == 0
    assert "tensor-split" not in told["llama_cpp"]["options"]
    assert told["ollama"]["parameters"]["num_gpu"] == 0


def test_a_large_micro_batch_is_not_cut_off_by_the_batch():
    options = settings(Serving(micro_batch=4096), Placement((33,)), 32)["llama_cpp"]["options"]
    assert (options["batch-size"], options["ubatch-size"]) == (4096, 4096)


def test_engines_count_layers_that_only_foretell_tokens():
    told = settings(Serving(), Placement((23, 24)), 46, unserved_layers=1)
    assert told["ollama"]["parameters"]["num_gpu"] == 48
    assert told["llama_cpp"]["options"]["tensor-split"] == "23,25"


def test_switches_become_arguments():
    assert command_line({"ctx-size": 4096, "kv-unified": True}) == ["--ctx-size", "4096", "--kv-unified"]
    assert command_line({"kv-unified": False}) == ["--no-kv-unified"]
