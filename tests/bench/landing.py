"""`make bench-landing`: the naive way, the cleverest manual way and ours, in turns, against the limits of the machine.

python -m tests.bench.landing [--size 250m|4g] [--rounds N] [--json FILE]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rackllama.host.errors import RackllamaError

from .inputs import SIZES, Input, bench_dir, prepared, read_through, tools
from .measure import Cost, measure
from .report import Round, print_report, verdicts
from .ways import (
    CHECKOUT,
    Place,
    Way,
    by_hand,
    curl,
    faster_hasher,
    file_server,
    fresh_place,
    naive,
    ours,
    require_served,
)


def main() -> int:
    """Run the benchmark; 1 where a target does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="250m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        return run(arguments.size, arguments.rounds, arguments.json)
    except RackllamaError as error:
        print(f"{error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return 2


def run(size: str, count: int, report: Path | None) -> int:
    """Measure `count` rounds of one size, print them, and write them down."""
    tool = tools()
    found = prepared(size, tool)
    read_through(found)
    hasher = faster_hasher(found.shards[-1])
    ways: dict[str, Way] = {
        "naive": partial(naive, found, tool),
        "by hand": partial(by_hand, found, tool, hasher),
        "ours, published": partial(ours, found, True, False),
        "ours, known": partial(ours, found, True, True),
        "ours, unverified": partial(ours, found, False, False),
    }
    rounds = []
    with file_server(found.folder) as url:
        for number in range(count):
            say(f"round {number + 1} of {count}: limits")
            limits = measured_limits(found, url)
            costs: dict[str, Cost] = {}
            for name, way in ways.items():
                say(f"round {number + 1} of {count}: {name}")
                costs[name] = cost_of(way, lambda folder: fresh_place(tool, folder, url), found)
            rounds.append(Round(limits, costs))
    say(f"{size}: {found.merged_size} bytes in {len(found.shards)} shards; the manual way takes its digest by {hasher}")
    print_report(rounds, found.merged_size)
    if report:
        document = {
            "size": size,
            "bytes": found.merged_size,
            "hasher": hasher,
            "rounds": [asdict(one) for one in rounds],
        }
        report.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(verdict.holds for verdict in verdicts(rounds, found.merged_size)) else 1


def measured_limits(found: Input, url: str) -> dict[str, float]:
    """Seconds that the network, the disk and the processor need for this model, each alone."""
    folder = bench_dir() / "work"
    folder.mkdir(exist_ok=True)
    size = str(found.merged_size // 2**21 * 2**21)
    settle()
    network = measure(lambda: curl(found, url, None), folder, None).wall
    writes = [limit(kind, str(folder / "limit"), size) for kind in ("disk", "disk-cached")]
    return {
        "network": network,
        "disk": min(writes),
        "1 chain": limit("hash", "1", size),
        "2 chains": limit("hash", "2", size),
    }


def limit(*what: str) -> float:
    """Seconds that `tests.bench.limits` tells."""
    settle()
    command = [sys.executable, CHECKOUT / "tests/bench/limits.py", *what]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def cost_of(way: Way, place_in: Callable[[Path], AbstractContextManager[Place]], found: Input) -> Cost:
    """The cost of one way, in a fresh place; what it brought is checked."""
    with place_in(bench_dir() / "work") as place:
        settle()
        cost = measure(lambda: way(place), place.folder, place.process)
        require_served(found, place)
    return cost


def settle() -> None:
    """Let nobody pay for what another one left to be written."""
    os.sync()


def say(what: str) -> None:
    """Tell how far it is."""
    print(what, flush=True)


if __name__ == "__main__":
    sys.exit(main())
