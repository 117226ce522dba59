"""How far an estimate is from what llama.cpp says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .oracle import Buffers, Measured

MIB = 2**20
COMPUTE_SHARE, COMPUTE_BYTES, TOTAL_SHARE = 0.05, 64 * MIB, 0.02


@dataclass(frozen=True)
class Estimate:
    """What somebody expects on each device, in the order of the tensor split, and on the host."""

    devices: tuple[Buffers, ...]
    host: Buffers


@dataclass(frozen=True)
class Totals:
    """The same, of somebody who tells only sums."""

    devices: tuple[int, ...]
    host: int


@dataclass(frozen=True)
class TotalErrors:
    """Shares of what was measured, below 0 where too little was expected: of the worst device, and of the host."""

    device: float
    host: float

    @property
    def holds(self) -> bool:
        return abs(self.device) <= TOTAL_SHARE


@dataclass(frozen=True)
class Errors:
    """In bytes, of the worst device or the host, but for the shares."""

    weights: int
    kv: int
    compute: int
    compute_share: float
    total: TotalErrors

    @property
    def holds(self) -> bool:
        """Whether the estimate is as exact as a plan has to be."""
        compute_holds = abs(self.compute) <= COMPUTE_BYTES or abs(self.compute_share) <= COMPUTE_SHARE
        return not self.weights and not self.kv and compute_holds and self.total.holds


def share(estimate: int, measured: int) -> float:
    """The error in parts of what was measured; infinite where nothing was."""
    if estimate == measured:
        return 0.0
    return estimate / measured - 1 if measured else math.inf


def worst[N: (int, float)](errors: Sequence[N]) -> N:
    """The one farthest from 0, with its sign."""
    return max(errors, key=abs)


def total_errors(estimate: Totals, measured: Measured) -> TotalErrors:
    devices = [
        share(expected, device.buffers.total)
        for expected, device in zip(estimate.devices, measured.devices, strict=True)
    ]
    return TotalErrors(worst([0.0, *devices]), share(estimate.host, measured.host_total.total))


def errors(estimate: Estimate, measured: Measured) -> Errors:
    expected = [*estimate.devices, estimate.host]
    found = [*(device.buffers for device in measured.devices), measured.host_total]
    pairs = list(zip(expected, found, strict=True))
    # The pair that is judged by its share is the worst of those that are not judged by bytes.
    compute, compute_share = max(
        ((one.compute - other.compute, share(one.compute, other.compute)) for one, other in pairs),
        key=lambda error: (abs(error[0]) > COMPUTE_BYTES, abs(error[1])),
    )
    totals = Totals(tuple(device.total for device in estimate.devices), estimate.host.total)
    return Errors(
        worst([one.model - other.model for one, other in pairs]),
        worst([one.context - other.context for one, other in pairs]),
        compute,
        compute_share,
        total_errors(totals, measured),
    )
