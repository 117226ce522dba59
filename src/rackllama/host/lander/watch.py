"""Sources that trickle: their connections never time out, and would hold up a shard for hours."""

import threading
import time
from typing import Callable, Optional, TypeVar

from .sources import Floor, SourceError, Stream, TrickleError

T = TypeVar("T")


class Watch:
    """What one worker's connection brings in the time that is spent reading from it; `cut` ends such a read.

    Another thread calls `check` now and then, which sees a read that does not end: as reads are small, that brings too
    little, too. Waiting for the disk or a rate limit does not count.
    """

    def __init__(self, floor: Floor, cut: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._floor = floor
        self._cut = cut
        self._clock = clock
        self._lock = threading.Lock()
        self._label: Optional[str] = None
        self._reading_since: Optional[float] = None
        self._was_cut = False
        self._spent = 0.0
        self._taken = 0

    def begin(self, label: Optional[str]) -> None:
        """Watch what the source of that name brings from now on; None: it need not bring more, as no other would."""
        self._label, self._spent, self._taken, self._was_cut = label, 0.0, 0, False

    def during(self, read: Callable[[], T]) -> T:
        """What `read` gives; raises TrickleError where it had to be cut, or else what it raises."""
        started = self._clock()
        with self._lock:
            self._reading_since = started
        try:
            return read()
        except SourceError:
            self._check_cut()
            raise
        finally:
            with self._lock:
                self._reading_since = None
            self._spent += self._clock() - started

    def readinto(self, stream: Stream, view: memoryview) -> int:
        """As Stream.readinto; raises TrickleError where too few bytes came for the time that was spent on them."""
        count = self.during(lambda: stream.readinto(view))
        self._check_cut()
        self._taken += count
        if self._spent >= self._floor.seconds:
            if self._label is not None and self._taken < self._floor.bytes_per_second * self._spent:
                raise TrickleError(self._label)
            self._spent, self._taken = 0.0, 0
        return count

    def check(self) -> None:
        """Cut a read that lasts too long."""
        with self._lock:
            since = self._reading_since
            if self._label is not None and since is not None and self._clock() - since > self._floor.seconds:
                self._was_cut = True
                self._cut()

    def _check_cut(self) -> None:
        if self._was_cut and self._label is not None:
            raise TrickleError(self._label)
