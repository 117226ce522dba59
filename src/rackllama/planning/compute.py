"""The memory that computing needs on each device, besides weights and cache: from the model's own graph."""

from collections.abc import Hashable, Sequence
from itertools import groupby

from rackllama.planning.graph.allocator import peaks
from rackllama.planning.graph.models import model_graph
from rackllama.planning.graph.scheduler import Devices, steps
from rackllama.planning.serving import Placement, Serving
from rackllama.planning.shape import ModelShape

# Layers that are alike need the same memory one after another, once holes have settled: after four of them nothing was
# ever seen to change, in random placements.
ENOUGH_ALIKE = 5


def compute_bytes(
    shape: ModelShape, serving: Serving, placement: Placement, devices: Devices, is_dry_run: bool = False
) -> list[int]:
    """Bytes of each GPU's compute buffer, and the host's last.

    With `is_dry_run` as llama.cpp's own `--fit` foretells it, which forgets where norms are pinned.
    """
    graph = model_graph(shape, serving, placement, telling_layers(shape, placement), not is_dry_run)
    leafs, ordered = steps(graph, devices)
    return peaks(leafs, ordered, [devices.alignment_of(device) for device in range(devices.gpus + 1)])


def telling_layers(shape: ModelShape, placement: Placement) -> list[int]:
    """Of each run of layers that are alike and on one device, enough to need as much memory as all of them."""
    devices = placement.devices(shape.layers)

    def looks(layer: int) -> Hashable:
        tensors = tuple((name, tensor.dims) for name, tensor in sorted(shape.layer_tensors[layer].items()))
        return devices[layer], layer < placement.experts_on_host, shape.windowed[layer], tensors

    chosen: list[int] = []
    for _, run in groupby(range(shape.layers), looks):
        alike: Sequence[int] = list(run)
        chosen += alike if len(alike) <= ENOUGH_ALIKE else [*alike[: ENOUGH_ALIKE - 1], alike[-1]]
    return chosen
