"""From the shards of a model to the job that lands it: their headers tell where the bytes of each belong."""

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple
from urllib.parse import unquote, urlsplit

from . import gguf, layout
from .errors import RackllamaError
from .gguf import GgufError, Header
from .http_ranges import Connections, HttpSettings
from .landing_job import LandingJob, Placement, ShardJob
from .source_kinds import REMOTE, remote_source
from .sources import RangesRefusedError, SourceError, Stream

PAUSES_SECONDS = (0.5, 2.0, 5.0)
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_NAME = 80


@dataclass(frozen=True)
class Shard:
    """One file to take bytes from: sources in order of preference, size in bytes and sha256 where published."""

    name: str
    sources: Tuple[str, ...]
    size: Optional[int] = None
    sha256: Optional[str] = None


@dataclass(frozen=True)
class Weights:
    """A model's shards in order, and the form to land them in: merged, or as the model was before it was split.

    `sha256` is that of the landed file, where it is known.
    """

    shards: Tuple[Shard, ...]
    drop_split_keys: bool = False
    sha256: Optional[str] = None


def job_of(weights: Weights, destination: Path, settings: HttpSettings, slug: Optional[str] = None) -> LandingJob:
    """The job that lands the weights at `destination`, by the headers read from their first sources that answer.

    Raises RackllamaError where a shard is missing or is no GGUF file, or where they are not one model's.
    """
    connections = Connections(settings)
    try:
        read = [_header(shard, settings, connections) for shard in weights.shards]
    finally:
        connections.close()
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


def slug_for(destination: Path) -> str:
    """Names the state of a landing by the file it is to become, so that two files never share one."""
    words = "-".join(re.findall(r"[a-z0-9.]+", destination.name.lower()))[:LONGEST_NAME].strip("-")
    return f"{words or 'model'}-{hashlib.sha256(os.fsencode(destination)).hexdigest()[:8]}"


def _header(shard: Shard, settings: HttpSettings, connections: Connections) -> Tuple[Header, int]:
    """Header and size in bytes of one shard, from the first of its sources that has them."""
    complaints, remedy = [], "check the name, the network and the proxy, or choose another source"
    for address in shard.sources:
        for pause in (*PAUSES_SECONDS, None):
            try:
                return _header_at(address, shard, settings, connections)
            except GgufError as error:
                complaint, remedy = f"{address}: {error.message}", error.remedy
                break
            except SourceError as error:
                complaint = error.reason
                if error.final or pause is None:
                    break
                time.sleep(min(max(pause, error.retry_after or 0.0), LONGEST_PAUSE_SECONDS))
        complaints.append(complaint)
    raise RackllamaError(f"the header of {shard.name} cannot be read ({'; '.join(complaints)})", remedy)


def _header_at(address: str, shard: Shard, settings: HttpSettings, connections: Connections) -> Tuple[Header, int]:
    parts = urlsplit(address)
    if parts.scheme not in REMOTE:
        path = Path(unquote(parts.path) if parts.scheme == "file" else address)
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
        return _bytes_of(stream, wanted, source.label)[-length:]

    return gguf.read_header(read, size), size


def _bytes_of(stream: Stream, length: int, label: str) -> bytes:
    found, filled = bytearray(length), 0
    with memoryview(found) as view:
        while filled < length:
            count = stream.readinto(view[filled:])
            if not count:
                raise SourceError(f"{label} broke off")
            filled += count
    return bytes(found)
