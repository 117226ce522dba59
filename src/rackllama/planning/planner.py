"""From a model's shape and a host's hardware to a plan. Pure: nothing is read or changed here."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rackllama.host.errors import RackllamaError
from rackllama.planning import kv_cache, speed
from rackllama.planning.compute import compute_bytes
from rackllama.planning.engine_settings import settings
from rackllama.planning.explain import explain
from rackllama.planning.fit import Fit, Room, Search, Way
from rackllama.planning.graph.scheduler import Devices
from rackllama.planning.hardware import Hardware
from rackllama.planning.plan import MIB, DevicePlan, Landing, Plan, Rate, Reserve, Wanted
from rackllama.planning.remedies import MOST_GPUS, remedies
from rackllama.planning.serving import Placement, Serving
from rackllama.planning.shape import ModelShape
from rackllama.planning.words import amount

DEFAULT_CONTEXT = 8192
# llama.cpp's own limits: LLAMA_MAX_SEQ, and one device less than its --tensor-split has places.
MOST_SLOTS = 256
SWAP_STEP_MIB = 1024


def make_plan(
    shape: ModelShape, hardware: Hardware, wanted: Wanted, name: str = "", file_bytes: int | None = None
) -> Plan:
    """The plan for a model on a host.

    `name` is the model's for people, `file_bytes` what is landed of it (its weights unless given). Raises
    RackllamaError where what is wanted cannot be, such as a quantized cache without flash attention.
    """
    _check_wanted(shape, wanted)
    serving = serving_of(shape, wanted)
    kv_cache.check(shape, serving)
    left_alone = len(hardware.gpus) - MOST_GPUS
    hardware = replace(hardware, gpus=hardware.gpus[:MOST_GPUS])
    search = Search(shape, serving, room_of(hardware, wanted.reserve))
    fit = chosen(search, wanted)
    host_short = 0 if search.room.host is None else max(0, fit.held[-1].all - search.room.host)
    stages = _stages(shape, hardware, fit, serving, wanted) if fit.fits else ()
    band = speed.decode(stages) if stages else None
    size = file_bytes or shape.weights
    return Plan(
        model=name or shape.name,
        architecture=shape.architecture,
        hardware=hardware.name,
        fits=fit.fits,
        way=fit.way,
        serving=serving,
        placement=fit.placement,
        max_context=_largest_context(search, fit),
        devices=tuple(_device_plans(search, fit, hardware, wanted.reserve)),
        host=_host_plan(fit, hardware, wanted.reserve),
        swap_mib=-(-host_short // MIB // SWAP_STEP_MIB) * SWAP_STEP_MIB,
        settings=settings(serving, fit.placement, shape.layers, shape.unserved_layers),
        decode_tok_s=None if band is None else Rate(band.low, band.mid, band.high),
        rating=None if band is None else speed.rating(band.mid),
        users=_users(stages, _slots(search, fit)) if stages else {},
        load_seconds=speed.load_seconds(shape.weights, _disk_rate(hardware, "read_mbs")),
        landing=_landing(size, hardware),
        cost_per_hour=None if hardware.price is None else hardware.price.usd_per_hour,
        reasons=(*_reasons(search, fit, hardware, wanted), *_limits(hardware, size, left_alone)),
        remedies=() if fit.fits else tuple(remedies(search, fit, wanted.is_classic)),
        doubts=tuple(_doubts(shape, hardware, serving)),
        explanation=tuple(explain(search, fit, band.terms if band else ())),
        unserved_layers=shape.unserved_layers,
    )


def _check_wanted(shape: ModelShape, wanted: Wanted) -> None:
    """Raise RackllamaError for what no engine does."""
    if wanted.parallel > MOST_SLOTS:
        raise RackllamaError(
            f"{wanted.parallel} slots are asked for, and llama.cpp has {MOST_SLOTS} at most",
            "ask for fewer, and serve the model from several hosts",
        )
    if wanted.experts_on_host and not shape.is_moe:
        raise RackllamaError(
            f"the experts of {wanted.experts_on_host} layers are to stay on the host, and this model has none",
            "leave that out; num_gpu tells how many layers go to GPUs",
        )


def _limits(hardware: Hardware, size: int, left_alone: int) -> Iterator[str]:
    """What besides memory is in the way."""
    if left_alone > 0:
        yield f"{left_alone} GPUs are left alone: llama.cpp can be told of {MOST_GPUS}"
    room = max((disk.free_bytes for disk in hardware.disks), default=None)
    if room is not None and room < size:
        yield f"no disk has room for the model yet: {amount(room)} are free, and landing takes {amount(size)}"


def serving_of(shape: ModelShape, wanted: Wanted) -> Serving:
    """How the model is served: each slot has its own part of the cache, with the context that is wanted for one."""
    each = wanted.context or min(DEFAULT_CONTEXT, shape.trained_context)
    return Serving(
        context=each * wanted.parallel,
        parallel=wanted.parallel,
        unified=wanted.parallel == 1,
        micro_batch=wanted.micro_batch,
        key_type=wanted.key_type,
        value_type=wanted.value_type,
        flash_attention=not wanted.is_classic if wanted.flash_attention == "auto" else wanted.flash_attention == "on",
    )


def room_of(hardware: Hardware, reserve: Reserve) -> Room:
    """What a model may take of a host's memory."""
    gpus = tuple(max(0, gpu.shown_mib - reserve.gpu_mib) * MIB for gpu in hardware.gpus)
    host = None if hardware.ram_mib is None else max(0, hardware.ram_mib - reserve.host_mib) * MIB
    return Room(gpus, host, hardware.is_unified, all(gpu.kind == "cuda" for gpu in hardware.gpus))


