"""Models of any size without their bytes: true metadata and tensors, and a hole where the data would be.

    python -m tests.planner.header_only --folder FOLDER [NAME ...]

DeepSeek-R1 in Q4_K_M is 404 GB long and takes 72 KiB of disk. What reads only headers takes it for the real one, and so
does a dry run of llama.cpp's.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from rackllama.host.lander import gguf
from rackllama.host.lander.gguf import BOOL, FLOAT32, STRING, TENSOR_TYPES, UINT32

from ..unit.gguf_files import Entry, Model, Tensor

TYPES = {stored.name: number for number, stored in TENSOR_TYPES.items()}
# What llama.cpp takes for rows that the wanted type's blocks do not divide.
FALLBACKS = {"q4_K": "q5_0", "q6_K": "q8_0"}

type Shapes = dict[str, tuple[int, ...]]
# Layer and number of layers -> name of a ggml type.
type Choice = Callable[[int, int], str]


@dataclass(frozen=True)
class Architecture:
    """What is the same in all quantizations of a model. `layer` gives the tensors of the layer of that number."""

    name: str
    values: Mapping[str, int | float | bool | str]
    whole: Shapes
    layer: Callable[[int], Shapes]

    @property
    def layers(self) -> int:
        return int(self.values["block_count"])

    @property
    def entries(self) -> list[Entry]:
        prefixed = [_entry(f"{self.name}.{key}", value) for key, value in self.values.items()]
        return [_entry("general.architecture", self.name), *prefixed, _entry("tokenizer.ggml.model", "none")]


@dataclass(frozen=True)
class Quantization:
    """Which type a matrix gets: the first pattern (of the name without layer and `.weight`) that matches."""

    rules: Sequence[tuple[str, str | Choice]]

    def choose(self, name: str, dims: tuple[int, ...], layer: int, layers: int) -> int:
        if len(dims) == 1 or name == "ffn_gate_inp":
            return TYPES["f32"]
        choice = next(choice for pattern, choice in self.rules if fnmatchcase(name, pattern))
        chosen = choice if isinstance(choice, str) else choice(layer, layers)
        return TYPES[chosen if dims[0] % TENSOR_TYPES[TYPES[chosen]].block == 0 else FALLBACKS[chosen]]


def _entry(key: str, value: float | bool | str) -> Entry:
    types = {bool: BOOL, int: UINT32, float: FLOAT32, str: STRING}
    return Entry(key, types[type(value)], value)


def deepseek_r1(layout: str) -> Architecture:
    """`mha` as published in January 2025, whose KV cache has all heads; `mla` as today, with the compressed one."""
    nope, rope, value, lora, heads = 128, 64, 128, 512, 128
    heads_of = {
        "mha": {"head_count_kv": heads, "key_length": nope + rope, "value_length": value},
        "mla": {
            "head_count_kv": 1,
            "key_length": lora + rope,
            "value_length": lora,
            "key_length_mla": nope + rope,
            "value_length_mla": value,
        },
    }[layout]
    decompression: Shapes = {
        "mha": {"attn_kv_b": (lora, heads * (nope + value))},
        "mla": {"attn_k_b": (nope, lora, heads), "attn_v_b": (lora, value, heads)},
    }[layout]
    attention: Shapes = {
        "attn_norm": (7168,),
        "attn_q_a": (7168, 1536),
        "attn_q_a_norm": (1536,),
        "attn_q_b": (1536, heads * (nope + rope)),
        "attn_kv_a_mqa": (7168, lora + rope),
        "attn_kv_a_norm": (lora,),
        **decompression,
        "attn_output": (heads * value, 7168),
        "ffn_norm": (7168,),
    }
    experts: Shapes = {
        "ffn_gate_inp": (7168, 256),
        "exp_probs_b": (256,),
        **_experts(7168, 2048, 256),
        "ffn_gate_shexp": (7168, 2048),
        "ffn_up_shexp": (7168, 2048),
        "ffn_down_shexp": (2048, 7168),
    }
    return Architecture(
        "deepseek2",
        {
            "block_count": 61,
            "context_length": 163840,
            "embedding_length": 7168,
            "feed_forward_length": 18432,
            "vocab_size": 129280,
            "attention.head_count": 128,
            "attention.layer_norm_rms_epsilon": 1e-6,
            **{f"attention.{key}": number for key, number in heads_of.items()},
            "attention.q_lora_rank": 1536,
            "attention.kv_lora_rank": lora,
            "leading_dense_block_count": 3,
            "expert_count": 256,
            "expert_used_count": 8,
            "expert_shared_count": 1,
            "expert_feed_forward_length": 2048,
            "expert_weights_scale": 2.5,
            "expert_weights_norm": True,
            "expert_gating_func": 2,
            "rope.freq_base": 1e4,
            "rope.dimension_count": rope,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 40.0,
            "rope.scaling.original_context_length": 4096,
            "rope.scaling.yarn_log_multiplier": 0.1,
        },
        _whole(7168, 129280),
        lambda layer: {**attention, **(_dense(7168, 18432) if layer < 3 else experts)},
    )


def llama(layers: int, embedding: int, heads: int, feed_forward: int) -> Architecture:
    """Llama 3.1 and 3.3: heads of 128, 8 of them for keys and values."""
    return Architecture(
        "llama",
        {
            "block_count": layers,
            "context_length": 131072,
            "embedding_length": embedding,
            "feed_forward_length": feed_forward,
            "vocab_size": 128256,
            "attention.head_count": heads,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.head_count_kv": 8,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "rope.freq_base": 5e5,
            "rope.dimension_count": 128,
        },
        {**_whole(embedding, 128256), "rope_freqs": (64,)},
        lambda _: {**_attention(embedding, heads, 8), **_dense(embedding, feed_forward)},
    )


def qwen2_5_32b() -> Architecture:
    """Its queries, keys and values have biases."""
    biases = {"attn_q.bias": (5120,), "attn_k.bias": (1024,), "attn_v.bias": (1024,)}
    return Architecture(
        "qwen2",
        {
            "block_count": 64,
            "context_length": 32768,
            "embedding_length": 5120,
            "feed_forward_length": 27648,
            "vocab_size": 152064,
            "attention.head_count": 40,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "attention.head_count_kv": 8,
            "rope.freq_base": 1e6,
        },
        _whole(5120, 152064),
        lambda _: {**_attention(5120, 40, 8), **biases, **_dense(5120, 27648)},
    )


def qwen3(layers: int, embedding: int, heads: int, feed_forward: int, has_output: bool = True) -> Architecture:
    """Qwen3 without experts: heads of 128 with norms. Small ones have no output matrix but the embedding."""
    whole = _whole(embedding, 151936)
    return Architecture(
        "qwen3",
        {
            "block_count": layers,
            "context_length": 40960,
            "embedding_length": embedding,
            "feed_forward_length": feed_forward,
            "vocab_size": 151936,
            "attention.head_count": heads,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "attention.head_count_kv": 8,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "rope.freq_base": 1e6,
        },
        whole if has_output else {name: dims for name, dims in whole.items() if name != "output"},
        lambda _: {
            **_attention(embedding, heads, 8),
            "attn_q_norm": (128,),
            "attn_k_norm": (128,),
            **_dense(embedding, feed_forward),
        },
    )


def gemma3_27b() -> Architecture:
    """Five layers of six see a window of 1024 tokens."""
    norms: Shapes = {
        "attn_q_norm": (128,),
        "attn_k_norm": (128,),
        "post_attention_norm": (5376,),
        "post_ffw_norm": (5376,),
    }
    return Architecture(
        "gemma3",
        {
            "block_count": 62,
            "context_length": 131072,
            "embedding_length": 5376,
            "feed_forward_length": 21504,
            "vocab_size": 262208,
            "attention.head_count": 32,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "attention.head_count_kv": 16,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "attention.sliding_window": 1024,
            "rope.freq_base": 1e6,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
        {"token_embd": (5376, 262208), "output_norm": (5376,)},
        lambda _: {**_attention(5376, 32, 16), **norms, **_dense(5376, 21504)},
    )


def mixtral_8x7b() -> Architecture:
    """Of Llama's architecture, with 8 experts of which 2 are used."""
    return Architecture(
        "llama",
        {
            "block_count": 32,
            "context_length": 32768,
            "embedding_length": 4096,
            "feed_forward_length": 14336,
            "vocab_size": 32000,
            "attention.head_count": 32,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.head_count_kv": 8,
            "expert_count": 8,
            "expert_used_count": 2,
            "rope.freq_base": 1e6,
            "rope.dimension_count": 128,
        },
        _whole(4096, 32000),
        lambda _: {**_attention(4096, 32, 8), "ffn_gate_inp": (4096, 8), **_experts(4096, 14336, 8)},
    )


