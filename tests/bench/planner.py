"""`make bench-planner`: our plan and gguf-parser's estimate against llama.cpp's own dry run, over all cases.

python -m tests.bench.planner [--page FILE] [--measured FILE]

gguf-parser is asked where it is on PATH.
"""

import argparse
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot.recipes import LLAMA_CPP

from ..planner.accuracy import MIB, Errors, TotalErrors, Totals, errors, total_errors
from ..planner.cases import CASES, GROUPS, read_measured
from ..planner.estimate import ours
from ..planner.oracle import ALL_LAYERS, Case, Measured, Oracle

PAGE = Path("docs/planner-accuracy.md")
GGUF_PARSER = "gguf-parser"
NONE = "-"
PARTS = ("weights", "KV", "compute", "device")

INTRODUCTION = """# How exact the plan is

`make bench-planner` wrote this page on {date}. For each case it asks the real llama-server ({llama_cpp}) for its dry
run, in which all buffers are laid out and none is allocated, and compares with it what `rackllama plan` and
[gguf-parser](https://github.com/gpustack/gguf-parser-go) ({gguf_parser}) expect from the same file.

- Each GPU is an RPC server, and gguf-parser is told so. What only CUDA adds (its context, pinned and pipeline copies,
  weights of the host copied for large batches) is in none of these figures; the plan states it apart.
- All models but Gemma 3 270M are headers alone: true metadata and tensors, and a hole for the data.
- "Weights" and "KV" are bytes off on the worst device or the host, "compute" is the error of the worst buffer, and
  "device" that of the worst device's total. gguf-parser tells totals only; it is asked for no platform footprint and
  no mmap. An error is infinite where something is expected on a device that holds nothing.
- An error below 0 means that the engine takes more than was expected: out of memory. A plan has to be exact in weights
  and KV, within 5 % or 64 MiB in compute buffers and within 2 % in a device's total.
"""


@dataclass(frozen=True)
class Row:
    """One case. What is None was not asked, or did not answer."""

    case: Case
    measured: Measured
    ours: Errors | None
    gguf_parser: TotalErrors | None


def gguf_parser(case: Case, model: Path) -> Totals | None:
    """What gguf-parser expects, or None where it fails."""
    layers = 0 if case.devices == 0 else -1 if case.gpu_layers == ALL_LAYERS else case.gpu_layers
    split = ",".join(f"{part:g}" for part in case.tensor_split or (1,) * case.devices)
    endpoints = ",".join(f"gpu{number}:1" for number in range(case.devices))
    experts = "|".join(str(layer) for layer in range(case.cpu_moe_layers))
    overrides = [*case.override_tensors, *([rf"blk\.({experts})\.ffn_(gate|up|down)_exps=CPU"] if experts else [])]
    command = [
        *(GGUF_PARSER, "--path", str(model), "--estimate", "--json", "--no-mmap", "--platform-footprint", "0,0"),
        *("--ctx-size", str(case.context), "--parallel-size", str(case.parallel), "--gpu-layers", str(layers)),
        *("--batch-size", str(case.batch), "--ubatch-size", str(case.ubatch)),
        *("--cache-type-k", case.cache_k, "--cache-type-v", case.cache_v),
        "--flash-attention" if case.flash_attention else "--no-flash-attention",
        *(("--rpc", endpoints, "--tensor-split", split) if case.devices else ()),
        *(argument for override in overrides for argument in ("--override-tensor", override)),
    ]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        print(f"{GGUF_PARSER} on {case}: {asked.stderr.strip()}", file=sys.stderr)
        return None
    (item,) = json.loads(asked.stdout)["estimate"]["items"]
    devices = tuple(device["nonuma"] for device in item["vrams"][: case.devices])
    return Totals(devices, item["ram"]["nonuma"])


def rows(measured: dict[Case, Measured], oracle: Oracle, ask_gguf_parser: bool) -> Iterator[Row]:
    """All cases, in their order."""
    for case in CASES:
        model = oracle.model(case.model)
        found = measured[case] if case in measured else oracle.measure(case)
        plan = ours(case, model, found)
        told = gguf_parser(case, model) if ask_gguf_parser else None
        yield Row(case, found, plan and errors(plan, found), told and total_errors(told, found))


