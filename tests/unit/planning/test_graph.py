"""Memory handed out and taken back, and work spread over devices: ggml's rules on graphs of a few tensors."""

from rackllama.planning.graph.allocator import Arena, peaks
from rackllama.planning.graph.scheduler import Devices, steps
from rackllama.planning.graph.tensor import (
    F32,
    Graph,
    Op,
    Tensor,
    computed,
    graph_input,
    leaf,
    like,
    matmul,
    permute,
    view,
)

KIB = 1024


def weight(rows: int, columns: int, device: int) -> Tensor:
    return leaf((rows, columns), F32, device=device, is_weight=True)


def needed(result: Tensor, devices: Devices) -> list[int]:
    graph = Graph()
    graph.expand(result)
    leafs, ordered = steps(graph, devices)
    return peaks(leafs, ordered, [devices.alignment_of(device) for device in range(devices.gpus + 1)])


def test_the_smallest_hole_that_is_large_enough_is_taken() -> None:
    arena = Arena(32)
    large, _, small, _ = (arena.take(size) for size in (4 * KIB, 32, 1 * KIB, 32))
    arena.give(large, 4 * KIB)
    arena.give(small, 1 * KIB)
    assert arena.take(1 * KIB) == small
    assert arena.take(1 * KIB) == large


def test_holes_that_touch_become_one() -> None:
    arena = Arena(32)
    first, second, _ = (arena.take(1 * KIB) for _ in range(3))
    arena.give(second, 1 * KIB)
    arena.give(first, 1 * KIB)
    assert arena.take(2 * KIB) == first
    assert arena.peak == 3 * KIB


def test_what_may_be_computed_in_place_takes_over_its_operand() -> None:
    """A product of 4 KiB, added to what it was made from, which is there until then."""

    def added(op: Op) -> list[int]:
        value = graph_input(32, 32)
        return needed(like(op, matmul(weight(32, 32, 0), value), value), Devices(1))

    assert added(Op.IN_PLACE) == [8 * KIB, 4 * KIB]
    assert added(Op.NEW) == [12 * KIB, 4 * KIB]


def test_what_is_looked_at_stays_until_nobody_looks() -> None:
    product = matmul(weight(32, 32, 0), graph_input(32, 32))
    half = view(product, (16, 32), (product.strides[1],))
    assert needed(computed(Op.NEW, (32, 32), half), Devices(1)) == [8 * KIB, 4 * KIB]


def test_work_goes_where_the_weights_are_and_its_input_is_copied_there() -> None:
    first = matmul(weight(32, 32, 0), graph_input(32, 32))
    second = matmul(weight(32, 32, 1), first)
    # On each GPU the copy of what comes in and the product; the input itself on the host.
    assert needed(second, Devices(2)) == [8 * KIB, 8 * KIB, 4 * KIB]


def test_weights_on_the_host_are_copied_to_a_gpu_for_large_batches_only() -> None:
    def on_gpu(tokens: int) -> int:
        entering = matmul(weight(32, 32, 0), graph_input(32, tokens))
        return needed(matmul(weight(32, 1024, 1), entering), Devices(1, offloads=True))[0]

    assert on_gpu(32) - on_gpu(31) > 32 * 1024 * 4 - KIB


def test_inputs_are_held_as_often_as_batches_are_worked_on() -> None:
    def on_second(copies: int) -> int:
        state = matmul(weight(32, 32, 0), graph_input(32, 32))
        return needed(matmul(weight(32, 32, 1), state), Devices(2, copies=copies))[1]

    assert on_second(4) - on_second(1) == 3 * 4 * KIB


def test_strides_follow_permutations() -> None:
    tensor = leaf((4, 3, 2))
    turned = permute(tensor, 0, 2, 1, 3)
    assert turned.dims == (4, 2, 3, 1)
    assert turned.strides[:3] == (4, 48, 16)
    assert not turned.is_contiguous
    assert turned.size == tensor.size