def qwen3_moe(layers: int, embedding: int, heads: int, dense: int, expert: int) -> Architecture:
    """Qwen3 with 128 experts, 8 of them used. `dense` is written in the header, and no tensor has it."""
    norms: Shapes = {"attn_q_norm": (128,), "attn_k_norm": (128,)}
    return Architecture(
        "qwen3moe",
        {
            "block_count": layers,
            "context_length": 40960,
            "embedding_length": embedding,
            "feed_forward_length": dense,
            "vocab_size": 151936,
            "attention.head_count": heads,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "attention.head_count_kv": 4,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "expert_count": 128,
            "expert_used_count": 8,
            "expert_feed_forward_length": expert,
            "rope.freq_base": 1e6,
        },
        _whole(embedding, 151936),
        lambda _: {
            **_attention(embedding, heads, 4),
            **norms,
            "ffn_gate_inp": (embedding, 128),
            **_experts(embedding, expert, 128),
        },
    )


def _whole(embedding: int, vocabulary: int) -> Shapes:
    return {"token_embd": (embedding, vocabulary), "output_norm": (embedding,), "output": (embedding, vocabulary)}


def _attention(embedding: int, heads: int, kv_heads: int, head: int = 128) -> Shapes:
    return {
        "attn_norm": (embedding,),
        "attn_q": (embedding, heads * head),
        "attn_k": (embedding, kv_heads * head),
        "attn_v": (embedding, kv_heads * head),
        "attn_output": (heads * head, embedding),
        "ffn_norm": (embedding,),
    }


