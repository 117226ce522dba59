"""Who does what next in a landing: which pieces are missing, being fetched, here and hashed. Memory only, no I/O.

All threads of a landing meet here, under one lock. Workers ask for spans of missing pieces and report what came;
digests wait for pieces in order. A piece found to be damaged, or a shard with a wrong digest, is missing again.
"""

import threading
import time
from collections import Counter
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import RackllamaError
from .buffers import Buffers
from .grains import GRAIN_BYTES, Tiling, span_bytes
from .landing_job import ShardJob
from .sources import SourceError, Sources

MISSING, TAKEN, HERE = 0, 1, 2
NO_CHECKSUM = -1  # of a damaged piece until it is here again: whatever is read of it meanwhile is wrong
BATCH_PIECES = 4
# Fetching further ahead of the digests gains nothing: what comes then has to be read from the disk again.
MOST_AHEAD_BYTES = 128 << 20
SHARD, WHOLE = 1, 2  # who reads a piece: the digest of its shard, that of the landed file


class AbortedError(Exception):
    """The landing ended elsewhere; the reason stands there."""


class RewoundError(Exception):
    """A shard that was hashed already is fetched again."""


class ShardState:
    """One shard under way. Other threads change it only through the Schedule."""

    def __init__(
        self, job: ShardJob, tiling: Tiling, sources: Sources, checksums: Dict[int, int], hash_whole: bool
    ) -> None:
        """`checksums` are of the pieces, by number, that an earlier run left: none is believed without it.

        `hash_whole` says whether the digest of the landed file reads the stored pieces, too.
        """
        self.job = job
        self.tiling = tiling
        self.sources = sources
        self.checksums = checksums
        self.readers = (SHARD if job.sha256 else 0) | (WHOLE if hash_whole else 0)
        self.margins: Dict[int, bytes] = {}
        self.kept: Dict[int, memoryview] = {}  # stored pieces that are in memory as well
        self.generation = 0
        self.workers = 0
        self.verified = job.sha256 is None
        self.states = bytearray(tiling.count)
        self.origins = bytearray(tiling.count)  # 1 + the number of the source, 0 for an earlier run
        self.unread = bytearray([self.readers]) * tiling.count  # the digests that did not read a piece yet
        for number in range(tiling.count):
            if number in checksums or not (job.sha256 or self.is_stored(number)):
                self.states[number] = HERE

    def is_stored(self, number: int) -> bool:
        """Whether a piece belongs into the landed file."""
        return self.tiling.before <= number < self.tiling.before + self.tiling.grains

    def bytes_here(self) -> int:
        """How many bytes for the landed file are here."""
        return sum(self.length(number) for number in self.checksums)

    def length(self, number: int) -> int:
        """The bytes of a piece."""
        piece = self.tiling.piece(number)
        return piece.end - piece.start


class Span(NamedTuple):
    """Pieces `first` to `last` (not included) of a shard, to be asked of one source at once."""

    shard: ShardState
    first: int
    last: int
    source: int


