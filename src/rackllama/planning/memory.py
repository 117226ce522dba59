"""What each device holds of a model that is served: weights, cache, and what computing needs, in bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from rackllama.host.lander.gguf import TENSOR_TYPES, TensorInfo
from rackllama.planning import kv_cache
from rackllama.planning.compute import compute_bytes
from rackllama.planning.graph.scheduler import Devices
from rackllama.planning.serving import HOST, Placement, Serving
from rackllama.planning.shape import ModelShape

# Every layer that turns positions has these at hand, so that each device with layers holds them.
SHARED_BY_LAYERS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
# A processor with AVX2 multiplies with these in another order, in which they are then held; rows of them are looked up
# in their own.
REPACKED = ("q4_0", "q4_K", "iq4_nl", "mxfp4")


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device, and how many layers it has: the output behind the last one counts as a layer of its GPU."""

    weights: int
    cache: int
    compute: int
    layers: int

    @property
    def all(self) -> int:
        """All of it together."""
        return self.weights + self.cache + self.compute


def memory(
    shape: ModelShape, serving: Serving, placement: Placement, devices: Devices, is_dry_run: bool = False
) -> list[DeviceMemory]:
    """What each GPU holds, and the host last. `is_dry_run` as in `compute_bytes`."""
    compute = compute_bytes(shape, serving, placement, devices, is_dry_run)
    weights = weight_bytes(shape, placement, devices)
    cache = cache_bytes(shape, serving, placement)
    layers = [*placement.layers, shape.layers + 1 - placement.gpu_layers]
    return [DeviceMemory(*each) for each in zip(weights, cache, compute, layers, strict=True)]


def weight_bytes(shape: ModelShape, placement: Placement, devices: Devices) -> list[int]:
    """Bytes of the weights on each GPU, and on the host last: each tensor from a multiple of the device's alignment."""
    where = placement.devices(shape.layers)
    gpus, host = len(placement.layers), len(placement.layers)
    held = [0] * (gpus + 1)

    def hold(device: int, tensor: TensorInfo) -> None:
        number = host if device == HOST else device
        held[number] += devices.stored(tensor, number)

    for layer, tensors in enumerate(shape.layer_tensors):
        for name, tensor in tensors.items():
            stays = layer < placement.experts_on_host and shape.is_experts(name)
            hold(HOST if stays else where[layer], tensor)
    for tensor in shape.outer_tensors:
        if tensor.name in SHARED_BY_LAYERS:
            for device in set(where[:-1]):
                hold(device, tensor)
        elif tensor.name == "token_embd.weight":
            hold(HOST, tensor)
            if shape.ties_embedding and (where[-1] != HOST or TENSOR_TYPES[tensor.type].name in REPACKED):
                hold(where[-1], tensor)
        else:
            hold(where[-1], tensor)
    return held


def cache_bytes(shape: ModelShape, serving: Serving, placement: Placement) -> list[int]:
    """Bytes of the cache on each GPU, and on the host last: a layer's cache is where the layer is."""
    held = [0] * (len(placement.layers) + 1)
    for layer, device in enumerate(placement.devices(shape.layers)[:-1]):
        held[device] += kv_cache.layer_bytes(shape, layer, serving)
    return held


def layer_costs(shape: ModelShape, serving: Serving, experts_on_host: int) -> list[int]:
    """Bytes of weights and cache that each layer brings to its device, and those behind the last layer; not padded."""
    costs = [
        (weights.others if layer < experts_on_host else weights.all) + kv_cache.layer_bytes(shape, layer, serving)
        for layer, weights in enumerate(shape.layer_weights)
    ]
    return [*costs, shape.output_weights]


def total(devices: Sequence[DeviceMemory]) -> int:
    """All bytes on all devices."""
    return sum(device.all for device in devices)
