"""What counts as exact, and that what the planner is judged on is wide enough."""

import math
from dataclasses import replace

import pytest

from .accuracy import MIB, Estimate, Totals, errors, total_errors
from .cases import CASES
from .oracle import Buffers, Device, Measured

GIB = 2**30
MEASURED = Measured(
    devices=(
        Device("RPC0", (0, 1), Buffers(20 * GIB, 2 * GIB, 200 * MIB)),
        Device("RPC1", (), Buffers()),
    ),
    host={"CPU": Buffers(GIB, 0, 40 * MIB), "CPU_REPACK": Buffers(3 * GIB)},
    host_layers=(),
    output_mib=0.5,
    kv=(),
    graph_splits=2,
    sched_copies=1,
    log="",
)
EXACT = Estimate((MEASURED.devices[0].buffers, Buffers()), Buffers(4 * GIB, 0, 40 * MIB))


def with_first(**bytes_: int) -> Estimate:
    return replace(EXACT, devices=(replace(EXACT.devices[0], **bytes_), EXACT.devices[1]))


def test_the_host_is_all_its_buffer_types() -> None:
    found = errors(EXACT, MEASURED)

    assert (found.weights, found.kv, found.compute) == (0, 0, 0)
    assert found.holds


@pytest.mark.parametrize(
    ("estimate", "holds"),
    [
        (with_first(model=20 * GIB + 1), False),
        (with_first(context=2 * GIB - 1), False),
        (with_first(compute=264 * MIB), True),
        (with_first(compute=265 * MIB), False),
    ],
    ids=["a byte of weights", "a byte of KV", "64 MiB of compute", "65 MiB of compute"],
)
def test_weights_and_kv_are_exact_and_compute_is_close(estimate: Estimate, holds: bool) -> None:
    assert errors(estimate, MEASURED).holds is holds


def test_an_error_has_the_sign_of_the_worst_device() -> None:
    expected = Totals((int(MEASURED.devices[0].buffers.total * 0.9), 0), MEASURED.host_total.total)

    found = total_errors(expected, MEASURED)

    assert found.device == pytest.approx(-0.1)
    assert found.host == 0
    assert not found.holds


def test_something_on_an_empty_device_is_infinitely_wrong() -> None:
    expected = Totals((MEASURED.devices[0].buffers.total, 1), MEASURED.host_total.total)

    assert math.isinf(total_errors(expected, MEASURED).device)


def test_cases_are_a_wide_cross_section() -> None:
    assert len(CASES) >= 120
    assert {case.devices for case in CASES} >= {0, 1, 2, 4, 8}
    assert {case.context for case in CASES} >= {2048, 131072}
    assert {(case.cache_k, case.cache_v) for case in CASES} >= {("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0")}
    assert {case.ubatch for case in CASES} >= {128, 512, 2048}
