"""Fit the planner's speed model to published measurements, and say how far off it is.

    python -m tests.bench.speed [--fit]

The points are those of calibration.csv: `given` and `calibration` ones are fitted on, `held out` ones only judged by.
With --fit the parameters are fitted anew and written to speed.yaml. Tables are as docs/planner-speed.md has them.
"""

import argparse
import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from statistics import median

import yaml

from rackllama.host.lander import gguf
from rackllama.planning import speed
from rackllama.planning.serving import Placement, Serving, by_shares
from rackllama.planning.shape import ModelShape, read_shape
from rackllama.planning.speed import Band, Bandwidths, Parameters, StreamDevice, Vintage

from ..planner import header_only
from ..planner.header_only import MODELS, Architecture, Quantization, deepseek_r1, llama

FOLDER = Path(speed.__file__).parent
CSV, YAML = FOLDER / "calibration.csv", FOLDER / "speed.yaml"
GIVEN, ADDED, HELD_OUT = "given", "calibration", "held out"

# Not among the models of the planner's other tests: measured quantizations, made as their publishers describe them.
MORE_MODELS: dict[str, tuple[Architecture, Quantization]] = {
    "deepseek-r1-mla-iq4_xs-iq3_s": (
        deepseek_r1("mla"),
        Quantization([("ffn_down_exps", "iq4_xs"), ("ffn_*_exps", "iq3_s"), ("*", "q8_0")]),
    ),
    "deepseek-r1-mha-iq4_xs": (deepseek_r1("mha"), Quantization([("output", "q6_K"), ("*", "iq4_xs")])),
    "llama-3.3-70b-f16": (llama(80, 8192, 64, 28672), Quantization([("*", "f16")])),
}

# What is not fitted. A hop is what one more RTX 3090 or 4090 adds to the time of a token in the source of X1.
HOP_SECONDS = 0.00015
# Where the fit starts: 1 / a part of the bandwidth, and seconds.
START = {
    "read.cuda": 1.2,
    "read.cuda-hbm": 1.8,
    "read.metal": 1.3,
    "read.cpu": 1.8,
    "read.kv_without_flash": 4.0,
    "layer.cuda": 1e-4,
    "layer.metal": 2e-4,
    "layer.latent": 2e-4,
    "experts.cpu": 1e-3,
    "experts.cuda": 5e-4,
    "experts.cuda-hbm": 1e-3,
}
# An achieved part of the bandwidth is at most this, whatever points say.
MOST_ACHIEVED = 0.95
# Of the error of a logarithm: beyond it an outlier pulls no harder.
HUBER = 0.1


@dataclass(frozen=True)
class Point:
    """One published measurement, and the devices that one token went through."""

    id: str
    set: str
    hardware: str
    engine: str
    model: str
    vintage: Vintage
    depth: int
    devices: tuple[StreamDevice, ...]
    low: float
    high: float
    source: str

    @property
    def measured(self) -> float:
        """Tokens a second; of a range the middle."""
        return math.sqrt(self.low * self.high)

    @property
    def amounts(self) -> dict[str, float]:
        """How much of each coefficient the time of a token takes."""
        found: dict[str, float] = {}
        for cost in speed.costs(self.devices, self.vintage):
            found[cost.coefficient] = found.get(cost.coefficient, 0) + cost.amount
        return found

    def predicted(self, parameters: Parameters) -> Band:
        return speed.decode(self.devices, self.vintage, parameters)

    def error(self, parameters: Parameters) -> float:
        """Predicted / measured - 1."""
        return self.predicted(parameters).mid / self.measured - 1

    def is_within(self, parameters: Parameters) -> bool:
        """Whether the band has what was measured, or of a range its middle."""
        band = self.predicted(parameters)
        return band.low <= self.measured <= band.high


@lru_cache
def shape(name: str) -> ModelShape:
    """A model's shape, from a header that is made for it."""
    MODELS.update({name: made for name, made in MORE_MODELS.items() if name not in MODELS})
    return read_shape(gguf.from_bytes(header_only.header(name)))


