"""Tensors without data, and the operations that llama.cpp's models are made of, with ggml's shapes and layouts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from rackllama.host.lander.gguf import TensorType

F32 = TensorType("f32", 1, 4)
F16 = TensorType("f16", 1, 2)
I32 = TensorType("i32", 1, 4)
I64 = TensorType("i64", 1, 8)

Dims = tuple[int, int, int, int]


class Op(Enum):
    """ggml's operations, as far as they differ in what they do with memory."""

    LEAF = auto()
    VIEW = auto()  # another look at the same bytes, nothing is computed: view, reshape, permute
    STORE = auto()  # computes into the bytes of another tensor: rows of a cache, values cut off in place
    IN_PLACE = auto()  # may take the bytes of an operand that nobody needs any more
    ROPE = auto()  # the same; where it is computed does not follow from its weights
    NEW = auto()  # needs bytes of its own
    ROWS = auto()  # the same; reads some rows of a table
    ATTENTION = auto()  # the same; where it is computed does not follow from its weights
    EXPERTS = auto()  # the same; of its weights only some are read


IN_PLACE_OPS = (Op.IN_PLACE, Op.ROPE)
PLACED_FREELY = (Op.ROPE, Op.ATTENTION)


@dataclass(slots=True)
class Use:
    """What the allocator knows of one tensor while a graph is gone through: who needs it yet, and where it lies."""

    children: int = 0
    views: int = 0
    device: int = 0
    offset: int = 0
    is_held: bool = False


@dataclass(eq=False, slots=True)
class Tensor:
    """One tensor: `dims` count elements, `strides` bytes, fastest-varying first.

    `device` is where it lies if it is a weight or a part of the cache, which are there before anything is computed;
    None where it is computed or handed in. `root` is the tensor whose bytes it looks at. `placed` is the device that
    the scheduler gives it, and `use` what the allocator knows of it: dictionaries beside it take half the time more.
    """

    dims: Dims
    strides: Dims
    type: TensorType
    op: Op
    sources: list["Tensor"]
    root: "Tensor | None" = None
    device: int | None = None
    is_weight: bool = False
    is_input: bool = False
    is_output: bool = False
    wanted: int | None = None
    placed: int | None = None
    use: Use = field(default_factory=Use)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        # From its first byte to its last, whatever lies between them.
        columns, rows, planes, cubes = self.dims
        element, row, plane, cube = self.strides
        self.size = columns // self.type.block * element + (rows - 1) * row + (planes - 1) * plane + (cubes - 1) * cube

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie one after another."""
        return self.strides == contiguous(self.type, self.dims)


def row_size(stored: TensorType, elements: int) -> int:
    """Bytes of so many elements in a row."""
    return elements // stored.block * stored.size


def contiguous(stored: TensorType, dims: Dims) -> Dims:
    """The strides of a tensor whose elements lie one after another."""
    second = row_size(stored, dims[0])
    third = second * dims[1]
    return (stored.size, second, third, third * dims[2])


def shaped(dims: Sequence[int]) -> Dims:
    """Dimensions filled up with ones."""
    filled = (*dims, 1, 1, 1)
    return (filled[0], filled[1], filled[2], filled[3])


def leaf(dims: Sequence[int], stored: TensorType = F32, **told: int | bool) -> Tensor:
    """A tensor that is not computed: a weight, a part of the cache, or an input."""
    four = shaped(dims)
    return Tensor(four, contiguous(stored, four), stored, Op.LEAF, [], **told)  # type: ignore[arg-type]


def graph_input(*dims: int, stored: TensorType = F32) -> Tensor:
    """What is handed in with each batch."""
    return leaf(dims, stored, is_input=True)


def computed(op: Op, dims: Sequence[int], *sources: Tensor, stored: TensorType = F32) -> Tensor:
    """The result of an operation, in bytes of its own."""
    four = shaped(dims)
    return Tensor(four, contiguous(stored, four), stored, op, list(sources))


def view(source: Tensor, dims: Sequence[int], strides: Sequence[int] | None = None) -> Tensor:
    """Another look at the bytes of a tensor; strides from the second dimension on, where they are not the usual."""
    four = shaped(dims)
    if strides is None:
        steps = contiguous(source.type, four)
    else:
        second, *others = strides
        third = others[0] if others else second * four[1]
        steps = (source.type.size, second, third, others[1] if others[1:] else third * four[2])
    return Tensor(four, steps, source.type, Op.VIEW, [source], source.root or source)


def permute(source: Tensor, *axes: int) -> Tensor:
    """The same bytes with dimension `i` become dimension `axes[i]`."""
    dims, strides = [0] * 4, [0] * 4
    for old, new in enumerate(axes):
        dims[new], strides[new] = source.dims[old], source.strides[old]
    four, steps = shaped(dims), (strides[0], strides[1], strides[2], strides[3])
    return Tensor(four, steps, source.type, Op.VIEW, [source], source.root or source)


def store(target: Tensor, *sources: Tensor) -> Tensor:
    """Something that is computed into the bytes of `target`."""
    return Tensor(target.dims, target.strides, target.type, Op.STORE, [*sources, target], target.root or target)


def changed(source: Tensor) -> Tensor:
    """The same tensor with other values, computed where it lies."""
    return Tensor(source.dims, source.strides, source.type, Op.STORE, [source], source.root or source)


def like(op: Op, source: Tensor, *others: Tensor) -> Tensor:
    """A result of the same shape as its first operand."""
    return computed(op, source.dims, source, *others, stored=source.type)


def matmul(weight: Tensor, value: Tensor) -> Tensor:
    """`value` through `weight`: rows of the one become columns of the result."""
    return computed(Op.NEW, (weight.dims[1], *value.dims[1:]), weight, value)


def experts_matmul(weight: Tensor, value: Tensor, chosen: Tensor) -> Tensor:
    """Each token through the experts that were chosen for it."""
    return computed(Op.EXPERTS, (weight.dims[1], chosen.dims[0], value.dims[2]), weight, value, chosen)


def rows(table: Tensor, which: Tensor) -> Tensor:
    """Rows of a table by their numbers."""
    return computed(Op.ROWS, (table.dims[0], *which.dims[:3]), table, which)


class Graph:
    """The order in which a model's tensors are computed: each operand before what needs it, as ggml visits them."""

    def __init__(self) -> None:
        self.nodes: list[Tensor] = []
        self.leafs: list[Tensor] = []
        self._seen: set[int] = set()

    def expand(self, tensor: Tensor) -> Tensor:
        """Add what this tensor needs and is not there yet, and the tensor itself."""
        if id(tensor) not in self._seen:
            self._seen.add(id(tensor))
            for source in tensor.sources:
                self.expand(source)
            (self.leafs if tensor.op is Op.LEAF else self.nodes).append(tensor)
        return tensor
