"""From the shards of a model to the job that lands it: their headers tell where the bytes of each belong."""

import hashlib
import os
import re
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Dict, FrozenSet, List, Optional, Sequence, Tuple
from urllib.parse import unquote, urlsplit

from ..errors import RackllamaError
from ..stop import StoppedError
from . import gguf, layout
from .gguf import GgufError, Header
from .http_ranges import Connections, HttpSettings, label
from .landing import Landed
from .landing_job import LandingJob, LayoutError, Placement, ShardJob
from .source_kinds import REMOTE, file_source, remote_source
from .sources import Floor, RangesRefusedError, SourceError, Stream

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_NAME = 80
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Shard:
    """One file to take bytes from: sources in order of preference, size in bytes and sha256 where published.

    Where it is not, `version` may name what the first source serves now.
    """

    name: str
    sources: Tuple[str, ...]
    size: Optional[int] = None
    sha256: Optional[str] = None
    version: Optional[str] = None


@dataclass(frozen=True)
class Weights:
    """A model's shards in order, and the form to land them in: merged, or as the model was before it was split.

    `sha256` is that of the landed file, where it is known.
    """

    shards: Tuple[Shard, ...]
    drop_split_keys: bool = False
    sha256: Optional[str] = None


@dataclass(frozen=True)
class HeaderReading:
    """How the headers of shards are read: a source that fails is asked again for `patience_seconds` at least.

    `refused` are sha256 of headers that turned out not to be those of the published shards.
    """

    settings: HttpSettings = field(default_factory=HttpSettings)
    patience_seconds: float = 10.0
    stop: threading.Event = field(default_factory=threading.Event)
    refused: FrozenSet[str] = frozenset()


def land_layout(
    make_job: Callable[[HeaderReading], LandingJob], land_job: Callable[[LandingJob], Landed], reading: HeaderReading
) -> Tuple[LandingJob, Landed]:
    """Make a job and land it; gives both. Raises what the two raise.

    A source may hold a damaged header. Where the published digest of a shard tells so, another source's is taken.
    """
    while True:
        job = make_job(reading)
        try:
            return job, land_job(job)
        except LayoutError as error:
            reading = replace(reading, refused=reading.refused | {error.header_sha256})


def job_of(weights: Weights, destination: Path, reading: HeaderReading, slug: Optional[str] = None) -> LandingJob:
    """The job that lands the weights at `destination`, by the headers read from their first sources that answer.

    Raises RackllamaError where a shard is missing or is no GGUF file, or where they are not one model's, and
    StoppedError soon after the reading is stopped.
    """
    read = read_headers(weights.shards, reading)
    whole = layout.merged([header for header, _ in read], [size for _, size in read], weights.drop_split_keys)
    parts = tuple(
        ShardJob(
            shard.name,
            size,
            shard.sha256,
            shard.sources,
            Placement(place.source_offset, place.length, place.destination_offset),
            hashlib.sha256(header.raw).hexdigest(),
        )
        for shard, (header, size), place in zip(weights.shards, read, whole.placements)
    )
    return LandingJob(slug or slug_for(destination), destination, whole.size, whole.header, parts, weights.sha256)


def read_headers(shards: Sequence[Shard], reading: HeaderReading) -> List[Tuple[Header, int]]:
    """Header and size in bytes of each shard, read in ranges: a few MiB of the first, about one of each other.

    Raises as `job_of`, but for shards that are not one model's.
    """
    connections = Connections(reading.settings)
    try:
        return [_header(shard, reading, connections) for shard in shards]
    finally:
        connections.close()


def with_version(shard: Shard, settings: HttpSettings) -> Shard:
    """The shard with what tells the version of an unpublished one, where its first source tells that."""
    if shard.sha256:
        return shard
    address, connections = shard.sources[0], Connections(settings)
    try:
        if urlsplit(address).scheme in REMOTE:
            size = remote_source(address, shard.name, 0, None, settings).find_size(connections)
            stream: Stream = remote_source(address, shard.name, size, None, settings).open(0, 1, connections)
        else:
            size = _path(address).stat().st_size
            stream = file_source(address, shard.name, size).open(0, 1, connections)
        stream.close()
    except (SourceError, RangesRefusedError, OSError):
        return shard  # it will be told where its bytes are asked for
    finally:
        connections.close()
    return replace(shard, size=size, version=stream.validator)


def slug_for(destination: Path) -> str:
    """Names the state of a landing by the file it is to become, so that two files never share one."""
    words = "-".join(re.findall(r"[a-z0-9.]+", destination.name.lower()))[:LONGEST_NAME].strip("-")
    return f"{words or 'model'}-{hashlib.sha256(os.fsencode(destination)).hexdigest()[:8]}"


def _header(shard: Shard, reading: HeaderReading, connections: Connections) -> Tuple[Header, int]:
    """Header and size in bytes of one shard, from the first of its sources that has them."""
    deadline, pause = time.monotonic() + reading.patience_seconds, FIRST_PAUSE_SECONDS
    complaints: Dict[str, str] = {}
    remedy, asked = "check the name, the network and the proxy, or choose another source", list(shard.sources)
    while asked:
        wished = 0.0
        for address in list(asked):
            if reading.stop.is_set():
                raise StoppedError
            try:
                header, size = _header_at(address, shard, reading.settings, connections)
            except GgufError as error:
                complaints[address], remedy = f"{label(address)}: {error.message}", error.remedy
                asked.remove(address)
            except SourceError as error:
                complaints[address], wished = error.reason, max(wished, error.retry_after or 0.0)
                if error.final:
                    asked.remove(address)
            else:
                if hashlib.sha256(header.raw).hexdigest() not in reading.refused:
                    return header, size
                complaints[address] = f"{label(address)}: its header is damaged"
                asked.remove(address)
        if time.monotonic() + pause > deadline:
            break
        reading.stop.wait(min(max(pause, wished), LONGEST_PAUSE_SECONDS, deadline - time.monotonic()))
        pause *= 2
    raise RackllamaError(f"the header of {shard.name} cannot be read ({'; '.join(complaints.values())})", remedy)


def _header_at(address: str, shard: Shard, settings: HttpSettings, connections: Connections) -> Tuple[Header, int]:
    if urlsplit(address).scheme not in REMOTE:
        path = _path(address)
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                return gguf.read_header(lambda offset, length: os.pread(file.fileno(), length, offset), size), size
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}", final=True) from error
    size = shard.size or remote_source(address, shard.name, 0, None, settings).find_size(connections)
    source = remote_source(address, shard.name, size, shard.sha256, settings)

    def read(offset: int, length: int) -> bytes:
        try:
            stream, wanted = source.open(offset, offset + length, connections), length
        except RangesRefusedError:
            # What comes after the header is not read: the connection is dropped.
            stream, wanted = source.open(0, size, connections), offset + length
        return _bytes_of(stream, wanted, source.label, settings.floor)[-length:]

    return gguf.read_header(read, size), size


def _bytes_of(stream: Stream, length: int, name: str, floor: Floor) -> bytes:
    found, filled, began = bytearray(length), 0, time.monotonic()
    with memoryview(found) as view:
        while filled < length:
            count = stream.readinto(view[filled : filled + READ_BYTES])
            if not count:
                raise SourceError(f"{name} broke off")
            filled += count
            spent = time.monotonic() - began
            if spent > floor.seconds and filled < spent * floor.bytes_per_second:
                raise SourceError(f"{name} trickles")
    return bytes(found)


def _path(address: str) -> Path:
    parts = urlsplit(address)
    return Path(unquote(parts.path) if parts.scheme == "file" else address)
