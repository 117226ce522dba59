"""Where a shard's bytes come from: what a source is, what can go wrong with one, and which one to ask next."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any, Optional, Protocol, Sequence

GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_BYTES = 1024
LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0


class SourceError(Exception):
    """What a source did wrong. `final`: asking it again changes nothing. `retry_after`: the seconds it asked for."""

    def __init__(self, reason: str, final: bool = False, retry_after: Optional[float] = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.retry_after = retry_after


class TrickleError(SourceError):
    """A source brings so little that another one is asked rather than it."""

    def __init__(self, label: str) -> None:
        super().__init__(f"{label} brought next to nothing for a while")


@dataclass(frozen=True)
class Floor:
    """A connection that brings fewer `bytes_per_second` over `seconds` trickles."""

    bytes_per_second: float = 64 << 10
    seconds: float = 30.0


class RangesRefusedError(Exception):
    """The source serves the whole file only."""


class Stream(Protocol):
    """Bytes on their way. `validator` names the version of the file that they are of, where the source tells."""

    validator: Optional[str]

    def readinto(self, view: memoryview) -> int:
        """Fill `view` as far as bytes come; 0 means that they ended."""

    def close(self) -> None:
        """Let go of it; what was not read is not wanted any more."""


class Source(Protocol):
    """One place of one shard. `label` names it in messages, without anything secret."""

    label: str

    def open(self, start: int, end: int, connections: Any) -> Stream:
        """Begin to read bytes `start` to `end`; raises SourceError or RangesRefusedError."""


def wrong_size(label: str, found: int, wanted: int, beginning: bytes) -> SourceError:
    """The failure of a source that has a file of another size, naming what it serves instead where that shows."""
    if beginning.startswith(GIT_LFS_POINTER):
        return SourceError(f"{label} serves the Git LFS pointer in place of the weights", final=True)
    page = ", a web page" if beginning.lstrip()[:1] == b"<" else ""
    return SourceError(f"{label} has {found} bytes{page}, and {wanted} are wanted", final=True)


class FileSource:
    """A shard on a disk."""

    def __init__(self, path: Path, size: int) -> None:
        self.label = str(path)
        self._path = path
        self._size = size

    def open(self, start: int, end: int, connections: Any) -> "Stream":  # noqa: ARG002 - needs no connection
        """As Source.open."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"{self.label}: {error.strerror}", final=True) from error
        try:
            return self._stream(descriptor, start, end)
        except BaseException:
            os.close(descriptor)
            raise

    def _stream(self, descriptor: int, start: int, end: int) -> "FileStream":
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{self.label} is no plain file", final=True)
        if found.st_size != self._size:
            beginning = os.pread(descriptor, POINTER_BYTES, 0)
            raise wrong_size(self.label, found.st_size, self._size, beginning)
        return FileStream(descriptor, self.label, start, end, f"{found.st_ino}-{found.st_mtime_ns}")


class FileStream:
    """A range of an open file."""

    def __init__(self, descriptor: int, label: str, start: int, end: int, validator: str) -> None:
        self.validator: Optional[str] = validator
        self._descriptor = descriptor
        self._label = label
        self._position = start
        self._end = end

    def readinto(self, view: memoryview) -> int:
        """As Stream.readinto."""
        try:
            count = os.preadv(self._descriptor, [view[: self._end - self._position]], self._position)
        except OSError as error:
            raise SourceError(f"{self._label}: {error.strerror}") from error
        self._position += count
        return count

    def close(self) -> None:
        """As Stream.close."""
        os.close(self._descriptor)


class _Standing:
    """How one source has done so far."""

    def __init__(self) -> None:
        self.serves_ranges = True
        self.wrong_digests = 0
        self.trickles = False
        self.given_up = False
        self.failures = 0
        self.failing_since: Optional[float] = None
        self.not_before = 0.0
        self.reason = ""


class Sources:
    """The sources of one shard in order of preference, and which to ask now. Time is in seconds, as `now` counts it.

    A source that fails is left alone for a while, twice as long each time, and another one is asked; one that has
    failed for all of `patience_seconds` is given up. One that trickles is asked only where the others cannot be.
    """

    def __init__(self, sources: Sequence[Source], patience_seconds: float, backoff_seconds: float) -> None:
        self._sources = sources
        self._standings = [_Standing() for _ in sources]
        self._patience_seconds = patience_seconds
        self._backoff_seconds = backoff_seconds
        self._random = SystemRandom()

    def __getitem__(self, index: int) -> Source:
        return self._sources[index]

    def choice(self, now: float) -> Optional[int]:
        """The source to ask now, or None where all are left alone or given up."""
        ready = [
            (standing.wrong_digests, standing.trickles, index)
            for index, standing in enumerate(self._standings)
            if not standing.given_up and standing.not_before <= now
        ]
        return min(ready)[-1] if ready else None

    def seconds_until_next(self, now: float) -> float:
        """How long until there is one to ask."""
        return max(0.0, min((one.not_before for one in self._standings if not one.given_up), default=now) - now)

    @property
    def exhausted(self) -> bool:
        """Whether every source is given up."""
        return all(standing.given_up for standing in self._standings)

    @property
    def complaints(self) -> str:
        """What each source did wrong, for people."""
        return "; ".join(standing.reason for standing in self._standings if standing.reason)

    def serves_ranges(self, index: int) -> bool:
        """Whether parts of the file can be asked for."""
        return self._standings[index].serves_ranges

    def refuses_ranges(self, index: int) -> None:
        """The source serves the whole file only."""
        self._standings[index].serves_ranges = False

    def has_better(self, index: int) -> bool:
        """Whether another source is left to ask, of which nothing says that it trickles."""
        others = (standing for other, standing in enumerate(self._standings) if other != index)
        return any(not standing.given_up and not standing.trickles for standing in others)

    def worked(self, index: int) -> None:
        """Bytes came."""
        standing = self._standings[index]
        standing.failures, standing.failing_since = 0, None

    def failed(self, index: int, failure: SourceError, now: float) -> None:
        """Leave the source alone for a while, or give it up."""
        standing = self._standings[index]
        standing.reason = failure.reason
        if isinstance(failure, TrickleError):
            standing.trickles = True
            return
        since = standing.failing_since = now if standing.failing_since is None else standing.failing_since
        if failure.final or now - since > self._patience_seconds:
            standing.given_up = True
        elif standing.not_before <= now:  # several connections that fail at once are one failure
            pause = min(LONGEST_BACKOFF_SECONDS, self._backoff_seconds * 2**standing.failures)
            asked = min(failure.retry_after or 0.0, LONGEST_RETRY_AFTER_SECONDS)
            standing.not_before = now + max(asked, pause * self._random.uniform(0.5, 1.0))
            standing.failures = min(standing.failures + 1, 16)

    def sent_wrong_bytes(self, index: int, reason: str) -> bool:
        """Whether it is worth fetching all again: from the next source, or once more from the only one."""
        self._standings[index].wrong_digests += 1
        self._standings[index].reason = reason
        tries = sum(standing.wrong_digests for standing in self._standings)
        return tries < max(2, len(self._sources)) and not self.exhausted
