"""What a header tells of a model."""

import struct
from dataclasses import replace

import pytest
from tests.planner import header_only
from tests.unit.gguf_files import string

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.gguf import STRING, UINT32, Header, KeyValue, from_bytes
from rackllama.planning import kv_cache
from rackllama.planning.graph.models import model_graph
from rackllama.planning.serving import Placement, Serving, by_shares
from rackllama.planning.shape import read_shape

from .models import shape_of

GIB = 2**30


def without(header: Header, key: str) -> Header:
    return replace(header, kvs=tuple(kv for kv in header.kvs if kv.key != key))


def header_of(name: str) -> Header:
    return from_bytes(header_only.header(name))


def test_layers_experts_and_sizes() -> None:
    shape = shape_of("deepseek-r1-mla-q4_k_m")
    assert (shape.layers, shape.experts, shape.experts_used, shape.shared_experts) == (61, 256, 8, 1)
    assert shape.is_moe
    # The first layers have no experts, and are far smaller.
    assert shape.layer_weights[0].experts == 0
    assert shape.layer_weights[0].all < shape.layer_weights[3].all / 10
    assert shape.weights == sum(layer.all for layer in shape.layer_weights) + shape.input_weights + shape.output_weights


def test_a_dense_model_has_no_experts() -> None:
    shape = shape_of("llama-3.3-70b-q4_k_m")
    assert not shape.is_moe
    assert shape.kv_heads == (8,) * 80
    assert shape.mla is None


def test_both_layouts_of_deepseek_are_told_apart_by_the_header() -> None:
    """A latent cache has 576 elements a token and layer; the files of January 2025 unfold it: 71 times as many."""
    serving = Serving(context=1024)
    latent, whole = shape_of("deepseek-r1-mla-q4_k_m"), shape_of("deepseek-r1-mha-q4_k_m")
    assert kv_cache.elements(latent, 30) == (576, 0)
    assert kv_cache.elements(whole, 30) == (128 * 192, 128 * 128)
    assert whole.folded_attention
    assert not latent.folded_attention
    a_token = sum(kv_cache.token_bytes(whole, layer, serving) for layer in range(61))
    assert a_token == pytest.approx(5.0e6, rel=0.01)
    assert a_token / sum(kv_cache.token_bytes(latent, layer, serving) for layer in range(61)) == pytest.approx(71, 0.01)


@pytest.mark.parametrize("missing", ["deepseek2.block_count", "deepseek2.attention.head_count"])
def test_a_key_that_is_missing_is_named(missing: str) -> None:
    with pytest.raises(RackllamaError, match=missing):
        read_shape(without(header_of("deepseek-r1-mla-q4_k_m"), missing))


def test_an_architecture_has_to_be_told() -> None:
    with pytest.raises(RackllamaError, match="architecture"):
        read_shape(without(header_of("llama-3.3-70b-q4_k_m"), "general.architecture"))


def test_a_file_without_embedding_is_no_model_that_answers() -> None:
    header = header_of("llama-3.3-70b-q4_k_m")
    projector = replace(header, tensors=tuple(t for t in header.tensors if t.name != "token_embd.weight"))
    with pytest.raises(RackllamaError, match="no token embedding"):
        read_shape(projector)


def test_quantized_values_need_flash_attention() -> None:
    shape = shape_of("llama-3.3-70b-q4_k_m")
    kv_cache.check(shape, Serving(key_type="q8_0", value_type="q8_0"))
    with pytest.raises(RackllamaError, match="flash attention"):
        kv_cache.check(shape, Serving(key_type="q8_0", value_type="q8_0", flash_attention=False))


def test_a_latent_cache_has_one_type() -> None:
    with pytest.raises(RackllamaError, match="both in one"):
        kv_cache.check(shape_of("deepseek-r1-mla-q4_k_m"), Serving(key_type="q8_0"))


def test_an_unknown_type_of_cache_names_those_that_there_are() -> None:
    with pytest.raises(RackllamaError, match="q3_7") as told:
        kv_cache.check(shape_of("llama-3.3-70b-q4_k_m"), Serving(key_type="q3_7"))
    assert "q8_0" in told.value.remedy


def test_slots_of_their_own_are_rounded_up_each() -> None:
    assert Serving(context=5000).cells == 5120
    apart = Serving(context=8192, parallel=3, unified=False)
    assert (apart.cells, apart.streams) == (2816, 3)


def test_the_output_counts_as_a_layer() -> None:
    """`--gpu-layers 3` are two layers and the output."""
    assert Placement((3,)).devices(61)[-4:] == (-1, 0, 0, 0)
    assert Placement((31, 31)).devices(61) == (0,) * 31 + (1,) * 31


def test_layers_are_shared_out_as_llama_cpp_does() -> None:
    assert by_shares(29, [1, 1, 1, 1]) == (8, 7, 7, 7)
    assert by_shares(62, [3, 1]) == (47, 15)
    assert sum(by_shares(62, [40, 24, 24])) == 62
    assert by_shares(7, [0, 0]) == (4, 3)


def test_a_state_of_another_kind_is_refused() -> None:
    header = header_of("llama-3.3-70b-q4_k_m")
    renamed = tuple(replace(t, name=t.name.replace("attn_k.", "ssm_in.")) for t in header.tensors)
    with pytest.raises(RackllamaError, match="keeps a state besides keys and values"):
        read_shape(replace(header, tensors=renamed))


def test_a_layer_that_is_made_otherwise_is_refused_by_name() -> None:
    shape = shape_of("llama-3.3-70b-q4_k_m")
    other = replace(shape, tensors={name: t for name, t in shape.tensors.items() if name != "blk.7.attn_v.weight"})
    with pytest.raises(RackllamaError, match=r"layer 7 has no attn_v\.weight"):
        model_graph(other, Serving(), Placement((81,)), range(80))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("block_count", 0, "tells of 0 layers"),
        ("block_count", 40, "tensors of 80"),
        ("block_count", 4_000_000_000, "tensors of 80"),
        ("embedding_length", 4096, "embedding_length is 4096"),
        ("expert_count", 8, "use 0"),
        ("attention.head_count", "many", "as another number"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(key: str, value: object, told: str) -> None:
    header = header_of("llama-3.3-70b-q4_k_m")
    kvs = [kv for kv in header.kvs if kv.key != f"llama.{key}"]
    added = KeyValue(f"llama.{key}", STRING, memoryview(string(value))) if isinstance(value, str) else None
    added = added or KeyValue(f"llama.{key}", UINT32, memoryview(struct.pack("<I", value)))
    with pytest.raises(RackllamaError, match=told):
        read_shape(replace(header, kvs=(*kvs, added)))