class Schedule:
    """The shared state. Every method that waits raises AbortedError once the landing has failed or was stopped."""

    def __init__(self, shards: Sequence[ShardState], connections: int, width: int) -> None:
        """`width` is how many shards are fetched at the same time."""
        self.shards = shards
        self.stopped = threading.Event()
        self.error: Optional[BaseException] = None
        self.bytes_here = sum(shard.bytes_here() for shard in shards)
        self._connections = connections
        self.width = width
        self.buffers = Buffers(connections, MOST_AHEAD_BYTES // GRAIN_BYTES)
        self._remaining = sum(shard.job.placement.length for shard in shards) - self.bytes_here
        self._unhashed = 0  # bytes handed out in this run and not yet hashed
        self._unread = self.bytes_here  # bytes of earlier runs and not yet hashed
        self._awaited: List[Tuple[ShardState, int]] = []  # pieces that digests wait for, one each at most
        self._waiting_digests = 0  # for a piece, or for the end of others
        self._running_digests = 0
        lock = threading.Lock()
        self._lock = lock
        self._room = threading.Condition(lock)
        self._pieces = threading.Condition(lock)
        self._end = threading.Condition(lock)

    # for workers

    def next_span(self) -> Span:
        """Wait for something to fetch."""
        with self._lock:
            while True:
                self._check()
                span, pause = self._choose(time.monotonic())
                if span:
                    self._room.notify()  # whoever finds something wakes the next one, so that not all wake for little
                    return self._hand_out(span)
                self._room.wait(pause)

    def here(self, span: Span, number: int, margin: Optional[bytes] = None, kept: Optional[memoryview] = None) -> None:
        """A piece was written, and perhaps is kept in a buffer; or it is `margin`."""
        shard = span.shard
        with self._lock:
            self._check()
            shard.states[number] = HERE
            shard.checksums.pop(number, None)
            shard.origins[number] = 1 + span.source
            shard.sources.worked(span.source)
            if margin is not None:
                shard.margins[number] = margin
            else:
                self.bytes_here += shard.length(number)
            if kept is not None:
                shard.kept[number] = kept
            if (shard, number) in self._awaited:
                self._pieces.notify_all()

    def release(self, span: Span) -> None:
        """The worker is done with a span; what did not come is missing again."""
        shard = span.shard
        with self._lock:
            for number in range(span.first, span.last):
                if shard.states[number] == TAKEN:
                    self._is_missing(shard, number)
            shard.workers -= 1
            self._room.notify()

    def failed(self, span: Span, failure: SourceError) -> None:
        """The source of a span failed."""
        with self._lock:
            span.shard.sources.failed(span.source, failure, time.monotonic())

    # for digests

    def ready(self, shard: ShardState, number: int, still: Callable[[], bool] = lambda: True) -> int:
        """Wait for a piece; how many are here in a row from it on. Raises RewoundError where `still` does not hold."""
        with self._lock:
            while True:
                self._check()
                if not still():
                    raise RewoundError
                if shard.states[number] == HERE:
                    break
                self._awaited.append((shard, number))
                self._wait_for_pieces()
                self._awaited.remove((shard, number))
            end = number + 1
            while end < min(number + BATCH_PIECES, shard.tiling.count) and shard.states[end] == HERE:
                end += 1
            return end - number

    def hashed(self, reader: int, shard: ShardState, generation: int, first: int, last: int) -> None:
        """A digest, SHARD or WHOLE, has read these pieces of that generation."""
        with self._lock:
            if generation != shard.generation:
                return
            for number in filter(shard.is_stored, range(first, last)):
                if shard.unread[number] == reader:
                    self._is_read(shard, number)
                shard.unread[number] &= ~reader
            if not self._is_too_far_ahead():
                self._room.notify()

    def damaged(self, shard: ShardState, number: int) -> None:
        """A piece of an earlier run is not what the journal says."""
        with self._lock:
            if shard.checksums.get(number, NO_CHECKSUM) == NO_CHECKSUM:
                return  # another digest saw it before
            shard.checksums[number] = NO_CHECKSUM
            shard.states[number] = MISSING
            self.bytes_here -= shard.length(number)
            self._remaining += shard.length(number)
            self._unread -= shard.length(number)
            self._room.notify()

    def accept(self, shard: ShardState) -> None:
        """A shard has its published digest."""
        with self._lock:
            shard.verified = True
            self._pieces.notify_all()

    def reject(self, shard: ShardState, reason: str) -> bool:
        """A whole shard has a wrong digest: all of it is missing again, unless nobody is left to ask (False)."""
        with self._lock:
            origins = Counter(origin - 1 for origin in shard.origins if origin)
            source = origins.most_common(1)[0][0] if origins else 0
            if not shard.sources.sent_wrong_bytes(source, f"{shard.sources[source].label} {reason}"):
                return False
            shard.generation += 1
            shard.checksums.clear()
            shard.margins.clear()
            for number in range(shard.tiling.count):
                if shard.is_stored(number):
                    if shard.unread[number]:
                        self._is_read(shard, number)
                    shard.unread[number] = shard.readers
                    self.bytes_here -= shard.length(number)
                    self._remaining += shard.length(number)
                shard.states[number] = shard.origins[number] = 0
            self._room.notify()
            self._pieces.notify_all()
            return True

    def wait_until_verified(self, still: Callable[[], bool]) -> None:
        """Wait until every shard has its digest. Raises RewoundError where `still` does not hold."""
        with self._lock:
            while not all(shard.verified for shard in self.shards):
                self._check()
                if not still():
                    raise RewoundError
                self._wait_for_pieces()

    # for the one who waits for the whole

    def digests_start(self, count: int) -> None:
        """So many digests are about to run."""
        self._running_digests = count

    def digest_ends(self) -> None:
        """One of them is done."""
        with self._lock:
            self._running_digests -= 1
            self._end.notify_all()
            self._room.notify()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so long; whether it is over. Raises what a thread failed with."""
        with self._lock:
            if self.error is None and self._running_digests:
                self._end.wait(seconds)
            if self.error is not None:
                raise self.error
            return not self._running_digests

    def stop(self, error: Optional[BaseException] = None) -> None:
        """End all threads; the first error is the one that is told."""
        with self._lock:
            self.error = self.error or error
            self.stopped.set()
            for condition in (self._room, self._pieces, self._end):
                condition.notify_all()

    # with the lock held

    def _check(self) -> None:
        if self.stopped.is_set():
            raise AbortedError

    def _is_read(self, shard: ShardState, number: int) -> None:
        """Nobody is going to read a piece that is here."""
        if shard.origins[number]:
            self._unhashed -= shard.length(number)
        else:
            self._unread -= shard.length(number)
        buffer = shard.kept.pop(number, None)
        if buffer is not None:
            self.buffers.release(buffer)

    def _wait_for_pieces(self) -> None:
        self._waiting_digests += 1
        if self._waiting_digests == self._running_digests:
            self._room.notify()
        self._pieces.wait()
        self._waiting_digests -= 1

    def _choose(self, now: float) -> Tuple[Optional[Span], Optional[float]]:
        """A span to fetch now, or how long to wait at most (None: until told)."""
        if self._is_too_far_ahead():
            return None, None
        usable: List[Tuple[int, int, int, int]] = []
        pauses: List[float] = []
        for ordinal, shard in enumerate(self.shards):
            first = shard.states.find(MISSING)
            if first < 0:
                continue
            if shard.sources.exhausted:
                raise RackllamaError(
                    f"{shard.job.name} cannot be had: {shard.sources.complaints}",
                    "check the sources, the proxy settings and the network of the host; what came is kept",
                )
            source = shard.sources.choice(now)
            if source is None:
                pauses.append(shard.sources.seconds_until_next(now))
            elif shard.sources.serves_ranges(source) or not shard.workers:
                usable.append((shard.workers, ordinal, first, source))
            if len(usable) == self.width:
                break
        if not usable:
            return None, min(pauses, default=None)
        _, ordinal, first, source = min(usable)
        return self._span(self.shards[ordinal], first, source), None

    def _is_too_far_ahead(self) -> bool:
        # One digest that waits must not have the other one left behind, and its pieces driven out of memory; what an
        # earlier run left is read from the disk anyway, and must not hold up the network meanwhile.
        digests_are_busy = self._waiting_digests < self._running_digests
        return self._unhashed > MOST_AHEAD_BYTES and digests_are_busy and self._unread <= 0

    def _span(self, shard: ShardState, first: int, source: int) -> Span:
        if not shard.sources.serves_ranges(source):
            return Span(shard, 0, shard.tiling.count, source)
        last, left = first, span_bytes(self._remaining, self._connections, self._unhashed)
        while left > 0 and last < shard.tiling.count and shard.states[last] == MISSING:
            left -= shard.length(last)
            last += 1
        return Span(shard, first, last, source)

    def _hand_out(self, span: Span) -> Span:
        shard = span.shard
        for number in range(span.first, span.last):
            if shard.states[number] == MISSING:
                shard.states[number] = TAKEN
                if shard.is_stored(number):
                    self._remaining -= shard.length(number)
                    self._unhashed += shard.length(number)
        shard.workers += 1
        return span

    def _is_missing(self, shard: ShardState, number: int) -> None:
        shard.states[number] = MISSING
        if shard.is_stored(number):
            self._remaining += shard.length(number)
            self._unhashed -= shard.length(number)
