"""Rounds of measurements, the targets, and what becomes of them."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .measure import Cost

NAIVE, BY_HAND = "naive", "by hand"
# What bounds each of our ways, besides the network and the disk.
LIMITS_OF = {"ours, published": "2 chains", "ours, known": "1 chain", "ours, unverified": "1 chain"}
MB = 1e6


@dataclass(frozen=True)
class Round:
    """One turn of everything: seconds by limit, and costs by way."""

    limits: Mapping[str, float]
    costs: Mapping[str, Cost]

    def limit_of(self, way: str) -> float:
        """The seconds that nothing can be faster than: the slowest of network, disk and digests."""
        return max(self.limits["network"], self.limits["disk"], self.limits[LIMITS_OF[way]])


@dataclass(frozen=True)
class Verdict:
    """A ratio (median of the rounds) and its target."""

    way: str
    what: str
    found: float
    target: float
    is_lower_bound: bool = False

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return self.found >= self.target if self.is_lower_bound else self.found <= self.target

    def __str__(self) -> str:
        """One line."""
        relation = "at least" if self.is_lower_bound else "at most"
        judged = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.way:<17} {self.what:<26} {self.found:7.3f}   {relation} {self.target:<5}  {judged}"


def verdicts(rounds: Sequence[Round], size: int) -> list[Verdict]:
    """All targets of all our ways. Ratios are taken within a round."""
    return [verdict for way in LIMITS_OF for verdict in _verdicts_of(way, rounds, size)]


def _verdicts_of(way: str, rounds: Sequence[Round], size: int) -> Iterator[Verdict]:
    def median(ratio: Callable[[Cost, Round], float]) -> float:
        return statistics.median(ratio(one.costs[way], one) for one in rounds)

    yield Verdict(way, "bytes written / size", median(lambda cost, _: cost.written / size), 1.01)
    yield Verdict(way, "peak disk / size", median(lambda cost, _: cost.peak / size), 1.01)
    yield Verdict(way, "CPU / naive", median(lambda cost, one: cost.cpu / one.costs[NAIVE].cpu), 0.27)
    yield Verdict(way, "wall / naive", median(lambda cost, one: cost.wall / one.costs[NAIVE].wall), 0.2)
    yield Verdict(way, "wall / by hand", median(lambda cost, one: cost.wall / one.costs[BY_HAND].wall), 0.75)
    yield Verdict(
        way, "limit / wall until landed", median(lambda cost, one: one.limit_of(way) / cost.landed), 0.7, True
    )


def print_report(rounds: Sequence[Round], size: int) -> None:
    """The medians of all figures, and the targets."""
    print(f"\nmedians of {len(rounds)} rounds (the least and the most in parentheses)\n")
    print(f"{'limit':<18} {'seconds':>20}")
    for name in rounds[0].limits:
        print(f"{name:<18} {_spread([one.limits[name] for one in rounds]):>20}")
    print(f"\n{'way':<17} {'wall s':>22} {'landed s':>9} {'CPU s':>22} {'written MB':>17} {'peak MB':>16}")
    for name in rounds[0].costs:
        costs = [one.costs[name] for one in rounds]
        written, peak = (
            statistics.median(values) for values in zip(*((c.written, c.peak) for c in costs), strict=True)
        )
        landed = statistics.median(cost.landed for cost in costs)
        walls, cpus = _spread([cost.wall for cost in costs]), _spread([cost.cpu for cost in costs])
        disk = f"{written / MB:9.0f} ({written / size:.2f}x) {peak / MB:8.0f} ({peak / size:.2f}x)"
        print(f"{name:<17} {walls:>22} {landed:9.2f} {cpus:>22} {disk}")
    print()
    for verdict in verdicts(rounds, size):
        print(verdict)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