def page(table: Sequence[Row], gguf_parser_version: str | None) -> str:
    """The page: a summary by group, then each case."""
    by_case = {row.case: row for row in table}
    groups = {name: [by_case[case] for case in cases] for name, cases in GROUPS.items()}
    introduction = INTRODUCTION.format(
        date=datetime.now(UTC).date(),
        llama_cpp=LLAMA_CPP.version,
        gguf_parser=gguf_parser_version or "was not on PATH",
    )
    return "\n".join(
        [
            introduction,
            "## By what is varied",
            "",
            _line(["varied", "cases", "ours: hold", *PARTS, "gguf-parser: median", "lowest", "highest"]),
            _line(["---"] * 10),
            *(_summary(name, found) for name, found in [*groups.items(), ("all", list(table))]),
            *(line for name, found in groups.items() for line in _details(name, found)),
            "",
        ]
    )


def _summary(name: str, table: Sequence[Row]) -> str:
    plans = [row.ours for row in table if row.ours]
    told = [row.gguf_parser.device for row in table if row.gguf_parser and row.case.devices]
    cells = [
        name,
        str(len(table)),
        f"{sum(plan.holds for plan in plans)}" if plans else NONE,
        _worst(plans, lambda plan: plan.weights, _bytes),
        _worst(plans, lambda plan: plan.kv, _bytes),
        _worst(plans, lambda plan: plan.compute_share, _percent),
        _worst(plans, lambda plan: plan.total.device, _percent),
        f"{statistics.median(map(abs, told)):.1%}" if told else NONE,
        _percent(min(told)) if told else NONE,
        _percent(max(told)) if told else NONE,
    ]
    return _line(cells)


def _details(name: str, table: Sequence[Row]) -> Iterator[str]:
    yield from ("", f"## {name.capitalize()}", "")
    heads = ["case", "largest device, GiB", "host, GiB", *(f"ours: {part}" for part in PARTS)]
    yield _line([*heads, "gguf-parser: device", "host"])
    yield _line(["---"] * 9)
    for row in table:
        largest = max((device.buffers.total for device in row.measured.devices), default=0)
        plan, told = row.ours, row.gguf_parser
        cells = [
            str(row.case).replace("|", "\\|"),
            f"{largest / 2**30:.2f}",
            f"{row.measured.host_total.total / 2**30:.2f}",
            *(
                [
                    _bytes(plan.weights),
                    _bytes(plan.kv),
                    f"{_percent(plan.compute_share)} ({plan.compute / MIB:+.1f} MiB)",
                    _percent(plan.total.device),
                ]
                if plan
                else [NONE] * 4
            ),
            *([_percent(told.device), _percent(told.host)] if told else [NONE] * 2),
        ]
        yield _line(cells)


def _worst[N](plans: Sequence[Errors], value: Callable[[Errors], N], written: Callable[[N], str]) -> str:
    return written(max(map(value, plans), key=abs)) if plans else NONE


def _percent(part: float) -> str:
    return "∞" if math.isinf(part) else f"{part:+.1%}" if part else "0"


def _bytes(count: int) -> str:
    return f"{count:+d}" if count else "0"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _gguf_parser_version() -> str | None:
    if not shutil.which(GGUF_PARSER):
        return None
    told = subprocess.run([GGUF_PARSER, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v[\d.]+", told)
    return found[0] if found else told.strip()


def main() -> int:
    """Write the page; 1 where our plan is not exact enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--measured", type=Path, metavar="FILE", help="what tests.planner.cases --json wrote")
    arguments = parser.parse_args()
    version = _gguf_parser_version()
    try:
        with Oracle() as oracle:
            measured = read_measured(arguments.measured) if arguments.measured else {}
            table = list(rows(measured, oracle, bool(version)))
    except RackllamaError as error:
        print(f"{error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return 2
    arguments.page.write_text(page(table, version))
    missed = [row for row in table if row.ours and not row.ours.holds]
    for row in missed:
        print(f"{row.case}: {row.ours}")
    print(f"{len(table)} cases, of which the plan misses {len(missed)}; see {arguments.page}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
