"""A landing of a file that is larger than the memory it may use, page cache included.

    python -m tests.bench.small_memory

Needs root, and cgroups of either version with the memory controller.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.host.models.ollama_store import OllamaStore

from .inputs import bench_dir, prepared, tools
from .ways import MODEL, bring_command, file_server, fresh_place

LIMIT_BYTES = 512 << 20
CGROUPS = Path("/sys/fs/cgroup")
MIB = 2**20


@dataclass(frozen=True)
class Interface:
    """The files of one version of cgroups."""

    root: Path
    limit: str
    most_used: str


INTERFACES = (
    Interface(CGROUPS / "memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    Interface(CGROUPS, "memory.max", "memory.peak"),
)


def main() -> int:
    """Land, and tell what it took."""
    try:
        return run()
    except RackllamaError as error:
        print(f"{error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return 2


def run() -> int:
    """1 where the landing fails, or brings other bytes than upstream's tool."""
    tool = tools()
    found = prepared("4g", tool)
    with (
        file_server(found.folder) as url,
        fresh_place(tool, bench_dir() / "work", url) as place,
        limited_group(LIMIT_BYTES) as (group, interface),
    ):
        command, environment = bring_command(found, True, False, place)
        enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        started = time.monotonic()
        done = subprocess.run([*enter, *command], env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        most = int((group / interface.most_used).read_text())
        model = OllamaStore(place.store).model(MODEL)
    if done.returncode:
        print(f"exit {done.returncode}: {done.stderr[-1000:]}", file=sys.stderr)
        return 1
    is_right = model is not None and model.weights is not None and model.weights.digest.endswith(found.merged_sha256)
    print(f"{found.merged_size / MIB:.0f} MiB landed within {LIMIT_BYTES / MIB:.0f} MiB of memory in {seconds:.1f} s")
    resident = json.loads(done.stdout)["resident"]
    print(f"resident at most {resident / MIB:.0f} MiB; with page cache charged {most / MIB:.0f} MiB")
    print(f"the digest is {'' if is_right else 'NOT '}that of upstream's own merge")
    return 0 if is_right else 1


@contextmanager
def limited_group(limit: int) -> Iterator[tuple[Path, Interface]]:
    """A group of processes that may use so many bytes of memory. There is no swap to escape to."""
    interface = next((one for one in INTERFACES if list(one.root.glob(f"*/{one.limit}"))), None)
    if os.geteuid() or interface is None or len(Path("/proc/swaps").read_text().splitlines()) > 1:
        raise RackllamaError("memory cannot be limited here", "run as root, without swap, where cgroups are mounted")
    group = interface.root / f"rackllama-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / interface.limit).write_text(str(limit))
        yield group, interface
    finally:
        group.rmdir()


if __name__ == "__main__":
    sys.exit(main())
