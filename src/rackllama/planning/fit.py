"""Where a model's layers go on given devices: the first way that fits, in an order of preference that is told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import accumulate, pairwise

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
    """A placement, and what it takes of each GPU, and of the host last; `missing` bytes of it have no room."""

    way: Way
    placement: Placement
    held: tuple[DeviceMemory, ...]
    missing: int

    @property
    def fits(self) -> bool:
        """Whether each device has room for its part."""
        return self.missing == 0

    @property
    def computing(self) -> list[int]:
        """Bytes that computing takes on each GPU."""
        return [device.compute for device in self.held[:-1]]


@dataclass(frozen=True)
class Search:
    """A model to be placed: its shape, how it is served, and the room there is for it.

    `known` is what placements were found to hold. A search that replaces another's room or serving shares it.
    """

    shape: ModelShape
    serving: Serving
    room: Room
    known: dict[tuple[Serving, Placement, Devices], tuple[DeviceMemory, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def best(self, is_classic: bool = False) -> Fit:
        """The first way that fits; or, where none does, the one that fails by the least.

        With `is_classic` whole layers only, shared out as llama.cpp does it itself: all that a Modelfile can tell.
        """
        failed: list[Fit] = []
        for try_way in self._ways(is_classic):
            found = try_way()
            if found is not None and found.fits:
                return found
            failed += [] if found is None else [found]
            if found is not None and found.way is not Way.ON_GPUS and not self.may_fit():
                break  # no other way fits either, nor lacks less
        return min(failed, key=lambda fit: fit.missing)

    def may_fit(self) -> bool:
        """Whether weights and cache alone have room, in whatever way: quickly told, and nothing fits without it."""
        room, shape = self.room, self.shape
        if room.host is None or room.is_unified:
            return room.all is None or sum(layer_costs(shape, self.serving, 0)) <= room.all
        costs = layer_costs(shape, self.serving, 0)
        most = largest(lambda layers: _filled(costs[-layers:], room.gpus) is not None, len(costs))
        if sum(costs[: len(costs) - most]) <= room.host:
            return True

        def fits_without_experts_of(layers: int) -> bool:
            return _filled(layer_costs(shape, self.serving, layers), room.gpus) is not None

        experts = [weights.experts for weights in shape.layer_weights]
        stay = shape.layers - largest(lambda kept: fits_without_experts_of(shape.layers - kept), shape.layers)
        return shape.is_moe and fits_without_experts_of(stay) and sum(experts[:stay]) <= room.host

    def measure(self, placement: Placement) -> Fit:
        """What a placement takes, to the byte, and what of it has no room."""
        held = self._held(placement)
        missing = sum(max(0, device.all - size) for device, size in zip(held[:-1], self.room.gpus, strict=True))
        if self.room.host is not None:
            on_host = total(held) if self.room.is_unified else held[-1].all
            missing += max(0, on_host - self.room.host)
        return Fit(way_of(self.shape, placement), placement, held, missing)

    def largest_context(self, placement: Placement) -> int:
        """The most tokens of context, of all slots together, that a placement has room for; 0 where it has for none."""
        step = CELLS_MULTIPLE * self.serving.streams
        longest = -(-self.shape.trained_context * (self.serving.parallel // self.serving.streams) // CELLS_MULTIPLE)

        def at(steps: int) -> Fit:
            return replace(self, serving=replace(self.serving, context=steps * step)).measure(placement)

        now, asked = self.measure(placement), min(self.serving.context // step, longest)
        low = (asked, now) if asked and now.fits else (1, at(1))
        high = (longest, at(longest))
        if high[1].fits or not low[1].fits:
            return longest * step if high[1].fits else 0
        tries = 0
        while high[0] - low[0] > 1:
            # What devices hold grows nearly evenly; where it does not, halves get there.
            tries += 1
            steps = (low[0] + high[0]) // 2 if tries % 4 == 0 else self._where_full(low, high)
            tried = at(steps)
            low, high = ((steps, tried), high) if tried.fits else (low, (steps, tried))
        return low[0] * step

    def _where_full(self, low: tuple[int, Fit], high: tuple[int, Fit]) -> int:
        """Between steps that fit and that do not: where a device is full if what it holds grows evenly."""
        sizes = [*self.room.gpus, self.room.host or 0]
        parts = [
            (size - least.all) / (most.all - least.all)
            for size, least, most in zip(sizes, low[1].held, high[1].held, strict=True)
            if size and most.all > max(size, least.all)
        ]
        steps = low[0] + int((high[0] - low[0]) * min(parts, default=0.5))
        return max(low[0] + 1, min(steps, high[0] - 1))

    def _held(self, placement: Placement) -> tuple[DeviceMemory, ...]:
        devices = self.room.devices(self.shape, placement)
        found = self.known.get((self.serving, placement, devices))
        if found is None:
            found = tuple(memory(self.shape, self.serving, placement, devices))
            self.known[self.serving, placement, devices] = found
        return found

    def spread(self, layers: int, experts_on_host: int = 0, computing: Sequence[int] = ()) -> Fit:
        """So many layers on the GPUs, each filled to the same part of its room.

        What computing takes follows from the placement, which hangs on that: so it is measured until both agree.
        `computing` is what it took on each GPU in a placement much like it.
        """
        near = self._shared(computing, layers, experts_on_host)[0] if computing else by_shares(layers, self.room.gpus)
        found = self.measure(Placement(near, experts_on_host))
        computing = found.computing
        for _ in range(ROUNDS):
            counts, _ = self._shared(computing, layers, experts_on_host)
            if counts == found.placement.layers:
                break
            tried = self.measure(Placement(counts, experts_on_host))
            computing = [max(both) for both in zip(computing, tried.computing, strict=True)]
            if tried.missing <= found.missing:
                found = tried
        return found

    def _ways(self, is_classic: bool) -> Iterator[Callable[[], Fit | None]]:
        if self.room.gpus and is_classic:
            yield self._classic
        elif self.room.gpus:
            whole_may_fit = _filled(layer_costs(self.shape, self.serving, 0), self.room.gpus) is not None
            has_experts_to_leave = self.shape.is_moe and not self.room.is_unified
            if whole_may_fit or not has_experts_to_leave:
                yield lambda: self.spread(self.shape.layers + 1)
            if has_experts_to_leave:
                yield self._experts_on_host
            yield self._layers_on_host
        yield lambda: self.measure(Placement((0,) * len(self.room.gpus)))

    def _experts_on_host(self) -> Fit:
        """The fewest layers whose experts have to stay on the host, from the first on, as `--n-cpu-moe` counts."""
        everything = self.shape.layers + 1
        computing = self._computing_of(everything, self.shape.layers)
        kept = largest(lambda kept: self._shared(computing, everything, self.shape.layers - kept)[1], self.shape.layers)
        for stay in range(self.shape.layers - kept, self.shape.layers + 1):
            found = self.spread(everything, stay, computing)
            if not self._gpus_are_short(found):
                break
            computing = found.computing
        # What computing takes was first measured with all experts on the host, where it may be more.
        while (stay := found.placement.experts_on_host - 1) and self._shared(found.computing, everything, stay)[1]:
            tried = self.spread(everything, stay, found.computing)
            if self._gpus_are_short(tried):
                break
            found = tried
        return found

    def _layers_on_host(self) -> Fit | None:
        """The most layers that the GPUs have room for, the last of the model."""
        computing = self._computing_of(max(1, self.shape.layers // 2))
        most = max(1, largest(lambda layers: self._shared(computing, layers, 0)[1], self.shape.layers))
        down = (self.spread(layers, computing=computing) for layers in range(most, 0, -1))
        found = next((fit for fit in down if not self._gpus_are_short(fit)), None)
        if found is None:
            return None
        while (layers := found.placement.gpu_layers + 1) <= self.shape.layers:
            has_room = self._shared(found.computing, layers, 0)[1]
            tried = self.spread(layers, computing=found.computing) if has_room else None
            if tried is None or self._gpus_are_short(tried):
                break
            found = tried
        return found

    def _computing_of(self, layers: int, experts_on_host: int = 0) -> list[int]:
        """What computing takes on each GPU, told by a placement that need not fit."""
        return self.measure(Placement(by_shares(layers, self.room.gpus), experts_on_host)).computing

    def _classic(self) -> Fit | None:
        """The most layers that fit when they are shared out by the GPUs' free memory.

        What computing takes in one try tells how many layers to try next, so that few tries do.
        """
        found: Fit | None = None
        limit = self.shape.layers + 1
        layers = self._most_classic([0] * len(self.room.gpus), limit)
        while layers > (found.placement.gpu_layers if found else 0):
            tried = self.measure(Placement(by_shares(layers, self.room.gpus)))
            if self._gpus_are_short(tried):
                limit = layers - 1
            else:
                found = tried
            layers = self._most_classic(tried.computing, limit)
        return found

    def _most_classic(self, computing: Sequence[int], limit: int) -> int:
        """The most layers, up to a limit, that have room beside so many bytes of computing on each GPU."""
        costs = layer_costs(self.shape, self.serving, 0)

        def have_room(layers: int) -> bool:
            counts = by_shares(layers, self.room.gpus)
            ends = list(accumulate(counts, initial=len(costs) - layers))
            parts = (sum(costs[begin:end]) for begin, end in pairwise(ends))
            return all(sum(held) <= size for *held, size in zip(parts, computing, self.room.gpus, strict=True))

        return largest(have_room, limit)

    def _shared(self, computing: Sequence[int], layers: int, experts_on_host: int) -> tuple[tuple[int, ...], bool]:
        """How many layers each GPU gets, the fullest as empty as can be, and whether they have room for them.

        `computing` are the bytes that computing takes on each.
        """
        costs = layer_costs(self.shape, self.serving, experts_on_host)[-layers:]
        sizes = [max(0, size - taken) for size, taken in zip(self.room.gpus, computing, strict=True)]
        whole = _filled(costs, sizes)
        if whole is None:
            return by_shares(layers, self.room.gpus), False
        low, high, best = 0.0, 1.0, whole
        for _ in range(FULLNESS_STEPS):
            middle = (low + high) / 2
            tried = _filled(costs, [size * middle for size in sizes])
            low, high, best = (middle, high, best) if tried is None else (low, middle, tried)
        return best, True

    def _gpus_are_short(self, fit: Fit) -> bool:
        return any(device.all > size for device, size in zip(fit.held[:-1], self.room.gpus, strict=True))


def way_of(shape: ModelShape, placement: Placement) -> Way:
    """Which way a placement is."""
    if placement.gpu_layers == 0:
        return Way.ON_HOST
    if placement.gpu_layers <= shape.layers:
        return Way.LAYERS_ON_HOST
    return Way.EXPERTS_ON_HOST if placement.experts_on_host else Way.ON_GPUS


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


def largest(holds: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` for which something holds that holds for all below; 0 where for none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
