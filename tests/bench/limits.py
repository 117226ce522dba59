"""The limits of a machine: how long its disk and its processor need for so many bytes, doing nothing else.

    python -m tests.bench.limits disk|disk-cached FILE BYTES
    python -m tests.bench.limits hash CHAINS BYTES

Prints seconds.
"""

import hashlib
import mmap
import os
import sys
import threading
import time
from pathlib import Path

CHUNK_BYTES = 1 << 21


def main() -> None:
    """Measure what the command line names."""
    what, how, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    chunk = memoryview(mmap.mmap(-1, CHUNK_BYTES))
    chunk[:] = os.urandom(CHUNK_BYTES)
    print(hash_seconds(chunk, int(how), size) if what == "hash" else write_seconds(chunk, Path(how), size, what))


def write_seconds(chunk: memoryview, path: Path, size: int, what: str) -> float:
    """Write whole chunks, until they are durable."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if what == "disk" else 0)
    started = time.monotonic()
    descriptor = os.open(path, flags, 0o600)
    os.posix_fallocate(descriptor, 0, size)
    for offset in range(0, size, CHUNK_BYTES):
        os.pwrite(descriptor, chunk, offset)
    os.fdatasync(descriptor)
    seconds = time.monotonic() - started
    os.close(descriptor)
    path.unlink()
    return seconds


def hash_seconds(chunk: memoryview, chains: int, size: int) -> float:
    """One sha256 chain in each of so many threads, all of them over `size` bytes."""

    def chain() -> None:
        hasher = hashlib.sha256()
        for _ in range(0, size, CHUNK_BYTES):
            hasher.update(chunk)

    threads = [threading.Thread(target=chain) for _ in range(chains)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