def _dense(embedding: int, feed_forward: int) -> Shapes:
    return {
        "ffn_gate": (embedding, feed_forward),
        "ffn_up": (embedding, feed_forward),
        "ffn_down": (feed_forward, embedding),
    }


def _experts(embedding: int, feed_forward: int, count: int) -> Shapes:
    return {f"{name}_exps": (*dims, count) for name, dims in _dense(embedding, feed_forward).items()}


def more_bits(more: str, fewer: str, layer: int, layers: int) -> str:
    """llama.cpp's choice for what loses most: the first and last eighth of the layers, and every third between."""
    is_chosen = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    return more if is_chosen else fewer


def q4_k_m(values: str = "q4_K") -> Quantization:
    """`values` is what attn_v gets where it does not get more."""
    return Quantization(
        [
            ("output", "q6_K"),
            ("ffn_down*", partial(more_bits, "q6_K", "q4_K")),
            ("attn_v", partial(more_bits, "q6_K", values)),
            ("*", "q4_K"),
        ]
    )


def dynamic(experts: str, shared: str, down: str, more_down: str, more_layers: int) -> Quantization:
    """Unsloth's dynamic mixes of DeepSeek-R1: few bits for the experts, with more in the first layers' ffn_down."""
    return Quantization(
        [
            ("ffn_down_exps", lambda layer, _: more_down if layer < more_layers else down),
            ("ffn_*_exps", experts),
            ("ffn_down*", "q6_K"),
            ("ffn_*_shexp", shared),
            ("attn_k*", "q6_K"),
            ("attn_v*", "q6_K"),
            ("output", "q6_K"),
            ("*", "q4_K"),
        ]
    )


