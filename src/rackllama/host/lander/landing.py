"""Land a file from shards with every byte written once: resumable, verified, visible only when it is whole.

Shards stream in parallel ranges straight to their place in one preallocated part file, are hashed behind the writes,
and the file gets its name by one rename. A journal of what is on the disk makes a landing that was killed go on where
it was. Below the state directory, for each slug:

    lock                        held while a landing runs
    progress.json               how far it is; anybody may read it
    landed.json                 what was landed last
    IDENTITY.journal            the grains that are on the disk
    IDENTITY.versions.json      which version of an unverified file a source served
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from ..errors import RackllamaError
from ..files import read_json, read_text, sync_directory, write_json
from ..stop import StoppedError
from .grains import Tiling
from .http_ranges import HttpSettings
from .journal import GONE, Journal, Record
from .landing_job import LandingJob, Placement, ShardJob, check
from .part_file import write_fully
from .pipeline import JournalKeeper, Pipeline, RateLimit, Versions, shard_digests
from .progress import Progress, write_progress
from .schedule import Schedule, ShardState
from .source_kinds import REMOTE, file_source, remote_source
from .sources import Floor, Source, Sources

__all__ = ["Landed", "LandingJob", "LandingOptions", "Placement", "Progress", "ShardJob", "land"]

TICK_SECONDS = 0.5
RATE_MEMORY_SECONDS = 10.0
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CANNOT_PREALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True)
class LandingOptions:
    """How to land. `staging` holds the part file (default: beside the destination), on the destination's file system.

    `reserve_bytes` stay free on it. `tokens` are bearer tokens by host, `rate_limit` is in bytes a second. A source is
    given up after failing for `patience_seconds`, and one below the `floor` is asked only where no other is left.
    """

    staging: Optional[Path] = None
    reserve_bytes: int = 1 << 30
    connections: int = 8
    rate_limit: Optional[float] = None
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience_seconds: float = 300.0
    backoff_seconds: float = 0.5
    timeout_seconds: float = 60.0
    floor: Floor = field(default_factory=Floor)


@dataclass(frozen=True)
class Landed:
    """What was landed. `verified` says whether published digests prove every byte; else `sha256` is only what came."""

    sha256: str
    bytes_fetched: int
    bytes_written: int
    seconds: float
    verified: bool


def land(
    job: LandingJob,
    state_dir: Path,
    options: LandingOptions,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: Optional[threading.Event] = None,
) -> Landed:
    """Land the job's file at its destination, going on from what an earlier run left.

    A job that was landed already is answered from its record, without reading the file. Raises RackllamaError where it
    cannot be done, and StoppedError soon after `stop` is set; both keep what came for the next run.
    """
    check(job)
    state = state_dir / job.slug
    state.mkdir(parents=True, exist_ok=True)
    with _locked(state, job.slug):
        report = _Reporter(state / "progress.json", job, on_progress)
        try:
            landed = _recorded(job, state) or _land(job, state, options, report, stop or threading.Event())
        except Exception as error:
            failure = _explained(error, job)
            report("stopped" if isinstance(failure, StoppedError) else "failed", failure=failure)
            if failure is error:
                raise
            raise failure from error
        report("landed", job.size)
        return landed


def read_token(environment: Mapping[str, str], variable: str, path: Optional[Path] = None) -> Optional[str]:
    """A bearer token from a variable or else from a file; None where neither has one."""
    token = environment.get(variable, "").strip() or ((read_text(path) if path else None) or "").strip()
    if any(character.isspace() or not character.isprintable() for character in token):
        raise RackllamaError(f"the token in {variable} or {path} is none", "give it on one line, with nothing else")
    return token or None


def _land(job: LandingJob, state: Path, options: LandingOptions, report: "_Reporter", stop: threading.Event) -> Landed:
    started = time.monotonic()
    staging = options.staging or job.destination.parent
    part = staging / f"{job.slug}.{job.identity}.part"
    _remove_others(job, state, staging)
    _preflight(job, staging, part, options)
    with _part_file(job, part) as (descriptor, skeleton_bytes):
        journal = Journal(state / f"{job.identity}.journal")
        with contextlib.closing(journal):
            keeper = JournalKeeper(journal, descriptor)
            schedule = _schedule(job, journal.grains, options)
            versions = Versions(state / f"{job.identity}.versions.json")
            pipeline = Pipeline(job, schedule, descriptor, keeper, versions)

            def tick() -> None:
                if stop.is_set():
                    raise StoppedError(f"the landing of {job.slug}")
                report("fetching" if schedule.bytes_here < _placed_bytes(job) else "verifying", schedule.bytes_here)

            tick()
            settings = HttpSettings(options.tokens, options.timeout_seconds, options.floor)
            rate_limit = RateLimit(options.rate_limit, schedule.stopped)
            pipeline.run(settings, options.connections, rate_limit, tick, TICK_SECONDS)
            digest = pipeline.merged or str(job.sha256)
            if job.sha256 not in (None, digest):
                _forget_unverified(job, journal)
                raise RackllamaError(
                    f"{job.slug} has sha256 {digest}, and {job.sha256} is wanted",
                    "give the published sha256 of each shard, which tells the wrong one; or lock the model again",
                )
        report("committing", job.size)
        verified = job.sha256 is not None or all(shard.sha256 for shard in job.shards)
        written = skeleton_bytes + pipeline.bytes_written + keeper.bytes_written
        landed = Landed(digest, pipeline.bytes_fetched, written, time.monotonic() - started, verified)
        # Before the rename: a run that dies after it finds here what it landed.
        record = {**_what(job), "sha256": landed.sha256, "verified": landed.verified}
        write_json(state / "landed.json", record)
        _commit(part, descriptor, job.destination)
    _remove_journal(job, state)
    return landed


def _recorded(job: LandingJob, state: Path) -> Optional[Landed]:
    """What an earlier run landed of this very job, where it is still there."""
    if not os.path.lexists(job.destination):
        return None
    record = _record_of(job, state)
    if not record:
        raise RackllamaError(
            f"{job.destination} exists already, and is not what this job landed", "move it away, or land elsewhere"
        )
    _remove_journal(job, state)
    return Landed(record["sha256"], 0, 0, 0.0, record["verified"])


def is_landed(job: LandingJob, state_dir: Path) -> bool:
    """Whether this very job has landed what is at its destination."""
    return os.path.lexists(job.destination) and bool(_record_of(job, state_dir / job.slug))


def remove_unfinished(slug: str, state_dir: Path, staging: Path) -> None:
    """Remove what landings of a slug have left unfinished in their staging and state directories."""
    for path in unfinished(slug, staging):
        path.unlink()
    for path in [*(state_dir / slug).glob("*.journal"), *(state_dir / slug).glob("*.versions.json")]:
        path.unlink()


def unfinished(slug: str, staging: Path) -> List[Path]:
    """The part files that landings of a slug have left."""
    return sorted(staging.glob(f"{slug}.{'[0-9a-f]' * 16}.part"))


def _what(job: LandingJob) -> Dict[str, str]:
    return {"identity": job.identity, "header": hashlib.sha256(job.header).hexdigest()}


def _record_of(job: LandingJob, state: Path) -> Dict[str, Any]:
    """What was recorded of this very job, where what it landed is still there; empty otherwise."""
    record = read_json(state / "landed.json")
    found = job.destination.lstat()
    if not isinstance(record, dict) or not stat.S_ISREG(found.st_mode) or found.st_size != job.size:
        return {}
    return record if {key: record.get(key) for key in _what(job)} == _what(job) else {}


def _preflight(job: LandingJob, staging: Path, part: Path, options: LandingOptions) -> None:
    """Raise RackllamaError where the landing could not end well; nothing is fetched or written before."""
    for folder in (staging, job.destination.parent):
        if not folder.is_dir():
            raise RackllamaError(f"{folder} is no directory", "make it, or choose another one")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RackllamaError(f"{folder} cannot be written to", "run as its owner, or choose another one")
    if staging.stat().st_dev != job.destination.parent.stat().st_dev:
        raise RackllamaError(
            f"{staging} is not on the file system of {job.destination}, so that no rename leads there",
            f"choose a staging directory on the file system of {job.destination.parent}",
        )
    have = part.lstat().st_blocks * 512 if os.path.lexists(part) else 0
    needed = max(0, job.size - have) + options.reserve_bytes
    free = shutil.disk_usage(staging).free
    if free < needed:
        raise RackllamaError(
            f"{staging} has {free / 2**30:.2f} GiB free, and {needed / 2**30:.2f} GiB are needed, "
            f"{options.reserve_bytes / 2**30:.2f} of them to stay free",
            f"free space on the file system of {staging}, or choose a larger one",
        )


@contextlib.contextmanager
def _part_file(job: LandingJob, part: Path) -> Iterator[Tuple[int, int]]:
    """The open part file, preallocated, with all in it that is not a shard's; and how many bytes that is."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise RackllamaError(
            f"{part} is a link", "remove it: nobody but the landing has to put anything there"
        ) from None
    try:
        if os.fstat(descriptor).st_size != job.size:
            os.ftruncate(descriptor, 0)
            _preallocate(descriptor, job.size)
            sync_directory(part.parent)
        # Written anew by each run, so that nothing of an earlier one has to be believed.
        write_fully(descriptor, job.header, 0)
        for start, end in job.gaps():
            write_fully(descriptor, bytes(end - start), start)
        yield descriptor, len(job.header) + sum(end - start for start, end in job.gaps())
    finally:
        os.close(descriptor)


