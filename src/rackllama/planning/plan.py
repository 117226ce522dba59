"""A plan: whether a model fits on given hardware, which layer goes where, and what an engine is to be told."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rackllama.planning.fit import Way
from rackllama.planning.serving import Placement, Serving

MIB = 2**20
FlashAttention = Literal["on", "off", "auto"]


@dataclass(frozen=True)
class Reserve:
    """MiB that are left alone: on each GPU a margin (that of llama.cpp's own --fit-target) and what CUDA takes for
    itself, and on the host what everything else needs. Not measured here: each can be set.
    """

    margin_mib: int = 1024
    context_mib: int = 450
    host_mib: int = 2048

    @property
    def gpu_mib(self) -> int:
        """What is left alone on each GPU."""
        return self.margin_mib + self.context_mib


@dataclass(frozen=True)
class Wanted:
    """What a plan is asked for beside model and hardware. `context` is of each slot, None for the default.

    With `is_classic` whole layers only, without flash attention unless it is asked for: what a Modelfile can tell.
    `num_gpu` and `experts_on_host` are chosen by the plan unless given here. Depth is how many tokens of context are
    there already when speed is foretold.
    """

    context: int | None = None
    parallel: int = 1
    key_type: str = "f16"
    value_type: str = "f16"
    flash_attention: FlashAttention = "auto"
    micro_batch: int = 512
    is_classic: bool = False
    num_gpu: int | None = None
    experts_on_host: int | None = None
    depth: int = 512
    reserve: Reserve = field(default_factory=Reserve)


@dataclass(frozen=True)
class DevicePlan:
    """One GPU, or the host: MiB in all, of each kind, and left alone.

    `cuda_only_mib` is the part of `compute_mib` that only CUDA's way of working needs, for copies of the host's weights
    and of inputs: by llama.cpp's source, not measured here. `free_mib` is what is left besides the reserve, below 0
    where it does not fit; None of a host whose memory nobody told.
    """

    name: str
    total_mib: int | None
    weights_mib: int
    kv_mib: int
    compute_mib: int
    cuda_only_mib: int
    reserved_mib: int
    free_mib: int | None
    layers: int


@dataclass(frozen=True)
class Landing:
    """What bringing the model takes: bytes, bytes of disk at the peak, and seconds where the rates are known."""

    bytes: int
    peak_disk_bytes: int
    seconds: float | None


@dataclass(frozen=True)
class Rate:
    """Tokens a second: the likely one, and the band around it."""

    low: float
    mid: float
    high: float


@dataclass(frozen=True)
class Plan:
    """The answer. `reasons` tell in words why it is so, and `remedies` the nearest changes that fit where it does not.

    `doubts` tell why it is only approximate: none where it is exact. `max_context` is what the same placement has room
    for, in tokens of each slot. `users` are how many can be served at once at an acceptable and a comfortable rate.
    """

    model: str
    architecture: str
    hardware: str
    fits: bool
    way: Way
    serving: Serving
    placement: Placement
    max_context: int
    devices: tuple[DevicePlan, ...]
    host: DevicePlan
    swap_mib: int
    settings: Mapping[str, Mapping[str, Any]]
    decode_tok_s: Rate | None
    rating: str | None
    users: Mapping[str, int]
    load_seconds: float | None
    landing: Landing
    cost_per_hour: float | None
    reasons: tuple[str, ...]
    remedies: tuple[str, ...]
    doubts: tuple[str, ...]
    explanation: tuple[str, ...] = ()
    unserved_layers: int = 0

    @property
    def num_gpu(self) -> int:
        """As llama.cpp counts: the layers on GPUs, with the output as one more, and those that only foretell tokens."""
        layers = self.placement.gpu_layers
        return layers + self.unserved_layers if layers else 0

    @property
    def is_approximate(self) -> bool:
        """Whether something about it is a guess."""
        return bool(self.doubts)

    def as_data(self) -> dict[str, Any]:
        """Plain data, as `--json` and the roles have it: docs/planning.md tells each field."""
        data = asdict(self)
        return {
            **data,
            "way": self.way.value,
            "num_gpu": self.num_gpu,
            "is_approximate": self.is_approximate,
            "placement": {
                "layers": list(self.placement.layers),
                "experts_on_host": self.placement.experts_on_host,
            },
        }
