"""Where a model's layers go on given devices: the first way that fits, in an order of preference that is told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from rackllama.planning.graph.scheduler import Devices
from rackllama.planning.memory import DeviceMemory, layer_costs, memory, total
from rackllama.planning.serving import CELLS_MULTIPLE, Placement, Serving, by_shares
from rackllama.planning.shape import ModelShape

# A placement is chosen by what computing took in the one before: so often it may have changed.
ROUNDS = 4
FULLNESS_STEPS = 24


class Way(Enum):
    """How a model is spread, the best first."""

    ON_GPUS = "all layers on GPUs"
    EXPERTS_ON_HOST = "all layers on GPUs, the experts of some on the host"
    LAYERS_ON_HOST = "some layers on GPUs, the others on the host"
    ON_HOST = "all on the host"


@dataclass(frozen=True)
class Room:
    """Bytes that may be used on each GPU, and on the host: None where nobody told how much it has.

    With `is_unified` what lies on the GPU lies in the host's memory, and both together must fit there. `is_cuda` says
    which rules the GPUs follow.
    """

    gpus: tuple[int, ...]
    host: int | None
    is_unified: bool = False
    is_cuda: bool = True

    @property
    def all(self) -> int | None:
        """All of it together."""
        if self.is_unified:
            return self.host
        return None if self.host is None else sum(self.gpus) + self.host

    def devices(self, shape: ModelShape, placement: Placement) -> Devices:
        """How an engine uses these devices for that placement."""
        if not self.is_cuda:
            return Devices(len(self.gpus))
        in_turns = placement.gpu_layers > shape.layers and not placement.experts_on_host
        return Devices.of_cuda(len(self.gpus), in_turns)


@dataclass(frozen=True)
class Fit:
    """A placement, and what it takes: of each GPU, and of the host last. `missing` is by how many bytes it does not fit."""

    way: Way
    placement: Placement
    held: tuple[DeviceMemory, ...]
    missing: int

    @property
    def fits(self) -> bool:
        """Whether each device has room for its part."""
        return self.missing == 0


def measure(shape: ModelShape, serving: Serving, placement: Placement, room: Room, way: Way) -> Fit:
    """What a placement takes, to the byte, and what of it has no room."""
    held = memory(shape, serving, placement, room.devices(shape, placement))
    missing = sum(max(0, device.all - size) for device, size in zip(held[:-1], room.gpus, strict=True))
    if room.host is not None:
        on_host = total(held) if room.is_unified else held[-1].all
        missing += max(0, on_host - room.host)
    return Fit(way, placement, tuple(held), missing)


def best_fit(shape: ModelShape, serving: Serving, room: Room, is_classic: bool = False) -> Fit:
    """The first way that fits; or, where none does, the one that fails by the least.

    With `is_classic` whole layers only, shared out as llama.cpp does it itself: all that a Modelfile can tell.
    """
    failed: list[Fit] = []
    for try_way in _ways(shape, room, is_classic):
        found = try_way(shape, serving, room)
        if found is not None and found.fits:
            return found
        failed += [] if found is None else [found]
    return min(failed, key=lambda fit: fit.missing)


def largest_context(shape: ModelShape, serving: Serving, room: Room, fit: Fit) -> int:
    """The most tokens of context, of all slots together, that the same placement has room for; 0 where none."""

    def fits(steps: int) -> bool:
        wider = replace(serving, context=steps * CELLS_MULTIPLE * serving.streams)
        return measure(shape, wider, fit.placement, room, fit.way).fits

    longest = -(-shape.trained_context * (1 if serving.unified else serving.parallel) // CELLS_MULTIPLE)
    return _last(fits, longest // serving.streams) * CELLS_MULTIPLE * serving.streams


def _ways(
    shape: ModelShape, room: Room, is_classic: bool
) -> "Iterator[Callable[[ModelShape, Serving, Room], Fit | None]]":
    if room.gpus:
        if is_classic:
            yield _classic
        else:
            yield _on_gpus
            if shape.is_moe and not room.is_unified:
                yield _experts_on_host
            yield _layers_on_host
    yield _on_host


def _on_gpus(shape: ModelShape, serving: Serving, room: Room) -> Fit:
    return _spread(shape, serving, room, shape.layers + 1, 0, Way.ON_GPUS)


def _experts_on_host(shape: ModelShape, serving: Serving, room: Room) -> Fit:
    """The fewest layers whose experts have to stay on the host, from the first layer on, as `--n-cpu-moe` counts."""
    computing = _computing(_spread(shape, serving, room, shape.layers + 1, shape.layers, Way.EXPERTS_ON_HOST))

    def fits(kept: int) -> bool:
        stay = shape.layers - kept
        return _shared(shape, serving, room, computing, shape.layers + 1, stay)[1]

    stay = shape.layers - _last(fits, shape.layers)
    found = _spread(shape, serving, room, shape.layers + 1, stay, Way.EXPERTS_ON_HOST)
    while not found.fits and stay < shape.layers and _gpus_are_short(found, room):
        stay += 1
        found = _spread(shape, serving, room, shape.layers + 1, stay, Way.EXPERTS_ON_HOST)
    return found


def _layers_on_host(shape: ModelShape, serving: Serving, room: Room) -> Fit | None:
    """The most layers that the GPUs have room for, the last of the model."""
    half = max(1, shape.layers // 2)
    computing = _computing(_spread(shape, serving, room, half, 0, Way.LAYERS_ON_HOST))
    layers = _last(lambda count: _shared(shape, serving, room, computing, count, 0)[1], shape.layers)
    while layers:
        found = _spread(shape, serving, room, layers, 0, Way.LAYERS_ON_HOST)
        if found.fits or not _gpus_are_short(found, room):
            return found
        layers -= 1
    return None


def _on_host(shape: ModelShape, serving: Serving, room: Room) -> Fit:
    return measure(shape, serving, Placement((0,) * len(room.gpus)), room, Way.ON_HOST)


def _classic(shape: ModelShape, serving: Serving, room: Room) -> Fit | None:
    """The most layers that fit when they are shared out by the GPUs' free memory."""
    for layers in range(shape.layers + 1, 0, -1):
        way = Way.ON_GPUS if layers > shape.layers else Way.LAYERS_ON_HOST
        placement = Placement(by_shares(layers, room.gpus))
        if not _weights_fit(shape, serving, room, placement):
            continue
        found = measure(shape, serving, placement, room, way)
        if found.fits or not _gpus_are_short(found, room):
            return found
    return None


