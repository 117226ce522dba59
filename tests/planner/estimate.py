"""What our plan expects of a case."""

import re
from functools import lru_cache
from pathlib import Path

from rackllama.host.lander.gguf import from_file
from rackllama.planning.graph.scheduler import Devices
from rackllama.planning.memory import DeviceMemory, memory
from rackllama.planning.serving import Placement, Serving
from rackllama.planning.shape import ModelShape, read_shape

from .accuracy import Estimate
from .oracle import Buffers, Case, Measured


@lru_cache
def shape_of(model: Path) -> ModelShape:
    shards = sorted(model.parent.glob(re.sub(r"-00001-of-", "-*-of-", model.name)))
    return read_shape([from_file(shard) for shard in shards])


def serving_of(case: Case) -> Serving:
    return Serving(
        context=case.context,
        parallel=case.parallel,
        unified=case.unified_kv,
        micro_batch=min(case.ubatch, case.batch),
        key_type=case.cache_k,
        value_type=case.cache_v,
        flash_attention=case.flash_attention,
    )


def ours(case: Case, model: Path, measured: Measured) -> Estimate | None:
    """The plan for the layers that each device got: which one that is hangs on what the servers say is free.

    None where experts are picked by a pattern, which a plan never does.
    """
    if case.override_tensors:
        return None
    placement = Placement(tuple(len(device.layers) for device in measured.devices), case.cpu_moe_layers)
    # RPC servers, which stand in for the GPUs, are told apart from CUDA: no copies of weights or inputs.
    held = memory(shape_of(model), serving_of(case), placement, Devices(case.devices), is_dry_run=True)
    return Estimate(tuple(_buffers(device) for device in held[:-1]), _buffers(held[-1]))


def _buffers(device: DeviceMemory) -> Buffers:
    return Buffers(device.weights, device.cache, device.compute)
