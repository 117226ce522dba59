"""How fast a model answers: from the bytes that each device reads for a token to tokens a second, as a band.

One token of one stream goes through the devices one after another, and each reads its part of the weights once; so the
time of a token is a sum, and more GPUs of the same kind do not shorten it. docs/planner-speed.md tells the model, what
it was fitted on, and what it does not know.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Literal

import yaml

from rackllama.host.errors import RackllamaError
from rackllama.planning import kv_cache
from rackllama.planning.hardware import Gpu, Hardware
from rackllama.planning.serving import HOST, Placement, Serving
from rackllama.planning.shape import ModelShape

# Of the engine: llama.cpp (or Ollama with it) until February 2025, which serves DeepSeek's attention unfolded and
# experts slowly; llama.cpp since; ktransformers or ik_llama.cpp.
type Vintage = Literal["old", "new", "kt"]
# Of memory, as far as it decides what is achieved of the bandwidth: CUDA with GDDR, CUDA with HBM, Apple, and a host's.
type MemoryKind = Literal["cuda", "cuda-hbm", "metal", "cpu"]

VINTAGES: tuple[Vintage, ...] = ("old", "new", "kt")
KINDS: tuple[MemoryKind, ...] = ("cuda", "cuda-hbm", "metal", "cpu")

ACCEPTABLE_TOK_S = 6.0
COMFORTABLE_TOK_S = 14.0
type Rating = Literal["slow", "acceptable", "comfortable"]

# What a stream more costs, as a part of reading all that one token uses: arithmetic, which more streams do not share.
# Assumed on the careful side. Published llama.cpp figures: an RTX 4090 computes 8 tokens of an 8B model at once in 1.2
# times the time of one (pull request 15131), that is 0.03; a host with 48 cores reaches 5.6 times the speed of one
# stream in all (the source of T1 in calibration.csv), that is 0.18.
STREAM_COSTS: Mapping[MemoryKind, float] = {"cuda": 0.1, "cuda-hbm": 0.1, "metal": 0.25, "cpu": 0.4}
MOST_STREAMS = 256

# One chain of sha256 with SHA-NI, and the wall time of a landing with published digests on two cores that also served
# the files: 4.1 GB in 2.3 and in 9.1 s (docs/benchmarks.md).
HASH_MBS = 1800.0
LANDER_MBS_OF_A_CORE = 225.0

# Weights that are looked up by token instead of multiplied with: one row of them is read.
_LOOKED_UP = ("per_layer_token_embd.weight",)
# P100, V100, A100, H100 to H200, B200, B300; all others have GDDR, and none of these reaches 1,900 GB/s.
_WITH_HBM = {"6.0", "7.0", "8.0", "9.0", "10.0", "10.3"}
_FASTEST_GDDR_GBS = 1900


@dataclass(frozen=True)
class StreamDevice:
    """One device on a token's way, and what it reads for one token of one stream.

    `weights_bytes` are all but those of experts, of which `expert_bytes` are the ones that a token uses, a part
    `expert_share` of all. `layers` counts those whose attention is computed here, `latent_layers` those of them whose
    cache is latent (MLA), `moe_layers` those whose experts are here, and `visits` those that come for these alone.
    Without `flash_attention` a GPU reads its cache slowly.
    """

    kind: MemoryKind
    bandwidth_gbs: float
    weights_bytes: int
    kv_bytes: int
    layers: int
    expert_bytes: int = 0
    moe_layers: int = 0
    latent_layers: int = 0
    visits: int = 0
    expert_share: float = 1.0
    flash_attention: bool = True
    name: str = ""

    @property
    def bytes(self) -> int:
        """All that is read for one token."""
        return self.weights_bytes + self.expert_bytes + self.kv_bytes


@dataclass(frozen=True)
class Bandwidths:
    """How fast memory is read, theoretically, in GB/s: of each GPU, and of a host's usable domain (where it computes).

    `gpu_kinds` is one for all GPUs, or one for each. None is what nobody told. `bandwidths` has those of a host.
    """

    gpus: tuple[float | None, ...] = ()
    gpu_kinds: MemoryKind | tuple[MemoryKind, ...] = "cuda"
    ram: float | None = None

    def kind(self, gpu: int) -> MemoryKind:
        """The kind of the GPU of that number."""
        return self.gpu_kinds if isinstance(self.gpu_kinds, str) else self.gpu_kinds[gpu]


@dataclass(frozen=True)
class Term:
    """One addend of the time of a token: what it is for, how it came about in words and numbers, and seconds."""

    name: str
    formula: str
    seconds: float


@dataclass(frozen=True)
class Band:
    """Tokens a second: `mid` is the likeliest, and published measurements lie mostly between `low` and `high`."""

    low: float
    mid: float
    high: float
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Users:
    """How many streams at once each get at least `wanted_tok_s`; `each_tok_s` is what they get then.

    Where not even one does, `count` is 0 and `each_tok_s` what it gets.
    """

    wanted_tok_s: float
    count: int
    each_tok_s: float
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Cost:
    """`amount` of what `coefficient` prices: seconds at full bandwidth, layers, or hops from device to device."""

    coefficient: str
    amount: float
    name: str
    formula: str


@dataclass(frozen=True)
class Parameters:
    """The fitted model: seconds by the name of a cost's coefficient, and how far the band reaches by a factor.

    `read.*` are 1 / the achieved part of the bandwidth, all others seconds apiece.
    """

    seconds: Mapping[str, float]
    spread_dense_on_gddr: float
    spread: float


@lru_cache
def fitted() -> Parameters:
    """What stands in speed.yaml, as `python -m tests.bench.speed` writes it."""
    told = yaml.safe_load(resources.files(__package__).joinpath("speed.yaml").read_text())
    efficiencies = {f"read.{name}": 1 / part for name, part in told["achieved_part_of_bandwidth"].items()}
    overheads = {name: milliseconds / 1000 for name, milliseconds in told["milliseconds"].items()}
    spread = told["spread"]
    return Parameters(efficiencies | overheads, spread["dense_on_gddr"], spread["otherwise"])


def kv_bytes_read(shape: ModelShape, layer: int, serving: Serving, depth: int) -> int:
    """Bytes of the cache that one layer reads for a token with `depth` tokens before it."""
    seen = min(depth, shape.window) if shape.windowed[layer] else depth
    return seen * kv_cache.token_bytes(shape, layer, serving)


def bytes_per_token(shape: ModelShape, placement: Placement, serving: Serving, depth: int) -> dict[int, StreamDevice]:
    """What each device reads for one token, by its number (or HOST), in the order of the token's way.

    Of its layers' weights all but experts, of the experts `experts_used / experts` of their bytes, of the KV cache what
    a token at `depth` looks back on; where the output is, that matrix, and where tokens come in a row of the embedding.
    Bandwidths and kinds are left open: `stages` has them.
    """
    if depth < 0:
        raise RackllamaError(f"a depth of {depth} tokens is none", "give 0 or more tokens")
    if placement.gpu_layers > shape.layers + 1:
        raise RackllamaError(
            f"{placement.gpu_layers} layers are placed on GPUs, and {shape.name or 'this model'} has {shape.layers} "
            "and the output",
            f"place {shape.layers + 1} at most",
        )
    share = shape.experts_used / shape.experts if shape.experts else 1.0
    homes = placement.devices(shape.layers)
    weights, experts, caches, layers, moe, visits = (Counter[int]() for _ in range(6))
    for layer, (home, own) in enumerate(zip(homes, shape.layer_weights, strict=False)):
        weights[home] += own.others
        caches[home] += kv_bytes_read(shape, layer, serving, depth)
        layers[home] += 1
        if own.experts:
            expert_home = HOST if layer < placement.experts_on_host else home
            experts[expert_home] += round(own.experts * share)
            moe[expert_home] += 1
            visits[expert_home] += expert_home != home
    weights[homes[0]] += shape.input_weights // shape.vocabulary
    weights[homes[-1]] += _output_bytes(shape)
    found = sorted(set(weights) | set(experts))
    return {
        home: StreamDevice(
            kind="cpu" if home == HOST else "cuda",
            bandwidth_gbs=math.nan,
            weights_bytes=weights[home],
            kv_bytes=caches[home],
            layers=layers[home],
            expert_bytes=experts[home],
            moe_layers=moe[home],
            latent_layers=layers[home] if shape.mla else 0,
            visits=visits[home],
            flash_attention=serving.flash_attention,
            expert_share=share,
            name="host" if home == HOST else f"GPU {home}",
        )
        for home in found
    }


def stages(
    shape: ModelShape, placement: Placement, serving: Serving, depth: int, bandwidths: Bandwidths
) -> list[StreamDevice]:
    """The devices that one token goes through, with `depth` tokens before it."""
    known = len(bandwidths.gpus)
    if isinstance(bandwidths.gpu_kinds, tuple):
        known = min(known, len(bandwidths.gpu_kinds))
    if len(placement.layers) > known:
        raise RackllamaError(
            f"layers are placed on {len(placement.layers)} GPUs, and bandwidth and kind of {known} are given",
            "give both of each GPU",
        )

    def on(home: int, device: StreamDevice) -> StreamDevice:
        if home == HOST:
            return replace(device, bandwidth_gbs=_sane(bandwidths.ram, "the host's memory"))
        return replace(device, bandwidth_gbs=_sane(bandwidths.gpus[home], device.name), kind=bandwidths.kind(home))

    return [on(home, device) for home, device in bytes_per_token(shape, placement, serving, depth).items()]


def bandwidths(host: Hardware, vintage: Vintage = "new") -> Bandwidths:
    """Those of a host, as far as they are known."""
    ram = host.ram_bandwidth_gbs
    return Bandwidths(
        tuple(gpu.bandwidth_gbs for gpu in host.gpus),
        tuple(memory_kind(gpu) for gpu in host.gpus),
        None if ram is None else usable_ram_bandwidth(ram, host.numa_nodes, vintage),
    )


def memory_kind(gpu: Gpu) -> MemoryKind:
    """Which memory a GPU has: NVIDIA's by the compute capability, or where that is not known by the bandwidth."""
    if gpu.kind == "metal":
        return "metal"
    if gpu.compute_capability:
        return "cuda-hbm" if gpu.compute_capability in _WITH_HBM else "cuda"
    return "cuda-hbm" if (gpu.bandwidth_gbs or 0) >= _FASTEST_GDDR_GBS else "cuda"