def chosen(search: Search, wanted: Wanted) -> Fit:
    """The best fit, or what was asked for in its place."""
    if wanted.num_gpu is None and wanted.experts_on_host is None:
        return search.best(wanted.is_classic)
    whole = search.shape.layers + 1
    # Those that only foretell tokens are counted by the engine, and take nothing.
    layers = whole if wanted.num_gpu is None else max(0, min(wanted.num_gpu - search.shape.unserved_layers, whole))
    if not search.room.gpus or layers == 0:
        return search.measure(Placement((0,) * len(search.room.gpus)))
    return search.spread(layers, min(wanted.experts_on_host or 0, search.shape.layers))


def _largest_context(search: Search, fit: Fit) -> int:
    return search.largest_context(fit.placement) // search.serving.parallel if fit.fits else 0


def _device_plans(search: Search, fit: Fit, hardware: Hardware, reserve: Reserve) -> Iterator[DevicePlan]:
    # The same graph by the rules of devices that copy nothing.
    plain = compute_bytes(search.shape, search.serving, fit.placement, Devices(len(search.room.gpus)))
    for gpu, held, without in zip(hardware.gpus, fit.held[:-1], plain[:-1], strict=True):
        yield DevicePlan(
            name=gpu.name,
            total_mib=gpu.shown_mib,
            weights_mib=mib(held.weights),
            kv_mib=mib(held.cache),
            compute_mib=mib(held.compute),
            cuda_only_mib=mib(max(0, held.compute - without)),
            reserved_mib=reserve.gpu_mib,
            free_mib=gpu.shown_mib - reserve.gpu_mib - mib(held.all),
            layers=held.layers,
        )


def _host_plan(fit: Fit, hardware: Hardware, reserve: Reserve) -> DevicePlan:
    held = fit.held[-1]
    taken = held.all + (sum(device.all for device in fit.held[:-1]) if hardware.is_unified else 0)
    return DevicePlan(
        name="host",
        total_mib=hardware.ram_mib,
        weights_mib=mib(held.weights),
        kv_mib=mib(held.cache),
        compute_mib=mib(held.compute),
        cuda_only_mib=0,
        reserved_mib=reserve.host_mib,
        free_mib=None if hardware.ram_mib is None else hardware.ram_mib - reserve.host_mib - mib(taken),
        layers=held.layers,
    )