@lru_cache
def points() -> tuple[Point, ...]:
    """All of calibration.csv."""
    with CSV.open(newline="") as file:
        return tuple(_point(row) for row in csv.DictReader(file))


def _point(row: Mapping[str, str]) -> Point:
    model, gpus = shape(row["model"]), int(row["gpus"])
    layers = model.layers + 1 if row["gpu_layers"] == "all" else int(row["gpu_layers"])
    placement = Placement(by_shares(layers, [1] * gpus) if gpus else (), int(row["experts_on_host"]))
    devices = speed.stages(
        model,
        placement,
        Serving(flash_attention=row["flash_attention"] == "on"),
        int(row["depth"]),
        Bandwidths(
            (float(row["gpu_gbs"] or 0),) * gpus,
            row["gpu_kind"] or "cuda",
            float(row["ram_gbs"]) if row["ram_gbs"] else None,
        ),
    )
    return Point(
        row["id"],
        row["set"],
        row["hardware"],
        row["engine"],
        row["model"],
        row["vintage"],
        int(row["depth"]),
        tuple(devices),
        float(row["tok_s_low"]),
        float(row["tok_s_high"]),
        row["source"],
    )


def fit(known: Sequence[Point], start: Mapping[str, float] | None = None) -> dict[str, float]:
    """The coefficients with the least sum of Huber losses of log(predicted / measured).

    Times are linear in the coefficients, so that one at a time is improved by a golden-section search over its
    logarithm, round after round until no round helps.
    """
    found = dict(start or START)
    amounts = [point.amounts for point in known]
    wanted = [1 / point.measured for point in known]
    times = [sum(found.get(name, HOP_SECONDS) * amount for name, amount in own.items()) for own in amounts]
    last = math.inf
    for _ in range(2000):
        for name, now in found.items():
            touched = [(i, own[name]) for i, own in enumerate(amounts) if name in own]
            rest = [(times[i] - now * amount, amount, wanted[i]) for i, amount in touched]
            found[name] = better = _least(rest, now, 1 / MOST_ACHIEVED if name.startswith("read.") else 1e-7)
            for (i, amount), (others, _, _) in zip(touched, rest, strict=True):
                times[i] = others + better * amount
        loss = sum(_huber(math.log(time / want)) for time, want in zip(times, wanted, strict=True))
        if last - loss < 1e-9:
            break
        last = loss
    return found