def usable_ram_bandwidth(ram_bandwidth_gbs: float, numa_nodes: int, vintage: Vintage) -> float:
    """What of a host's bandwidth one stream uses, in GB/s: llama.cpp's is that of one NUMA node.

    Weights lie on all nodes and every thread reads from each, which in published measurements of two sockets is never
    faster than one. ktransformers can hold the weights once on each node, and then has all.
    """
    return ram_bandwidth_gbs if vintage == "kt" else ram_bandwidth_gbs / max(numa_nodes, 1)


def costs(devices: Sequence[StreamDevice], vintage: Vintage, streams: int = 1) -> Iterator[Cost]:
    """What a step of all streams costs, each at the same depth, as amounts of what the fitted coefficients price."""
    for device in devices:
        full = _sane(device.bandwidth_gbs, device.name) * 1e9
        kv = streams * device.kv_bytes
        distinct = _distinct(device.expert_share, streams)
        more = (streams - 1) * STREAM_COSTS[device.kind]
        own = device.weights_bytes + device.expert_bytes
        read = device.weights_bytes + distinct * device.expert_bytes + more * own
        rate = f"{device.bandwidth_gbs:,.0f} GB/s"
        yield Cost(f"read.{device.kind}", read / full, f"{device.name}: weights", f"{_gigabytes(read)} at {rate}")
        if kv:
            is_plain = device.flash_attention or device.kind == "cpu"
            coefficient = f"read.{device.kind}" if is_plain else "read.kv_without_flash"
            yield Cost(coefficient, kv / full, f"{device.name}: KV cache", f"{_gigabytes(kv)} at {rate}")
        if device.layers and device.kind != "cpu":
            kind = "metal" if device.kind == "metal" else "cuda"
            yield Cost(f"layer.{kind}", device.layers, f"{device.name}: layers", f"{device.layers} layers")
        if device.latent_layers and device.kind != "cpu":
            words = f"{device.latent_layers} layers"
            yield Cost("layer.latent", device.latent_layers, f"{device.name}: latent attention", words)
        if device.moe_layers and vintage == "old":
            # Such an engine takes the experts one by one.
            amount = device.moe_layers * distinct
            name = f"experts.{'cuda' if device.kind == 'metal' else device.kind}"
            yield Cost(name, amount, f"{device.name}: experts one by one", f"{amount:,.0f} layers")
    hops = max(len(devices) - 1, 0) + sum(device.visits for device in devices)
    if hops:
        yield Cost("hop", hops, "from device to device", f"{hops} times")