def _preallocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in CANNOT_PREALLOCATE:
            raise
        os.ftruncate(descriptor, size)


def _schedule(job: LandingJob, grains: Mapping[int, int], options: LandingOptions) -> Schedule:
    """What is to be done, given the checksums of the grains that are there."""
    shards: List[ShardState] = []
    first_grain = 0
    for shard in job.shards:
        tiling = Tiling(shard.size, shard.placement, first_grain)
        there = (
            (number, grains.get(first_grain + number - tiling.before))
            for number in range(tiling.before, tiling.before + tiling.grains)
        )
        checksums = {number: checksum for number, checksum in there if checksum is not None}
        sources = Sources(_sources(job, shard, options), options.patience_seconds, options.backoff_seconds)
        shards.append(ShardState(shard, tiling, sources, checksums, job.needs_merged_digest))
        first_grain += tiling.grains
    # The digest of the whole goes through one shard after the other: fetching several at once would not serve it.
    width = 1 if job.needs_merged_digest else shard_digests(shards)
    return Schedule(shards, options.connections, width)


def _sources(job: LandingJob, shard: ShardJob, options: LandingOptions) -> List[Source]:
    # With no digest to tell them apart, pieces of two sources might be of two files.
    trusted = shard.sources if shard.sha256 or job.sha256 else shard.sources[:1]
    return [_source(address, shard, options) for address in trusted]


