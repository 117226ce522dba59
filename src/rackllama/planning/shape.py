"""What a plan needs to know of a model: read from its GGUF header, without a byte of its weights."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.gguf import Header, TensorInfo

_MATRIX = 2
_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
# The experts' own weights, which `--n-cpu-moe` moves: neither the router's nor the shared expert's.
_EXPERTS = re.compile(r"ffn_(gate|up|down|gate_up)_exps\.")
# Where the header is silent: in one layer of so many a token sees all before it, in the others a window.
_WINDOW_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "llama4": 4}
# Where the header is silent, what the experts give is weighed by shares that add up to one; but for these.
_UNNORMALISED = ("deepseek2", "qwen2moe")
# Of Mamba and its relatives, RWKV, and convolutions.
_OTHER_STATES = re.compile(r"\.(ssm_|time_mix_|shortconv)")
# What tests compare with llama.cpp's own dry run.
TESTED_ARCHITECTURES = ("deepseek2", "gemma3", "llama", "qwen2", "qwen3", "qwen3moe")


@dataclass(frozen=True)
class Mla:
    """Multi-head latent attention: what is cached of a token is one vector of `lora + rope` elements, for all heads.

    `key_length` and `value_length` are those of a head once unfolded.
    """

    lora: int
    rope: int
    key_length: int
    value_length: int


@dataclass(frozen=True)
class LayerWeights:
    """Bytes of one layer's weights, without padding."""

    experts: int
    others: int

    @property
    def all(self) -> int:
        """Both together."""
        return self.experts + self.others


@dataclass(frozen=True)
class ModelShape:
    """A model as its header tells it. Tuples have one item a layer; lengths count elements, contexts tokens.

    `folded_attention` is how old files of DeepSeek's have it: folded weights that are unfolded for each token, and so
    whole keys and values in the cache. `window` is 0 where each token sees all before it; else only layers that are
    not in `windowed` do. `unserved_layers` come behind the others, only foretell tokens, and are not loaded.
    """

    name: str
    architecture: str
    layers: int
    embedding: int
    vocabulary: int
    trained_context: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    rope: int
    experts: int = 0
    experts_used: int = 0
    shared_experts: int = 0
    expert_weights_norm: bool = True
    expert_weights_scale: float = 0.0
    window: int = 0
    windowed: tuple[bool, ...] = ()
    mla: Mla | None = None
    folded_attention: bool = False
    unserved_layers: int = 0
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def layer_weights(self) -> tuple[LayerWeights, ...]:
        """The weights of each layer, in bytes."""
        experts, others = [0] * self.layers, [0] * self.layers
        for name, tensor in self.tensors.items():
            match = _LAYER.fullmatch(name)
            if match and int(match[1]) < self.layers:
                (experts if self.is_experts(match[2]) else others)[int(match[1])] += tensor.size
        return tuple(LayerWeights(*both) for both in zip(experts, others, strict=True))

    @cached_property
    def layer_tensors(self) -> tuple[Mapping[str, TensorInfo], ...]:
        """The tensors of each layer, by the name that they have within it: `attn_q.weight`."""
        found: list[dict[str, TensorInfo]] = [{} for _ in range(self.layers)]
        for name, tensor in self.tensors.items():
            match = _LAYER.fullmatch(name)
            if match and int(match[1]) < self.layers:
                found[int(match[1])][match[2]] = tensor
        return tuple(found)

    @cached_property
    def outer_tensors(self) -> tuple[TensorInfo, ...]:
        """The tensors that belong to no layer."""
        return tuple(tensor for name, tensor in self.tensors.items() if not _LAYER.fullmatch(name))

    @staticmethod
    def is_experts(name: str) -> bool:
        """Whether a tensor of this name in a layer holds the experts themselves."""
        return _EXPERTS.match(name) is not None

    @property
    def is_tested(self) -> bool:
        """Whether what computing takes was compared with llama.cpp for models of this architecture."""
        return self.architecture in TESTED_ARCHITECTURES

    @property
    def is_moe(self) -> bool:
        """Whether some of its layers have experts of which a token uses only a few."""
        return any(weights.experts for weights in self.layer_weights)

    @property
    def ties_embedding(self) -> bool:
        """Whether the token embedding is the output matrix as well: it is then held twice, where tokens come in and
        where they go out."""
        return "output.weight" not in self.tensors

    @property
    def input_weights(self) -> int:
        """Bytes of the token embedding, which always stays on the host."""
        return self.tensors["token_embd.weight"].size

    @property
    def output_weights(self) -> int:
        """Bytes of all that stands outside the layers, without the token embedding where that is not the output."""
        outside = sum(tensor.size for tensor in self.outer_tensors if tensor.name != "token_embd.weight")
        return outside + (self.input_weights if self.ties_embedding else 0)

    @property
    def weights(self) -> int:
        """Bytes of all weights, each once."""
        return sum(tensor.size for tensor in self.tensors.values())