def terms(
    devices: Sequence[StreamDevice],
    vintage: Vintage = "new",
    streams: int = 1,
    parameters: Parameters | None = None,
) -> list[Term]:
    """What the time of one step is made of, in seconds; with one stream a step is a token."""
    prices = (parameters or fitted()).seconds
    return [_term(cost, prices[cost.coefficient]) for cost in costs(devices, vintage, streams)]


def decode(
    devices: Sequence[StreamDevice],
    vintage: Vintage = "new",
    parameters: Parameters | None = None,
) -> Band:
    """Tokens a second of one stream: 1 / the sum of the terms, and the band around it that published figures need."""
    known = parameters or fitted()
    addends = tuple(terms(devices, vintage, parameters=known))
    if not addends:
        raise RackllamaError("no device is told that would decode", "give at least one")
    mid = 1 / sum(term.seconds for term in addends)
    spread = _spread(devices, known)
    return Band(mid / spread, mid, mid * spread, addends)


def users_served(
    devices: Sequence[StreamDevice],
    wanted_tok_s: float = ACCEPTABLE_TOK_S,
    vintage: Vintage = "new",
    most: int = MOST_STREAMS,
    parameters: Parameters | None = None,
) -> Users:
    """How many streams can decode at once so that each gets the wanted tokens a second, at the band's lower end.

    Streams share the reading of weights, but for experts only as far as they use the same: of `n` streams with a part
    `s` of the experts each, a layer reads `1 - (1 - s) ** n` of them, as if chosen by lot. Each reads its own KV cache
    (`kv_bytes` of one stream at its depth), and adds arithmetic (STREAM_COSTS). `most` is how many the cache's memory
    has room for. Prompts that are computed meanwhile are not counted.
    """
    known = parameters or fitted()
    spread = _spread(devices, known)

    def step(streams: int) -> tuple[Term, ...]:
        return tuple(terms(devices, vintage, streams, known))

    def rate(streams: int) -> float:
        return 1 / (sum(term.seconds for term in step(streams)) * spread)

    # A step only ever gets longer by a stream more.
    fits, too_many = 0, max(most, 1) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if rate(middle) >= wanted_tok_s else (fits, middle)
    return Users(wanted_tok_s, fits, rate(max(fits, 1)), step(max(fits, 1)))