def _source(address: str, shard: ShardJob, options: LandingOptions) -> Source:
    if urlsplit(address).scheme in REMOTE:
        settings = HttpSettings(options.tokens, options.timeout_seconds)
        return remote_source(address, shard.name, shard.size, shard.sha256, settings)
    return file_source(address, shard.name, shard.size)


def _commit(part: Path, descriptor: int, destination: Path) -> None:
    """Give the whole file its name, durably: the one step that makes it visible."""
    os.fchmod(descriptor, 0o644)
    os.fsync(descriptor)
    part.rename(destination)
    for folder in {part.parent, destination.parent}:
        sync_directory(folder)


def _forget_unverified(job: LandingJob, journal: Journal) -> None:
    """Where the whole is wrong, what no digest of its own vouches for is fetched again."""
    first_grain = 0
    for shard in job.shards:
        tiling = Tiling(shard.size, shard.placement, first_grain)
        if shard.sha256 is None:
            journal.append([Record(GONE, first_grain, tiling.grains)])
        first_grain += tiling.grains


def _remove_others(job: LandingJob, state: Path, staging: Path) -> None:
    """Remove what earlier jobs of this slug left unfinished: their bytes belong to another file."""
    for path in [*unfinished(job.slug, staging), *state.glob("*.journal"), *state.glob("*.versions.json")]:
        if job.identity not in path.name:
            path.unlink()


def _remove_journal(job: LandingJob, state: Path) -> None:
    for name in (f"{job.identity}.journal", f"{job.identity}.versions.json"):
        (state / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(state: Path, slug: str) -> Iterator[None]:
    with (state / "lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RackllamaError(
                f"{slug} is being landed already, by process {file.read().strip() or 'unknown'}",
                f"wait for it; its progress is in {state / 'progress.json'}",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _placed_bytes(job: LandingJob) -> int:
    return sum(shard.placement.length for shard in job.shards)


def _explained(error: Exception, job: LandingJob) -> Exception:
    """What to tell of an error: of the disk, of a journal or part file that cannot be opened."""
    if not isinstance(error, OSError):
        return error
    if error.errno in FULL:
        where = job.destination.parent
        return RackllamaError(f"the disk of {where} is full", "free space there and run again: what came is kept")
    return RackllamaError(
        f"{job.slug} cannot be landed ({error.strerror or error}: {error.filename or job.destination})",
        "repair the file system or its permissions and run again: what came is kept",
    )


class _Reporter:
    """Tells how far the landing is: to a file, and to whoever called."""

    def __init__(self, path: Path, job: LandingJob, on_progress: Callable[[Progress], None]) -> None:
        self._path = path
        self._total = job.size
        self._extra = job.size - _placed_bytes(job)
        self._on_progress = on_progress
        self._last: Optional[Tuple[float, int]] = None
        self._rate = 0.0
        self._bytes = 0

    def __call__(self, phase: str, bytes_here: Optional[int] = None, failure: Optional[Exception] = None) -> None:
        if bytes_here is not None:
            self._bytes = bytes_here if bytes_here == self._total else bytes_here + self._extra
            self._measure(time.monotonic())
        left = self._total - self._bytes
        eta = 0.0 if not left else left / self._rate if self._rate > 0 else None
        progress = Progress(
            phase,
            self._bytes,
            self._total,
            round(self._rate, 1),
            eta and round(eta, 1),
            getattr(failure, "message", str(failure)) if failure else None,
            getattr(failure, "remedy", None),
        )
        write_progress(self._path, progress)
        self._on_progress(progress)

    def _measure(self, now: float) -> None:
        """The rate of about the last ten seconds."""
        if self._last is not None and now > self._last[0]:
            passed = now - self._last[0]
            weight = min(1.0, passed / RATE_MEMORY_SECONDS) if self._rate else 1.0
            self._rate += weight * (max(0, self._bytes - self._last[1]) / passed - self._rate)
        self._last = (now, self._bytes)
