"""Memory for received pieces: they stay where they were received until they are hashed, as long as there is room."""

import mmap
import threading
from typing import List

from .grains import GRAIN_BYTES


class Buffers:
    """Buffers of `GRAIN_BYTES`, each beginning at a page: one for each of `workers` to receive in, others to keep.

    They take memory from the system only as they are used, and the one that was used last is used next.
    """

    def __init__(self, workers: int, most_kept: int) -> None:
        memory = memoryview(mmap.mmap(-1, (workers + most_kept) * GRAIN_BYTES))
        self._free: List[memoryview] = [
            memory[start : start + GRAIN_BYTES] for start in reversed(range(0, len(memory), GRAIN_BYTES))
        ]
        self._room = threading.Semaphore(most_kept)

    def take(self) -> memoryview:
        """One to receive in; each worker has at most one that is not kept."""
        return self._free.pop()

    def give_back(self, buffer: memoryview) -> None:
        """It was used, and is not kept."""
        self._free.append(buffer)

    def may_keep(self) -> bool:
        """Whether there is room to keep one more; its place is then taken."""
        return self._room.acquire(blocking=False)

    def release(self, buffer: memoryview) -> None:
        """One that was kept is not needed any more."""
        self._free.append(buffer)
        self._room.release()