Q8_0, F16, Q4_K_M = Quantization([("*", "q8_0")]), Quantization([("*", "f16")]), q4_k_m()
DEEPSEEK = {
    "q8_0": Q8_0,
    "q4_k_m": Q4_K_M,
    "ud-q2_k_xl": dynamic("q2_K", "q4_K", "q2_K", "q3_K", 6),
    "ud-iq1_m": dynamic("iq1_m", "q5_K", "iq2_xs", "iq2_xs", 0),
    "ud-iq1_s": dynamic("iq1_s", "q5_K", "iq1_s", "iq2_xxs", 9),
}
LLAMA_8B, LLAMA_70B = llama(32, 4096, 32, 14336), llama(80, 8192, 64, 28672)

# name -> what it is made of. In the January 2025 layout attn_kv_b takes llama.cpp's plain q4_K, as published then.
MODELS: dict[str, tuple[Architecture, Quantization]] = {
    **{
        f"deepseek-r1-{layout}-{name}": (deepseek_r1(layout), quantization)
        for layout in ("mha", "mla")
        for name, quantization in DEEPSEEK.items()
    },
    "llama-3.1-8b-q4_k_m": (LLAMA_8B, Q4_K_M),
    "llama-3.1-8b-f16": (LLAMA_8B, F16),
    # llama.cpp gives the few values of a 70B q5_K where others get q4_K.
    "llama-3.3-70b-q4_k_m": (LLAMA_70B, q4_k_m("q5_K")),
    "llama-3.3-70b-q8_0": (LLAMA_70B, Q8_0),
    "qwen2.5-32b-q4_k_m": (qwen2_5_32b(), Q4_K_M),
    "qwen3-32b-q4_k_m": (qwen3(64, 5120, 64, 25600), Q4_K_M),
    "qwen3-0.6b-q8_0": (qwen3(28, 1024, 16, 3072, has_output=False), Q8_0),
    "gemma-3-27b-q4_k_m": (gemma3_27b(), Q4_K_M),
    "mixtral-8x7b-q4_k_m": (mixtral_8x7b(), Q4_K_M),
    "qwen3-235b-a22b-q4_k_m": (qwen3_moe(94, 4096, 64, 12288, 1536), Q4_K_M),
    "qwen3-30b-a3b-q4_k_m": (qwen3_moe(48, 2048, 32, 6144, 768), Q4_K_M),
}


def model(name: str) -> Model:
    """The model of that name in MODELS."""
    architecture, quantization = MODELS[name]
    layers = architecture.layers

    def tensor(prefix: str, name: str, dims: tuple[int, ...], layer: int) -> Tensor:
        suffix = "" if "." in name else ".bias" if name == "exp_probs_b" else ".weight"
        return Tensor(prefix + name + suffix, dims, quantization.choose(name, dims, layer, layers))

    tensors = [tensor("", name, dims, 0) for name, dims in architecture.whole.items()]
    for layer in range(layers):
        tensors += [tensor(f"blk.{layer}.", name, dims, layer) for name, dims in architecture.layer(layer).items()]
    return Model([*architecture.entries, _entry("general.name", name)], tensors)


def header(name: str) -> bytes:
    """All that stands before the data, with the padding."""
    return model(name).header


def write(name: str, folder: Path) -> Path:
    """The file in its full length, with a hole in place of the data."""
    told = header(name)
    path = folder / f"{name}.gguf"
    with path.open("wb") as file:
        file.write(told)
        file.truncate(len(told) + gguf.padded(gguf.from_bytes(told).data_size))
    return path


def main() -> None:
    """Write some, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(MODELS)}; without, all")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or MODELS:
        path = write(name, arguments.folder)
        print(f"{path}  {path.stat().st_size} bytes, {path.stat().st_size / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
