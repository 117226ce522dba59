"""What to set where an engine found no room after all. Lines as llama.cpp b10488 and Ollama 0.33 print them."""

import pytest

from rackllama.host.models.allocation_failures import Failure, find_failure, remedy

MIB = 2**20
PLAN = {
    "fits": True,
    "num_gpu": 33,
    "devices": ["a GPU"],
    "serving": {"context": 8192, "parallel": 1},
    "max_context": 131072,
    "remedies": [],
}
OF_WEIGHTS = """\
load_tensors: offloading 32 repeating layers to GPU
load_tensors: offloaded 33/33 layers to GPU
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 21504.00 MiB on device 1: cudaMalloc failed: out of memory
alloc_tensor_range: failed to allocate CUDA1 buffer of size 22548578304
llama_model_load: error loading model: unable to allocate CUDA1 buffer
llama_model_load_from_file_impl: failed to load model
""".splitlines()
OF_COMPUTING = """\
llama_context: n_seq_max             = 1
llama_context: n_ctx                 = 524288
ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 17716740096
graph_reserve: failed to allocate compute buffers
llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers
""".splitlines()


def test_a_failure_is_told_by_its_first_line_and_what_was_set_before():
    assert find_failure(OF_WEIGHTS) == Failure("CUDA1", 21504 * MIB, layers=33)
    assert find_failure(OF_COMPUTING) == Failure("CUDA0", 17716740096, context=524288)


@pytest.mark.parametrize(
    ("line", "device"),
    [
        ("llama_model_load: error loading model: unable to allocate CUDA0 buffer", "CUDA0"),
        ("Error: llama runner process has terminated: cudaMalloc failed: out of memory", ""),
        ("llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache", ""),
        ("CUDA error: out of memory", ""),
        ("llama-server reported out-of-memory during startup: error: no room", ""),
        ("alloc_tensor_range: failed to allocate CPU buffer of size 379400000000", "CPU"),
    ],
)
def test_each_way_of_saying_it_is_known(line, device):
    assert find_failure([line]).device == device


def test_a_log_without_such_a_failure_tells_of_none():
    assert find_failure(["load_tensors: offloaded 33/33 layers to GPU", "srv  llama_server: listening"]) is None


def test_what_llama_cpp_got_over_is_no_failure():
    retried = "compute buffer allocation failed, retrying without pipeline parallelism"
    assert find_failure([OF_WEIGHTS[2], retried]) is None


def test_too_many_layers_are_told_with_those_that_fit():
    told = remedy(find_failure(OF_WEIGHTS), {**PLAN, "num_gpu": 7})
    assert told == "it was told num_gpu 33, and 7 fit: set num_gpu 7"


def test_too_long_a_context_is_told_with_what_fits():
    assert "it was told a context of 524288, and 131072 fit" in remedy(find_failure(OF_COMPUTING), PLAN)


def test_where_the_plan_was_followed_others_hold_the_memory():
    told = remedy(find_failure(OF_WEIGHTS), PLAN)
    assert "room for num_gpu 33 and a context of 131072" in told
    assert "nvidia-smi" in told


def test_where_nothing_fits_the_nearest_change_is_told():
    changes = ["1 more GPU of the same kind", "32.0 GiB more memory for the host"]
    told = remedy(find_failure(OF_WEIGHTS), {**PLAN, "fits": False, "remedies": changes})
    assert told == "1 more GPU of the same kind; or 32.0 GiB more memory for the host"