def rating(tok_s: float) -> Rating:
    """How a rate feels to who reads along."""
    if tok_s >= COMFORTABLE_TOK_S:
        return "comfortable"
    return "acceptable" if tok_s >= ACCEPTABLE_TOK_S else "slow"


def load_seconds(weights_bytes: int, read_mbs: float | None) -> float | None:
    """Seconds until an engine has read a model from its disk at so many MB/s; None where the rate is not known."""
    return None if read_mbs is None else weights_bytes / (_sane(read_mbs, "the disk") * 1e6)


def landing_seconds(
    file_bytes: int, network_mbs: float | None, write_mbs: float | None, cores: int | None = None
) -> float | None:
    """Seconds until a model is fetched, checked and written, at rates in MB/s; None where one of both is not known.

    All three go on at once, so that the slowest decides: network, disk, or the digests, which are one chain over the
    whole file (HASH_MBS) and, on a host of few cores, short of processor (LANDER_MBS_OF_A_CORE for each).
    """
    if network_mbs is None or write_mbs is None:
        return None
    hashing = min(HASH_MBS, LANDER_MBS_OF_A_CORE * cores) if cores else HASH_MBS
    slowest = min(_sane(network_mbs, "the network"), _sane(write_mbs, "the disk"), hashing)
    return file_bytes / (slowest * 1e6)


def _output_bytes(shape: ModelShape) -> int:
    looked_up = [shape.tensors[name] for name in _LOOKED_UP if name in shape.tensors]
    rows = sum(tensor.size // max(shape.vocabulary, 1) for tensor in looked_up)
    return shape.output_weights - sum(tensor.size for tensor in looked_up) + rows


def _sane(rate: float | None, of: str) -> float:
    if rate is None:
        raise RackllamaError(
            f"how fast {of} is read is not known",
            "give its bandwidth; a host's memory has channels x 8 bytes x transfers a second, 8 of DDR5-4800 307 GB/s",
        )
    if not math.isfinite(rate) or rate <= 0:
        raise RackllamaError(f"{rate} is no rate at which {of} could be read", "give a number above 0")
    return rate


def _distinct(share: float, streams: int) -> float:
    """How many times the experts of one stream `streams` of them read, where each chooses by lot."""
    return (1 - (1 - share) ** streams) / share


def _spread(devices: Sequence[StreamDevice], parameters: Parameters) -> float:
    is_dense_on_gddr = all(device.kind == "cuda" and not device.moe_layers for device in devices)
    return parameters.spread_dense_on_gddr if is_dense_on_gddr else parameters.spread


def _term(cost: Cost, price: float) -> Term:
    if cost.coefficient.startswith("read."):
        formula = f"{cost.formula}, of which {1 / price:.0%} is achieved"
    else:
        formula = f"{cost.formula} x {price * 1000:.3g} ms"
    return Term(cost.name, formula, cost.amount * price)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"