def read_shape(headers: Header | Sequence[Header]) -> ModelShape:
    """The shape of the model of which these are the header, or its shards' headers in order.

    Raises RackllamaError naming the key that is missing or cannot be.
    """
    shards = [headers] if isinstance(headers, Header) else headers
    first = _Metadata(shards[0])
    tensors = {tensor.name: tensor for shard in shards for tensor in shard.tensors}
    if "token_embd.weight" not in tensors:
        raise RackllamaError(
            "this GGUF has no token embedding, and so is no model that answers",
            "plan for the model itself: a projector or an adapter is planned with none",
        )
    embedding_tensor = tensors["token_embd.weight"]
    unserved = first.number("nextn_predict_layers", 0)
    layers = first.number("block_count") - unserved
    _refuse_other_states(first.architecture, tensors)
    _check_layers(layers + unserved, unserved, tensors)
    heads = first.per_layer("attention.head_count", layers)
    embedding = first.number("embedding_length")
    if embedding_tensor.dims[:1] != (embedding,) or len(embedding_tensor.dims) < _MATRIX:
        raise RackllamaError(
            f"the token embedding is {embedding_tensor.dims}, where embedding_length is {embedding}",
            "choose another file of this model",
        )
    head_length = embedding // max(heads) if max(heads) else 0
    key_length = first.number("attention.key_length", head_length)
    value_length = first.number("attention.value_length", head_length)
    rope = first.number("rope.dimension_count", key_length)
    mla = _mla(first, rope)
    window = first.number("attention.sliding_window", 0)
    experts, used = first.number("expert_count", 0), first.number("expert_used_count", 0)
    if not min(experts, 1) <= used <= experts:
        raise RackllamaError(
            f"of {experts} experts the header lets a token use {used}", "choose another file of this model"
        )
    return ModelShape(
        name=str(first.header.get("general.name", "")),
        architecture=first.architecture,
        layers=layers,
        embedding=embedding,
        vocabulary=embedding_tensor.dims[1],
        trained_context=first.number("context_length"),
        heads=heads,
        kv_heads=first.per_layer("attention.head_count_kv", layers, heads),
        key_length=key_length,
        value_length=value_length,
        rope=rope,
        experts=experts,
        experts_used=used,
        shared_experts=first.number("expert_shared_count", 0),
        expert_weights_norm=bool(
            first.header.get(f"{first.architecture}.expert_weights_norm", first.architecture not in _UNNORMALISED)
        ),
        expert_weights_scale=first.real("expert_weights_scale", 0.0),
        window=window,
        windowed=_windowed(first, layers, window),
        mla=mla,
        folded_attention=mla is None and "blk.0.attn_kv_b.weight" in tensors,
        unserved_layers=unserved,
        tensors=tensors,
    )


def _check_layers(told: int, unserved: int, tensors: Iterable[str]) -> None:
    """The header has to tell of as many layers as there are tensors of."""
    there = {int(match[1]) for match in map(_LAYER.fullmatch, tensors) if match}
    served = told - unserved
    if served < 1 or served > len(there) or max(there) >= told or not set(range(served)) <= there:
        raise RackllamaError(
            f"the header tells of {told} layers, and there are tensors of {len(there)}",
            "give all shards of the model, or choose another file of it",
        )


def _refuse_other_states(architecture: str, tensors: Iterable[str]) -> None:
    """What a model remembers in another way than by keys and values is not known to any plan here."""
    other = next((name for name in tensors if _OTHER_STATES.search(name)), None)
    if other is not None:
        raise RackllamaError(
            f"{architecture} keeps a state besides keys and values ({other}), for which there is no plan",
            "let llama.cpp itself find what fits: llama-server --fit on",
        )


class _Metadata:
    """A header's metadata, asked by names without the architecture before them."""

    def __init__(self, header: Header) -> None:
        self.header = header
        architecture = header.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise RackllamaError(
                "this GGUF does not tell its architecture", "choose a file of this model that llama.cpp can serve"
            )
        self.architecture = architecture

    def get(self, key: str, default: object = None) -> Any:
        """The value of that key."""
        return self.header.get(f"{self.architecture}.{key}", default)

    def real(self, key: str, default: float) -> float:
        """A number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._no_number(key, value)
        return float(value)

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number that is not below 0."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        return self._whole(key, value)

    def per_layer(self, key: str, layers: int, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A whole number for each layer, of which a header may have one for all."""
        value = self.get(key)
        if value is None and default is not None:
            return tuple(default)
        if not isinstance(value, Iterable) or isinstance(value, str):
            return (self._whole(key, value),) * layers
        values = tuple(self._whole(key, item) for item in value)
        if len(values) < layers:
            raise RackllamaError(
                f"{self.architecture}.{key} tells of {len(values)} layers, and there are {layers}",
                "choose another file of this model",
            )
        return values[:layers]

    def _whole(self, key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._no_number(key, value)
        return value

    def _no_number(self, key: str, value: object) -> RackllamaError:
        return RackllamaError(
            f"{self.architecture}.{key} is {value!r} in this GGUF, and a plan needs it as another number",
            "choose another file of this model",
        )


def _mla(told: _Metadata, rope: int) -> Mla | None:
    """Only files that have key_length_mla have the weights that spare the unfolding."""
    if told.get("attention.key_length_mla") is None:
        return None
    return Mla(
        lora=told.number("attention.kv_lora_rank"),
        rope=rope,
        key_length=told.number("attention.key_length_mla"),
        value_length=told.number("attention.value_length_mla"),
    )


def _windowed(told: _Metadata, layers: int, window: int) -> tuple[bool, ...]:
    """Which layers see a window only: as told one by one, or as the architecture has it."""
    if not window:
        return (False,) * layers
    pattern = told.get("attention.sliding_window_pattern")
    if isinstance(pattern, Iterable):
        return tuple(bool(layer) for layer in told.per_layer("attention.sliding_window_pattern", layers))
    every = pattern if isinstance(pattern, int) and pattern else _WINDOW_PATTERNS.get(told.architecture, 0)
    return tuple(every > 0 and layer % every < every - 1 for layer in range(layers))