def _weights_fit(shape: ModelShape, serving: Serving, room: Room, placement: Placement) -> bool:
    """Whether the GPUs have room for weights and cache alone: quickly told, and no without it."""
    costs = layer_costs(shape, serving, placement.experts_on_host)[-placement.gpu_layers :]
    at = 0
    for layers, size in zip(placement.layers, room.gpus, strict=True):
        if sum(costs[at : at + layers]) > size:
            return False
        at += layers
    return True


def _spread(shape: ModelShape, serving: Serving, room: Room, layers: int, experts_on_host: int, way: Way) -> Fit:
    """So many layers on the GPUs, each filled to the same part of its room; measured until what computing takes is known."""
    computing: Sequence[int] = [0] * len(room.gpus)
    best: Fit | None = None
    for _ in range(ROUNDS):
        placement = Placement(_shared(shape, serving, room, computing, layers, experts_on_host)[0], experts_on_host)
        if best is not None and placement == best.placement:
            break
        found = measure(shape, serving, placement, room, way)
        if best is None or found.missing <= best.missing:
            best = found
        if found.fits and found.placement == placement and any(computing):
            break
        computing = [max(old, new) for old, new in zip(computing, _computing(found), strict=True)]
    assert best is not None
    return best


def _shared(
    shape: ModelShape, serving: Serving, room: Room, computing: Sequence[int], layers: int, experts_on_host: int
) -> tuple[tuple[int, ...], bool]:
    """How many layers each GPU gets, so that the fullest is as empty as can be, and whether they have room for them.

    `computing` are the bytes that computing takes on each.
    """
    costs = layer_costs(shape, serving, experts_on_host)[-layers:]
    sizes = [max(0, size - taken) for size, taken in zip(room.gpus, computing, strict=True)]
    fullness = 1.0
    while (counts := _filled(costs, [size * fullness for size in sizes])) is None:
        if fullness > sum(costs) or not any(sizes):
            return by_shares(layers, room.gpus), False
        fullness *= 2
    fits = fullness == 1.0
    low, high = 0.0, fullness
    for _ in range(FULLNESS_STEPS):
        middle = (low + high) / 2
        tried = _filled(costs, [size * middle for size in sizes])
        if tried is None:
            low = middle
        else:
            high, counts = middle, tried
    return counts, fits


def _filled(costs: Sequence[int], sizes: Sequence[float]) -> tuple[int, ...] | None:
    """Layers handed out in order, each device as many as it has room for; None where some are left over."""
    counts, at = [], 0
    for size in sizes:
        begun, taken = at, 0
        while at < len(costs) and taken + costs[at] <= size:
            taken += costs[at]
            at += 1
        counts.append(at - begun)
    return tuple(counts) if at == len(costs) else None


def _computing(fit: Fit) -> list[int]:
    return [device.compute for device in fit.held[:-1]]


def _gpus_are_short(fit: Fit, room: Room) -> bool:
    return any(device.all > size for device, size in zip(fit.held[:-1], room.gpus, strict=True))


def _last(holds: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` for which something holds that holds for all below; 0 where for none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
