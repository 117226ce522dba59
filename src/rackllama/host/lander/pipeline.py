"""The threads of a landing: workers that fetch and write, digests that read behind them, one that keeps the journal.

Digests read a piece from where it was received, while it is kept there, or else from the file: pieces come in any
order, a restart hashes what an earlier run left, and a shard that is fetched again is hashed again, all by the same few
lines.
"""

import hashlib
import os
import threading
import time
import zlib
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..errors import RackllamaError
from ..files import read_json, write_json
from .grains import GRAIN_BYTES, Piece
from .http_ranges import Connections, HttpSettings
from .journal import GONE, HERE, Journal, Record
from .landing_job import LandingJob, LayoutError
from .part_file import PartFile
from .schedule import SHARD, TAKEN, WHOLE, AbortedError, RewoundError, Schedule, ShardState, Span
from .sources import RangesRefusedError, SourceError, Stream
from .watch import Watch

SYNC_BYTES = 8 << 20
MOST_UNSYNCED_BYTES = 24 << 20
SYNC_SECONDS = 1.0
LIMITED_READ_BYTES = 1 << 16


class RateLimit:
    """All workers together take at most so many bytes a second."""

    def __init__(self, bytes_per_second: Optional[float], stopped: threading.Event) -> None:
        self._rate = bytes_per_second
        self._stopped = stopped
        self._free_at = 0.0
        self._lock = threading.Lock()
        self.read_bytes = LIMITED_READ_BYTES if bytes_per_second else GRAIN_BYTES

    def took(self, count: int) -> None:
        """Wait as long as `count` bytes are worth."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            pause = self._free_at - now
        self._stopped.wait(pause)


class JournalKeeper:
    """Makes written grains durable, and then says so in the journal."""

    def __init__(self, journal: Journal, descriptor: int) -> None:
        self.bytes_written = 0
        self._journal = journal
        self._descriptor = descriptor
        self._records: List[Record] = []
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def note(self, record: Record, size: int = 0) -> None:
        """A grain of `size` bytes was written; waits for a slow disk. Raises AbortedError once closed."""
        with self._changed:
            while self._bytes > MOST_UNSYNCED_BYTES and not self._closed:
                self._changed.wait()
            if self._closed:
                raise AbortedError
            self._records.append(record)
            self._bytes += size
            if self._bytes >= SYNC_BYTES:
                self._changed.notify_all()

    def close(self) -> None:
        """Take nothing more; `run` ends when all is durable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def run(self) -> None:
        """Work until closed."""
        try:
            while self._sync():
                pass
        finally:
            self.close()

    def _sync(self) -> bool:
        with self._changed:
            if self._bytes < SYNC_BYTES and not self._closed:
                self._changed.wait(SYNC_SECONDS)
            records, size, closed = self._records, self._bytes, self._closed
            self._records = []
        if records:
            os.fdatasync(self._descriptor)
            self.bytes_written += self._journal.append(records)
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()
        return bool(records) or not closed


class Versions:
    """Which version of an unpublished digest's file each source served; kept over runs, so that none are mixed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: Dict[str, str] = read_json(path) or {}
        self._lock = threading.Lock()

    def is_same(self, source: str, validator: Optional[str]) -> bool:
        """Whether the source serves what it served before; what is new is remembered."""
        if validator is None:
            return True
        with self._lock:
            known = self._known.get(source)
            if known != validator:
                self._known[source] = validator
                write_json(self._path, self._known)
            return known in (None, validator)


class _Reader:
    """A digest's thread: SHARD or WHOLE, whether what it has read still holds, and memory to read a piece again."""

    def __init__(self, kind: int, still: Callable[[], bool] = lambda: True) -> None:
        self.kind = kind
        self.still = still
        self.buffer = memoryview(bytearray(GRAIN_BYTES))


