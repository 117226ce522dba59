"""Models without their bytes are those that are published, as far as sizes and counts are known."""

from collections import Counter
from pathlib import Path

import pytest

from rackllama.host.lander import gguf

from . import header_only
from .oracle import Case, Oracle

# GiB as published or reproduced to the digit, and tensors.
KNOWN = {
    "deepseek-r1-mha-q4_k_m": (376.65, 1025),
    "deepseek-r1-mha-ud-q2_k_xl": (211.03, 1025),
    "deepseek-r1-mha-ud-iq1_m": (157.83, 1025),
    "deepseek-r1-mha-ud-iq1_s": (130.60, 1025),
    "deepseek-r1-mla-q4_k_m": (376.71, 1086),
    "llama-3.1-8b-q4_k_m": (4.58, 292),
    "llama-3.3-70b-q4_k_m": (39.59, 724),
    "llama-3.3-70b-q8_0": (69.82, 724),
    "qwen2.5-32b-q4_k_m": (18.48, 771),
    "qwen3-235b-a22b-q4_k_m": (132.39, 1131),
    "qwen3-30b-a3b-q4_k_m": (17.28, 579),
}


@pytest.mark.parametrize("name", KNOWN)
def test_is_as_large_as_the_published_model(name: str) -> None:
    header = gguf.from_bytes(header_only.header(name))

    assert (round(header.data_size / 2**30, 2), len(header.tensors)) == KNOWN[name]


def test_has_the_published_mix_of_types() -> None:
    header = gguf.from_bytes(header_only.header("deepseek-r1-mha-ud-q2_k_xl"))

    types = Counter(gguf.TENSOR_TYPES[tensor.type].name for tensor in header.tensors)
    assert types == {"f32": 361, "q2_K": 171, "q3_K": 3, "q4_K": 306, "q6_K": 184}


def test_takes_no_disk(tmp_path: Path) -> None:
    path = header_only.write("deepseek-r1-mla-q4_k_m", tmp_path)

    assert path.stat().st_size > 400e9
    assert path.stat().st_blocks * 512 < 1e6


@pytest.mark.parametrize("name", header_only.MODELS)
def test_llama_server_takes_it_for_real(name: str, oracle: Oracle) -> None:
    measured = oracle.measure(Case(name, devices=2))

    weights = sum(device.buffers.model for device in measured.devices) + measured.host_total.model
    told = {tensor.name: tensor.size for tensor in gguf.from_bytes(header_only.header(name)).tensors}
    # Each device has its own copy of the factors of Llama's rotary embedding; an embedding that is the output as well
    # lies on the host and on the last device.
    twice = 0 if "output.weight" in told else told["token_embd.weight"]
    assert weights == sum(told.values()) + told.get("rope_freqs.weight", 0) + twice
