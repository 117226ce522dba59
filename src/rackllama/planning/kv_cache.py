"""The cache of keys and values: what each layer holds of each token."""

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.gguf import TENSOR_TYPES, TensorType
from rackllama.planning.serving import CELLS_MULTIPLE, Serving
from rackllama.planning.shape import ModelShape

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
_BY_NAME = {stored.name: stored for stored in TENSOR_TYPES.values()}


def cache_type(name: str) -> TensorType:
    """How a cache of this type is stored. Raises RackllamaError naming those that there are."""
    if name not in CACHE_TYPES:
        raise RackllamaError(f"there is no cache of type {name!r}", f"choose one of {', '.join(CACHE_TYPES)}")
    return _BY_NAME[name]


def elements(shape: ModelShape, layer: int) -> tuple[int, int]:
    """How many elements of keys and of values a layer holds of each token."""
    if shape.mla is not None:
        return shape.mla.lora + shape.mla.rope, 0
    heads = shape.kv_heads[layer]
    return heads * shape.key_length, heads * shape.value_length


def cells(shape: ModelShape, layer: int, serving: Serving) -> int:
    """How many tokens a layer holds of each stream. One that sees a window needs that, and what comes in at once."""
    if not shape.windowed[layer]:
        return serving.cells
    slots = serving.parallel if serving.unified else 1
    wanted = min(serving.cells, shape.window * slots + serving.tokens)
    return wanted + -wanted % CELLS_MULTIPLE


def token_bytes(shape: ModelShape, layer: int, serving: Serving) -> int:
    """Bytes that a layer holds of each token: rows of keys and of values."""
    keys, values = elements(shape, layer)
    key, value = cache_type(serving.key_type), cache_type(serving.value_type)
    return keys // key.block * key.size + values // value.block * value.size


def layer_bytes(shape: ModelShape, layer: int, serving: Serving) -> int:
    """Bytes of a layer's cache, of all streams."""
    return token_bytes(shape, layer, serving) * cells(shape, layer, serving) * serving.streams


def check(shape: ModelShape, serving: Serving) -> None:
    """Raise RackllamaError where llama.cpp would refuse this cache, or could not store it."""
    key, value = cache_type(serving.key_type), cache_type(serving.value_type)
    if shape.mla is not None and key != value:
        raise RackllamaError(
            f"keys cached as {key.name} and values as {value.name}, where this model has both in one",
            f"cache both as {key.name}",
        )
    if value.block > 1 and not serving.flash_attention:
        raise RackllamaError(
            f"values cached as {value.name} need flash attention",
            "switch flash attention on, or cache values as f16",
        )
    for layer in range(shape.layers):
        for what, stored, row in zip(("keys", "values"), (key, value), elements(shape, layer), strict=True):
            if row % stored.block:
                raise RackllamaError(
                    f"the {what} of a layer are {row} elements a token, which {stored.name} cannot hold",
                    "cache them as f16",
                )