def _stages(
    shape: ModelShape, hardware: Hardware, fit: Fit, serving: Serving, wanted: Wanted
) -> Sequence[speed.StreamDevice]:
    """What is read for a token; nothing where a bandwidth that it hangs on is not known."""
    known = speed.bandwidths(hardware)
    reads_gpus = [bandwidth for bandwidth, layers in zip(known.gpus, fit.placement.layers, strict=True) if layers]
    if None in reads_gpus or (known.ram is None and _host_computes(shape, fit)):
        return ()
    return speed.stages(shape, fit.placement, serving, min(wanted.depth, serving.context // serving.parallel), known)


def _host_computes(shape: ModelShape, fit: Fit) -> bool:
    return fit.placement.gpu_layers <= shape.layers or fit.placement.experts_on_host > 0


def _slots(search: Search, fit: Fit) -> int:
    """For how many slots there is room in the cache, each with the context that is wanted."""
    sizes = [*search.room.gpus, search.room.host]
    slots = (
        (size - held.weights - held.compute) * search.serving.parallel // held.cache
        for size, held in zip(sizes, fit.held, strict=True)
        if held.cache and size is not None
    )
    return min(slots, default=speed.MOST_STREAMS)


def _users(stages: Sequence[speed.StreamDevice], slots: int) -> dict[str, int]:
    """How many can be served at once before the rate falls below what they feel as such, or the cache is full."""
    wanted = {"acceptable": speed.ACCEPTABLE_TOK_S, "comfortable": speed.COMFORTABLE_TOK_S}
    return {name: speed.users_served(stages, rate, most=slots).count for name, rate in wanted.items()}


def _landing(size: int, hardware: Hardware) -> Landing:
    """Each byte is written once, to where it stays: the peak is the model itself."""
    return Landing(size, size, speed.landing_seconds(size, hardware.network_mbs, _disk_rate(hardware, "write_mbs")))


def _disk_rate(hardware: Hardware, which: str) -> float | None:
    """Of the fastest disk whose rate is known."""
    rates = [getattr(disk, which) for disk in hardware.disks if getattr(disk, which) is not None]
    return max(rates, default=None)


def _reasons(search: Search, fit: Fit, hardware: Hardware, wanted: Wanted) -> Iterator[str]:
    shape, layers = search.shape, search.shape.layers
    if wanted.num_gpu is not None or wanted.experts_on_host is not None:
        stay = fit.placement.experts_on_host
        yield f"as was asked for: num_gpu {fit.placement.gpu_layers}, the experts of {stay} layers on the host"
    elif fit.way is not Way.ON_GPUS and search.room.gpus:
        whole = search.spread(layers + 1)
        yield f"not all on the GPUs: that takes {amount(whole.missing)} more than they have room for"
    if fit.way is Way.EXPERTS_ON_HOST:
        yield (
            f"attention and cache of all {layers} layers are on GPUs; the experts of the first "
            f"{fit.placement.experts_on_host} layers, {amount(fit.held[-1].weights)} of weights with the token "
            "embedding, stay on the host, which reads a few of them for each token"
        )
    elif fit.way is Way.LAYERS_ON_HOST:
        yield f"the last {fit.placement.gpu_layers - 1} of {layers} layers, and the output, are on GPUs"
    elif fit.way is Way.ON_HOST and hardware.gpus:
        yield "no layer fits on a GPU beside what computing takes there"
    if fit.fits and fit.way is Way.ON_GPUS:
        yield f"all {layers} layers and the output are on {_gpus(hardware)}"
    if fit.fits and _host_computes(shape, fit) and hardware.ram_bandwidth_gbs is None:
        yield "how fast it answers hangs on the host's memory, whose bandwidth nobody told: --ram-bandwidth"
    if shape.folded_attention:
        yield (
            "this file keeps whole keys and values for each head (attn_kv_b): its cache is many times larger than that "
            "of a newer file of the same model with attn_k_b and attn_v_b"
        )
    if not fit.fits:
        weights, cache, compute = (
            sum(getattr(device, kind) for device in fit.held) for kind in ("weights", "cache", "compute")
        )
        yield (
            f"{amount(fit.missing)} have no room, of {amount(weights)} of weights, {amount(cache)} "
            f"({cache / 1e9:.0f} GB) of cache and {amount(compute)} for computing"
        )


def _gpus(hardware: Hardware) -> str:
    return f"{len(hardware.gpus)} GPUs" if len(hardware.gpus) > 1 else "the GPU"


def _doubts(shape: ModelShape, hardware: Hardware, serving: Serving) -> Iterator[str]:
    if not shape.is_tested:
        yield (
            f"the architecture {shape.architecture} was not compared with llama.cpp: weights are exact, cache and what "
            "computing takes are told as of a model like Llama"
        )
    if serving.context // serving.parallel > shape.trained_context:
        yield f"it was trained on {shape.trained_context} tokens of context, and more are asked for"
    if hardware.ram_mib is None:
        yield "nobody told how much memory the host has (--ram): whether its part fits there is not checked"


def mib(size: int) -> int:
    """Whole MiB that so many bytes take."""
    return -(-size // MIB)
