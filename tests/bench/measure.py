"""What a piece of work costs: wall, processor's time, bytes written, and disk space at its peak.

Of all processes that were started and have ended, the kernel adds up their time and I/O in the one that waited for
them; a server that goes on is read before and after, together with what it waited for.
"""

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """`wall` and `cpu` (user and system) in seconds; `written` as /proc/PID/io tells `write_bytes`; `peak` in bytes.

    `landed` is how much of `wall` had passed when the file was whole, for work that tells.
    """

    wall: float
    cpu: float
    written: int
    peak: int
    landed: float


@dataclass(frozen=True)
class Used:
    """What was used so far."""

    cpu: float
    written: int


def measure(work: Callable[[], float | None], folder: Path, server: int | None) -> Cost:
    """Do the work and tell its cost. It writes below `folder`; `server` is a process that works for it.

    Work may tell when the file was whole, by the monotonic clock.
    """
    before, at_first = _used(server), disk_bytes(folder)
    with _peak(folder) as peak:
        started = time.monotonic()
        landed_at = work()
        wall = time.monotonic() - started
    after = _used(server)
    landed = wall if landed_at is None else landed_at - started
    return Cost(wall, after.cpu - before.cpu, after.written - before.written, peak[0] - at_first, landed)


def disk_bytes(folder: Path) -> int:
    """What the files below a folder take on the disk, each once, whatever its names."""
    found: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - a path object for each costs more
            except FileNotFoundError:
                continue
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


@contextmanager
def _peak(folder: Path) -> Iterator[list[int]]:
    """A list of one number: the most that was seen on the disk."""
    peak, ended = [disk_bytes(folder)], threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], disk_bytes(folder))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
        peak[0] = max(peak[0], disk_bytes(folder))


def _used(server: int | None) -> Used:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, written = children.ru_utime + children.ru_stime, _written(os.getpid())
    if server is None:
        return Used(cpu, written)
    # After the name in parentheses: user and system time of the process, and of the children it waited for.
    times = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[11:15]
    return Used(cpu + sum(map(int, times)) / _TICKS, written + _written(server))


def _written(process: int) -> int:
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