class Pipeline:
    """One run of a landing over an open part file."""

    def __init__(
        self, job: LandingJob, schedule: Schedule, descriptor: int, keeper: JournalKeeper, versions: Versions
    ) -> None:
        self.bytes_fetched = 0
        self.bytes_written = 0
        self.merged: Optional[str] = None
        self._job = job
        self._schedule = schedule
        self._part = PartFile(descriptor)
        self._keeper = keeper
        self._versions = versions
        self._counts = threading.Lock()
        self._to_verify = iter([shard for shard in schedule.shards if shard.job.sha256])

    def run(
        self,
        settings: HttpSettings,
        connections: int,
        rate_limit: RateLimit,
        tick: Callable[[], None],
        tick_seconds: float,
    ) -> None:
        """Fetch, write and verify all; raises what went wrong. What came is durable and journaled either way."""
        lines = [Connections(settings) for _ in range(connections)]
        keeper = self._thread(self._keeper.run)
        watches = [Watch(settings.floor, line.interrupt) for line in lines]
        workers = [self._thread(partial(self._work, *pair, rate_limit)) for pair in zip(lines, watches)]
        digests = [self._verify_shards] * self._schedule.width
        if self._job.needs_merged_digest:
            digests.append(self._digest_merged)
        self._schedule.digests_start(len(digests))
        hashers = [self._thread(partial(self._digest, run)) for run in digests]
        try:
            keeper.start()
            for thread in [*hashers, *workers]:
                thread.start()
            while not self._schedule.wait(tick_seconds):
                tick()
                for watch in watches:
                    watch.check()
        finally:
            self._schedule.stop()
            for line in lines:
                line.abort()
            for thread in [*hashers, *workers]:
                if thread.ident:
                    thread.join()
            self._keeper.close()
            keeper.join()
            self._part.close()
        if self._schedule.error is not None:
            raise self._schedule.error

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except AbortedError:
                return
            except BaseException as error:  # noqa: BLE001 - it is raised again where the whole is waited for
                self._schedule.stop(error)

        return threading.Thread(target=guarded, daemon=True)

    # fetching

    def _work(self, connections: Connections, watch: Watch, rate_limit: RateLimit) -> None:
        with closing(connections):
            while True:
                span = self._schedule.next_span()
                try:
                    self._fetch(span, connections, watch, rate_limit)
                except RangesRefusedError:
                    span.shard.sources.refuses_ranges(span.source)
                except SourceError as failure:
                    self._schedule.failed(span, failure)
                finally:
                    self._schedule.release(span)

    def _fetch(self, span: Span, connections: Connections, watch: Watch, rate_limit: RateLimit) -> None:
        tiling, source = span.shard.tiling, span.shard.sources[span.source]
        start, end = tiling.piece(span.first).start, tiling.piece(span.last - 1).end
        watch.begin(source.label if span.shard.sources.has_better(span.source) else None)
        stream = watch.during(lambda: source.open(start, end, connections))
        with closing(stream):
            self._check_version(span, source.label, stream.validator)
            for number in range(span.first, span.last):
                piece = tiling.piece(number)
                buffer = self._schedule.buffers.take()
                is_kept = False
                try:
                    self._fill(buffer[: piece.end - piece.start], stream, source.label, watch, rate_limit)
                    if span.shard.states[number] == TAKEN:  # a source without ranges sends what is here, too
                        is_kept = self._store(span, number, piece, buffer)
                finally:
                    if not is_kept:
                        self._schedule.buffers.give_back(buffer)

    def _fill(self, view: memoryview, stream: Stream, label: str, watch: Watch, rate_limit: RateLimit) -> None:
        have = 0
        while have < len(view):
            count = watch.readinto(stream, view[have : have + rate_limit.read_bytes])
            if not count:
                raise SourceError(f"{label} ended early")
            have += count
            rate_limit.took(count)
            if self._schedule.stopped.is_set():
                raise AbortedError
        with self._counts:
            self.bytes_fetched += have

    def _store(self, span: Span, number: int, piece: Piece, buffer: memoryview) -> bool:
        """Write a piece, or remember a margin; whether the buffer is kept."""
        view = buffer[: piece.end - piece.start]
        if piece.destination is None:
            self._schedule.here(span, number, margin=bytes(view))
            return False
        is_kept = self._schedule.buffers.may_keep()
        self._part.write(view, piece.destination, is_kept)
        tiling = span.shard.tiling
        grain = tiling.first_grain + number - tiling.before
        # Before it is told to the digests, so that in the journal a rejection stands after what it rejects.
        self._keeper.note(Record(HERE, grain, zlib.crc32(view)), len(view))
        with self._counts:
            self.bytes_written += len(view)
        self._schedule.here(span, number, kept=buffer if is_kept else None)
        return is_kept

    def _check_version(self, span: Span, label: str, validator: Optional[str]) -> None:
        """Without a published digest nothing else tells that the first and the last byte are of one file."""
        if span.shard.job.sha256 is None and not self._versions.is_same(label, validator):
            self._forget(span.shard)
            raise RackllamaError(
                f"{label} changed while it was fetched, and no published sha256 tells which one is wanted",
                "run again, which fetches it anew; or lock the model, so that its digest is known",
            )

    def _forget(self, shard: ShardState) -> None:
        self._keeper.note(Record(GONE, shard.tiling.first_grain, shard.tiling.grains))

    # hashing

    def _digest(self, run: Callable[[], None]) -> None:
        run()
        self._schedule.digest_ends()

    def _verify_shards(self) -> None:
        reader = _Reader(SHARD)
        while True:
            with self._counts:
                shard = next(self._to_verify, None)
            if shard is None:
                return
            self._verify(shard, reader)

    def _verify(self, shard: ShardState, reader: _Reader) -> None:
        job, tiling = shard.job, shard.tiling
        while True:
            hasher = hashlib.sha256()
            self._feed(reader, hasher, shard, range(tiling.before))
            header = hasher.hexdigest()
            self._feed(reader, hasher, shard, range(tiling.before, tiling.count))
            found = hasher.hexdigest()
            if found == job.sha256:
                break
            self._forget(shard)
            if not self._schedule.reject(shard, f"sent {job.name} with sha256 {found}"):
                raise RackllamaError(
                    f"{job.name} has not the published sha256 {job.sha256}: {shard.sources.complaints}",
                    "repair the source, or lock the model again where upstream really changed it",
                )
        if job.header_sha256 not in (None, header):
            raise LayoutError(job.name, str(job.header_sha256))
        self._schedule.accept(shard)

    def _digest_merged(self) -> None:
        """The digest of the landed file, in order; taken up again where a shard before had to be fetched again."""
        shards = [shard for shard in self._schedule.shards if shard.tiling.grains]
        shards.sort(key=lambda shard: shard.job.placement.destination_offset)
        gaps = [end - start for start, end in self._job.gaps()]
        # Before each shard: the state of the digest. Beside it, which fetch of that shard went in.
        states = [hashlib.sha256(self._job.header)]
        seen: List[int] = []

        def still() -> bool:
            return all(shard.generation == generation for shard, generation in zip(shards, seen))

        reader = _Reader(WHOLE, still)
        while self.merged is None:
            try:
                for shard in shards[len(seen) :]:
                    hasher = states[-1].copy()
                    hasher.update(bytes(gaps[len(seen)]))
                    seen.append(shard.generation)
                    first = shard.tiling.before
                    self._feed(reader, hasher, shard, range(first, first + shard.tiling.grains))
                    states.append(hasher)
                self._schedule.wait_until_verified(still)
                hasher = states[-1].copy()
                hasher.update(bytes(gaps[-1]))
                self.merged = hasher.hexdigest()
            except RewoundError:
                first_changed = next(i for i, shard in enumerate(shards) if shard.generation != seen[i])
                del states[first_changed + 1 :], seen[first_changed:]

    def _feed(self, reader: _Reader, hasher: Any, shard: ShardState, numbers: range) -> None:
        """Hash pieces in order as they come."""
        generation = shard.generation
        number = numbers.start
        while number < numbers.stop:
            count = self._schedule.ready(shard, number, reader.still)
            end = min(number + count, numbers.stop)
            fed = number
            while fed < end and self._feed_piece(hasher, shard, fed, reader.buffer):
                fed += 1
            self._schedule.hashed(reader.kind, shard, generation, number, fed)
            number = fed

    def _feed_piece(self, hasher: Any, shard: ShardState, number: int, buffer: memoryview) -> bool:
        """Hash one piece; False where it is not what the journal says, and is fetched again."""
        margin = shard.margins.pop(number, None)
        if margin is not None:
            hasher.update(margin)
            return True
        piece = shard.tiling.piece(number)
        kept = shard.kept.get(number)
        if kept is not None:
            hasher.update(kept[: piece.end - piece.start])
            return True
        view = buffer[: piece.end - piece.start]
        expected = shard.checksums.get(number)  # before the bytes: afterwards it may be of newer ones
        self._part.read(view, piece.destination or 0)
        if expected is not None and zlib.crc32(view) != expected:
            self._schedule.damaged(shard, number)
            return False
        hasher.update(view)
        return True


def shard_digests(shards: Sequence[ShardState]) -> int:
    """How many shards to hash at the same time: one for each processor, and two where there is only one."""
    return min(sum(1 for shard in shards if shard.job.sha256), max(2, os.cpu_count() or 1))