def _least(rest: Sequence[tuple[float, float, float]], now: float, least: float) -> float:
    def loss(logarithm: float) -> float:
        value = math.exp(logarithm)
        return sum(_huber(math.log((others + value * amount) / want)) for others, amount, want in rest)

    golden = (math.sqrt(5) - 1) / 2
    low, high = max(math.log(now) - 0.7, math.log(least)), max(math.log(now) + 0.7, math.log(least))
    if not rest or low >= high:
        return now
    inner, outer = high - golden * (high - low), low + golden * (high - low)
    at_inner, at_outer = loss(inner), loss(outer)
    while high - low > 1e-5:
        if at_inner <= at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - golden * (high - low)
            at_inner = loss(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + golden * (high - low)
            at_outer = loss(outer)
    return math.exp((low + high) / 2)


def _huber(error: float) -> float:
    return error * error / 2 if abs(error) <= HUBER else HUBER * (abs(error) - HUBER / 2)


def parameters(coefficients: Mapping[str, float]) -> Parameters:
    """The fitted coefficients, with the spread that is chosen beside them (docs/planner-speed.md says why)."""
    chosen = speed.fitted()
    return Parameters({**coefficients, "hop": HOP_SECONDS}, chosen.spread_dense_on_gddr, chosen.spread)


def leave_one_out(known: Sequence[Point]) -> dict[str, float]:
    """By id, the error at each point of a model that was fitted on all others.

    A coefficient that no other point decides stays where the fit starts.
    """
    return {one.id: one.error(parameters(fit([other for other in known if other is not one]))) for one in known}


def median_error(errors: Iterable[float]) -> float:
    """Of the errors' amounts, without their signs."""
    return median(abs(error) for error in errors)


def points_of(*sets: str) -> list[Point]:
    """Those of these sets."""
    return [point for point in points() if point.set in sets]


def as_yaml(coefficients: Mapping[str, float], known: int, today: str) -> str:
    """What speed.yaml is to hold."""
    chosen = speed.fitted()
    parts = {name.removeprefix("read."): 1 / value for name, value in coefficients.items() if name.startswith("read.")}
    others = {name: value * 1000 for name, value in coefficients.items() if not name.startswith("read.")}
    told = {
        "fitted": today,
        "points": known,
        "achieved_part_of_bandwidth": {name: round(part, 3) for name, part in parts.items()},
        "milliseconds": {name: round(value, 3) for name, value in {**others, "hop": HOP_SECONDS * 1000}.items()},
        "spread": {"dense_on_gddr": chosen.spread_dense_on_gddr, "otherwise": chosen.spread},
    }
    head = "# Written by `python -m tests.bench.speed --fit`; docs/planner-speed.md tells what each is, and on what.\n"
    return f"---\n{head}" + yaml.safe_dump(told, sort_keys=False)


def table(chosen: Sequence[Point], left_out: Mapping[str, float]) -> Iterable[str]:
    """Markdown, a line for each point."""
    yield "| | hardware | engine | model | depth | measured | predicted | band | error | left out |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    known = speed.fitted()
    for point in chosen:
        band = point.predicted(known)
        measured = f"{point.low:g}" if point.low == point.high else f"{point.low:g}-{point.high:g}"
        outside = "" if point.is_within(known) else " **outside**"
        left = f"{left_out[point.id]:+.0%}" if point.id in left_out else ""
        yield (
            f"| {point.id} | {point.hardware} | {point.engine} | {point.model} | {point.depth} | {measured} "
            f"| {band.mid:.3g} | {band.low:.3g}-{band.high:.3g}{outside} | {point.error(known):+.0%} | {left} |"
        )


def summary() -> Iterable[str]:
    """How far off the model is, in sentences."""
    known, fitted_on = speed.fitted(), points_of(GIVEN, ADDED)
    left_out = leave_one_out(fitted_on)
    left_out_given = leave_one_out(points_of(GIVEN))
    for words, sets in (("given", [GIVEN]), ("given and added", [GIVEN, ADDED]), ("held out", [HELD_OUT])):
        chosen = points_of(*sets)
        within = sum(point.is_within(known) for point in chosen)
        error = median_error(point.error(known) for point in chosen)
        left = [left_out[point.id] for point in chosen if point.id in left_out]
        yield f"{words}: {len(chosen)} points, median error {error:.1%}, {within} within the band" + (
            f", left out one at a time {median_error(left):.1%}" if left else ""
        )
    alone, others = parameters(fit(points_of(GIVEN))), points_of(ADDED, HELD_OUT)
    error, within = (
        median_error(point.error(alone) for point in others),
        sum(point.is_within(alone) for point in others),
    )
    yield (
        f"fitted on the given alone: left out one at a time {median_error(left_out_given.values()):.1%}; "
        f"the {len(others)} others {error:.1%}, {within} within the band"
    )


def main() -> None:
    """Fit where asked to, and print the tables of docs/planner-speed.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit anew and write speed.yaml")
    fitted_on = points_of(GIVEN, ADDED)
    if parser.parse_args().fit:
        YAML.write_text(as_yaml(fit(fitted_on), len(fitted_on), f"{datetime.now(UTC):%Y-%m-%d}"))
        speed.fitted.cache_clear()
    print("\n".join([*summary(), "", *table(fitted_on, leave_one_out(fitted_on)), "", *table(points_of(HELD_OUT), {})]))


if __name__ == "__main__":
    main()
