"""Which device computes which tensor, and what is copied from one to another: ggml's scheduler, followed.

Work goes where its weights lie, then spreads to neighbours, GPUs first. What a device needs and does not have is copied
to it at the beginning of its next stretch of work. Rules: llama.cpp, ggml/src/ggml-backend.cpp.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

from rackllama.host.lander.gguf import TENSOR_TYPES, TensorInfo, padded
from rackllama.planning.graph.allocator import Step
from rackllama.planning.graph.tensor import F16, PLACED_FREELY, Graph, Op, Tensor

# A GPU takes over work on weights that lie on the host only for batches that are worth the copy.
WORTH_COPYING_TOKENS = 32
PIPELINE_COPIES = 4
HOST_ALIGNMENT = 32
CUDA_ALIGNMENT = 128
CUDA_ROW = 512


@dataclass(frozen=True)
class Devices:
    """The GPUs, and the host behind them as the last device.

    With `offloads` the first GPU computes on weights of the host, for which they are copied to it. `copies` is how
    often inputs are held, so that GPUs can work on several batches at once. `alignment` is the GPUs', in bytes. With
    `unpacks_cache` attention makes itself an f16 copy of a quantized cache. Rows of quantized weights are followed by
    room up to a multiple of `row_multiple` elements.
    """

    gpus: int
    offloads: bool = False
    copies: int = 1
    alignment: int = HOST_ALIGNMENT
    unpacks_cache: bool = False
    row_multiple: int = 1

    @classmethod
    def of_cuda(cls, gpus: int, works_in_turns: bool) -> "Devices":
        """As llama.cpp's CUDA backend has it; with `works_in_turns` GPUs work on several batches at once."""
        return cls(gpus, True, PIPELINE_COPIES if works_in_turns and gpus > 1 else 1, CUDA_ALIGNMENT, True, CUDA_ROW)

    @property
    def host(self) -> int:
        """The number of the host."""
        return self.gpus

    def alignment_of(self, device: int) -> int:
        """What each tensor's address on a device is a multiple of, in bytes."""
        return HOST_ALIGNMENT if device == self.host else self.alignment

    def stored(self, tensor: TensorInfo, device: int) -> int:
        """Bytes that a weight takes on a device."""
        kept = TENSOR_TYPES[tensor.type]
        rest = -tensor.dims[0] % self.row_multiple if kept.block > 1 and device != self.host else 0
        return padded(tensor.size + rest // kept.block * kept.size, self.alignment_of(device))


@dataclass
class Split:
    """A stretch of work of one device, and what is copied to it before."""

    device: int
    tensors: list[Tensor] = field(default_factory=list)
    copied: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def steps(graph: Graph, devices: Devices) -> tuple[list[Step], list[Step]]:
    """The leafs and the tensors in the order in which memory is handed out, each with its device."""
    _place(graph, devices)
    if devices.unpacks_cache:
        _unpack_caches(graph, devices)
    splits, inputs = _split(graph, devices)
    ordered = [step for split in splits for step in _steps_of(split)]
    leafs: list[Step] = []
    if devices.copies > 1:
        leafs = [Step(other, _device(source)) for source in inputs for other in _copies(source, devices.copies)]
        for split in splits:
            for _, copy in split.copied:
                leafs += [
                    Step(copy, split.device),
                    *(Step(other, split.device) for other in _copies(copy, devices.copies)),
                ]
    leafs += [Step(tensor, _device(tensor)) for tensor in graph.leafs]
    return leafs, ordered


def _place(graph: Graph, devices: Devices) -> None:
    """Give each tensor its device."""
    for tensor in graph.leafs:
        tensor.placed = devices.host if tensor.is_input else tensor.device
    for tensor in graph.nodes:
        tensor.placed = _by_operands(tensor, devices)
    working = [tensor for tensor in graph.nodes if tensor.op is not Op.VIEW]
    gpus = range(devices.host)
    everything = range(devices.host + 1)
    for spreading in (gpus, everything):
        for order in (working, working[::-1]):
            _spread(order, spreading)
    for tensor in graph.nodes:
        if tensor.placed is None:
            _place_with(tensor, None)
        for source in tensor.sources:
            if source.placed is None:
                _place_with(source, tensor)


def _place_with(tensor: Tensor, user: Tensor | None) -> None:
    """What has no device yet is where the bytes are that it looks at, or else where it is used."""
    other = user if tensor.root is None or tensor.root.placed is None else tensor.root
    if other is not None:
        tensor.placed = other.placed


def _device(tensor: Tensor) -> int:
    """The device of a tensor that is placed."""
    if tensor.placed is None:
        raise AssertionError(f"{tensor.op} of {tensor.dims} has no device")
    return tensor.placed


def _by_operands(tensor: Tensor, devices: Devices) -> int | None:
    """Where a tensor has to be computed: what it writes into, what was wished for, or its weights, decide."""
    if tensor.root is not None and tensor.root.device is not None:
        return tensor.root.device
    if tensor.wanted is not None:
        return tensor.wanted
    if tensor.op in PLACED_FREELY:
        return None
    for source in tensor.sources:
        if source.is_weight and source.device is not None:
            gets_copied = devices.offloads and source.device == devices.host and _batch(tensor) >= WORTH_COPYING_TOKENS
            return 0 if gets_copied else source.device
    return None


def _batch(tensor: Tensor) -> int:
    """For how many tokens a weight is used at once; rows of a table are not worth a copy."""
    if tensor.op is Op.ROWS:
        return 0
    if tensor.op is Op.EXPERTS:
        return tensor.dims[2]
    return tensor.dims[1] if tensor.op is Op.NEW else prod(tensor.dims[1:])


def _spread(order: Sequence[Tensor], spreading: range) -> None:
    """Let each of the devices that are `spreading` go on with what follows its work, until another one's begins."""
    device: int | None = None
    for tensor in order:
        if tensor.placed is not None:
            device = tensor.placed if tensor.placed in spreading else None
        else:
            tensor.placed = device


def _split(graph: Graph, devices: Devices) -> tuple[list[Split], list[Tensor]]:
    """Stretches of work, and the inputs that are held several times."""
    splits: list[Split] = []
    copies: dict[tuple[int, int], Tensor] = {}
    inputs: dict[int, Tensor] = {}
    waiting: list[Tensor] = []
    for tensor in graph.nodes:
        if tensor.op is Op.VIEW:
            (splits[-1].tensors if splits else waiting).append(tensor)
            continue
        device = _device(tensor)
        if not splits or device != splits[-1].device or _frees_copied_weights(tensor, splits[-1]):
            splits.append(Split(device, waiting))
            waiting = []
        split = splits[-1]
        for number, source in enumerate(tensor.sources):
            if source.is_input and devices.copies > 1:
                inputs.setdefault(id(source), source)
            if source.placed == device:
                continue
            if (id(source), device) not in copies:
                copy = Tensor(source.dims, source.strides, source.type, Op.LEAF, [])
                copy.is_input = copy.is_output = devices.copies > 1
                copy.placed = device
                copies[id(source), device] = copy
                split.copied.append((source, copy))
            tensor.sources[number] = copies[id(source), device]
        split.tensors.append(tensor)
    return splits, list(inputs.values())


def _frees_copied_weights(tensor: Tensor, split: Split) -> bool:
    """A new stretch begins with each weight that has to be copied, so that the one before it can go."""
    return bool(split.copied) and any(source.is_weight and source.placed != split.device for source in tensor.sources)


def _steps_of(split: Split) -> Iterator[Step]:
    for source, copy in split.copied:
        waits = Tensor(source.dims, source.strides, source.type, Op.VIEW, [source], source.root or source)
        yield Step(waits, _device(source), only_keeps=True)
        yield Step(copy, split.device)
    for tensor in split.tensors:
        yield Step(tensor, _device(tensor))


def _unpack_caches(graph: Graph, devices: Devices) -> None:
    for tensor in graph.nodes:
        if tensor.op is Op.ATTENTION and tensor.placed != devices.host:
            _, keys, values, _ = tensor.sources
            # Where values are a part of the keys, one copy serves both.
            unpacked = (keys,) if keys.root is values.root else (keys, values)
            tensor.size += sum(prod(cache.dims) * F16.size for cache in unpacked if cache.type.block > 1)


def _copies(tensor: Tensor, count: int) -> list[Tensor]:
    """The copies of an input beside itself, none of which is ever given back."""
    tensor.is_output = True
    return [
        Tensor(tensor.dims, tensor.strides, tensor.type, Op.LEAF, [], is_input=True, is_output=True)
        for _ in range(count - 1)
    ]
