"""The oracle is llama-server itself: what it is given arrives, and its bytes are those of the server's own table."""

import re

import pytest

from rackllama.host.errors import RackllamaError

from .oracle import REAL_MODEL, Case, Oracle

MIB = 2**20


@pytest.mark.parametrize(
    "case",
    [
        Case("llama-3.3-70b-q8_0", 3, 32768, flash_attention=False, gpu_layers=50),
        Case("deepseek-r1-mla-q4_k_m", 2, cpu_moe_layers=61, parallel=4, unified_kv=True),
    ],
    ids=lambda case: case.model,
)
def test_bytes_are_those_of_the_servers_own_table(case: Case, oracle: Oracle) -> None:
    measured = oracle.measure(case)

    table = re.findall(r"- (RPC\d|Host|CPU_REPACK) .*?= *(\d+) \+ +(\d+) \+ +(\d+)\D", oracle.log_without_shim(case))
    rows = {name: tuple(map(int, numbers)) for name, *numbers in table}
    told = {device.name: device.buffers for device in measured.devices}
    told |= {"Host" if kind == "CPU" else kind: buffers for kind, buffers in measured.host.items()}
    assert rows == {
        name: (buffers.model // MIB, buffers.context // MIB, buffers.compute // MIB) for name, buffers in told.items()
    }


def test_devices_are_in_the_order_of_the_tensor_split(oracle: Oracle) -> None:
    measured = oracle.measure(Case("llama-3.3-70b-q4_k_m", 3, tensor_split=(1, 0, 3)))

    assert [len(device.layers) for device in measured.devices] == [21, 0, 60]
    assert measured.devices[1].buffers.total == 0
    assert measured.host_layers == ()


def test_layers_count_from_the_end_and_the_output_is_one(oracle: Oracle) -> None:
    measured = oracle.measure(Case("qwen2.5-32b-q4_k_m", 1, gpu_layers=3))

    assert measured.devices[0].layers == (62, 63, 64)
    assert measured.host_layers == tuple(range(62))


def test_caches_are_told_one_by_one(oracle: Oracle) -> None:
    measured = oracle.measure(Case(REAL_MODEL, 1, 8192))

    assert [(cache.cells, cache.layers) for cache in measured.kv] == [(8192, 3), (1024, 15)]
    assert sum(cache.mib for cache in measured.kv) * MIB == measured.devices[0].buffers.context


def test_what_the_server_refuses_is_told_in_its_words(oracle: Oracle) -> None:
    case = Case("deepseek-r1-mla-q4_k_m", cache_k="q8_0")

    with pytest.raises(RackllamaError, match="does not support different K"):
        oracle.measure(case)


def test_nothing_is_loaded_even_where_the_dry_run_does_not_end_the_server(oracle: Oracle) -> None:
    _, load = oracle.log_without_shim(Case("deepseek-r1-mla-q4_k_m")).split("common_fit_params: fitting params")

    assert "loading model tensors" in load
    assert "buffer size" not in load
