"""How much memory each device needs for a graph: ggml's allocator, followed tensor by tensor.

Bytes are handed out by the best fit, given back once nobody needs a tensor, and taken over by what may be computed in
place. The highest address ever used is what a device has to hold. Rules: llama.cpp, ggml/src/ggml-alloc.c.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rackllama.planning.graph.tensor import IN_PLACE_OPS, Tensor, Use

_ENDLESS = 2**62


@dataclass
class Arena:
    """One device's bytes: free blocks as [offset, size], by address; the last is endless."""

    alignment: int
    blocks: list[list[int]] = field(default_factory=lambda: [[0, _ENDLESS]])
    peak: int = 0

    def padded(self, size: int) -> int:
        """So many bytes as the device hands out for that many."""
        return size + -size % self.alignment

    def take(self, size: int) -> int:
        """The offset of a free place; the smallest block that is large enough, the last one only where none is."""
        size = self.padded(size)
        fitting = [(block[1], -number) for number, block in enumerate(self.blocks[:-1]) if block[1] >= size]
        number = -min(fitting)[1] if fitting else len(self.blocks) - 1
        block = self.blocks[number]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if not block[1]:
            del self.blocks[number]
        self.peak = max(self.peak, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Bytes that are free again, joined with their free neighbours."""
        size = self.padded(size)
        number = next((number for number, block in enumerate(self.blocks) if block[0] > offset), len(self.blocks))
        self.blocks.insert(number, [offset, size])
        for left in (number, number - 1):
            if 0 <= left < len(self.blocks) - 1:
                block, following = self.blocks[left], self.blocks[left + 1]
                if block[0] + block[1] == following[0]:
                    block[1] += following[1]
                    del self.blocks[left + 1]


class Step(NamedTuple):
    """One tensor of a graph, and the device that has it. `only_keeps` says that it stands for a wait, not for work."""

    tensor: Tensor
    device: int
    only_keeps: bool = False


def peaks(leafs: Sequence[Step], steps: Sequence[Step], alignments: Sequence[int]) -> list[int]:
    """The most bytes that each device has in use at once, while the steps are gone through in order."""
    walk = _Walk([Arena(alignment) for alignment in alignments])
    for leaf in leafs:
        walk.hold(leaf.tensor, leaf.device)
    for step in steps:
        walk.count(step)
    for step in steps:
        walk.compute(step)
    return [arena.peak for arena in walk.arenas]


class _Walk:
    def __init__(self, arenas: list[Arena]) -> None:
        self.arenas = arenas

    def count(self, step: Step) -> None:
        """Who will need what; inputs get their place first, so that nothing is put there before they are read."""
        tensor = step.tensor
        if tensor.root is not None and not step.only_keeps:
            tensor.root.use.views += 1
        for source in tensor.sources:
            source.use.children += 1
            if source.is_input:
                self.hold(source, step.device)

    def compute(self, step: Step) -> None:
        """Give the tensor its place, and take back those of operands that nobody else needs."""
        for source in step.tensor.sources:
            self.hold(source, step.device)
        self.hold(step.tensor, step.device)
        for source in step.tensor.sources:
            use = source.use
            use.children -= 1
            if use.children or use.views:
                continue
            if source.root is not None:
                root = source.root.use
                root.views -= 1
                if not root.views and not root.children and root.is_held:
                    self._release(source.root, root)
            elif use.is_held:
                self._release(source, use)

    def hold(self, tensor: Tensor, device: int) -> None:
        """A place for a tensor that has none yet: that of an operand, if it may have it, or a new one."""
        use = tensor.use
        if tensor.device is not None or tensor.root is not None or use.is_held:
            return
        use.is_held = True
        if tensor.op in IN_PLACE_OPS and self._take_over(tensor, use):
            return
        use.device, use.offset = device, self.arenas[device].take(tensor.size)

    def _take_over(self, tensor: Tensor, use: Use) -> bool:
        """Whether it got the bytes of an operand that is its own, looks the same, and is needed by nobody else."""
        for source in tensor.sources:
            held = source.use
            if (
                held.is_held
                and not source.is_output
                and _same_layout(tensor, source)
                and held.children == 1
                and not held.views
            ):
                use.device, use.offset = held.device, held.offset
                held.is_held = False
                return True
        return False

    def _release(self, tensor: Tensor, use: Use) -> None:
        if not tensor.is_output:
            self.arenas[use.device].give(use.offset, tensor.size)
            use.is_held = False


def _same_layout(one: Tensor, other: Tensor) -> bool:
    return one.type == other.type and one.dims == other.dims and one.strides == other.strides
