"""From what a user names to a landing job: which shards there are, where they come from, and where their bytes go."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rackllama.catalog.models import slug_of
from rackllama.host import gguf, layout
from rackllama.host.errors import RackllamaError
from rackllama.host.gguf import GgufError, Header
from rackllama.host.http_ranges import Connections, HttpSettings, HttpSource
from rackllama.host.landing_job import LandingJob, Placement, ShardJob
from rackllama.host.sources import RangesRefusedError, SourceError, Stream
from rackllama.mirror.lock import SHARD, Lock, LockedFile, find, in_shard_order

PAUSES_SECONDS = (0.5, 2.0, 5.0)
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_NAME = 80


@dataclass(frozen=True)
class Shard:
    """One file to take bytes from: sources in order of preference, size in bytes and sha256 where published."""

    name: str
    sources: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None


def shards_of(source: str, read_lock: Callable[[], Lock], mirror: str = "") -> tuple[Shard, ...]:
    """The shards, in order, of a model named by one of its shards (path or http(s) address) or as it is in the lock.

    With `mirror`, it is asked before upstream, and alone where no sha256 is known. Raises RackllamaError where
    the lock has no such model, or no checksum of it.
    """
    if urlsplit(source).scheme in ("http", "https"):
        parts = urlsplit(source)
        folder, _, name = parts.path.rpartition("/")
        return tuple(
            _published(LockedFile(parts._replace(path=f"{folder}/{sibling}").geturl()), mirror)
            for sibling in shard_names(name)
        )
    if "/" in source or source.endswith(".gguf"):
        path = Path(source).absolute()
        return tuple(Shard(name, (str(path.with_name(name)),)) for name in shard_names(path.name))
    return tuple(_published(file, mirror) for file in _locked(source, read_lock()))


def shard_names(name: str) -> list[str]:
    """The names of all shards of a model, in order, from that of one; of an unsplit model it is the only one."""
    found = SHARD.fullmatch(name)
    if not found:
        return [name]
    count = int(found["count"])
    if not 1 <= int(found["number"]) <= count:
        raise RackllamaError(f"there is no shard {found['number']} of {found['count']}", "name the first shard")
    return [f"{found['model']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def job_of(
    shards: Sequence[Shard], destination: Path, settings: HttpSettings, *, drop_split_keys: bool = False
) -> LandingJob:
    """The job that lands these shards at `destination`, by the headers read from their first sources that answer.

    Raises RackllamaError where a shard is missing or is no GGUF file, or where they are not one model's.
    """
    connections = Connections(settings)
    try:
        read = [_header(shard, settings, connections) for shard in shards]
    finally:
        connections.close()
    whole = layout.merged([header for header, _ in read], [size for _, size in read], drop_split_keys)
    parts = tuple(
        ShardJob(
            shard.name,
            size,
            shard.sha256,
            shard.sources,
            Placement(place.source_offset, place.length, place.destination_offset),
            hashlib.sha256(header.raw).hexdigest(),
        )
        for shard, (header, size), place in zip(shards, read, whole.placements, strict=True)
    )
    return LandingJob(slug_for(destination), destination, whole.size, whole.header, parts)


def slug_for(destination: Path) -> str:
    """Names the state of a landing by the file it is to become, so that two files never share one."""
    words = "-".join(re.findall(r"[a-z0-9.]+", destination.name.lower()))[:LONGEST_NAME].strip("-")
    return f"{words or 'model'}-{hashlib.sha256(os.fsencode(destination)).hexdigest()[:8]}"


def _published(file: LockedFile, mirror: str) -> Shard:
    sources = tuple(dict.fromkeys((file.mirrored(mirror), file.url)))
    # With no digest to tell them apart, two sources might have two different files.
    return Shard(file.name, sources if file.sha256 else sources[:1], file.size, file.sha256)


def _locked(name: str, lock: Lock) -> tuple[LockedFile, ...]:
    models = {
        slug: artefact for slug, artefact in lock.items() if all(file.name.endswith(".gguf") for file in artefact.files)
    }
    slug = slug_of(*name.split(":", 1)) if ":" in name else name
    return in_shard_order(find(models, slug).files_for())


def _header(shard: Shard, settings: HttpSettings, connections: Connections) -> tuple[Header, int]:
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


def _header_at(address: str, shard: Shard, settings: HttpSettings, connections: Connections) -> tuple[Header, int]:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        path = Path(unquote(parts.path) if parts.scheme == "file" else address)
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                return gguf.read_header(lambda offset, length: os.pread(file.fileno(), length, offset), size), size
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}", final=True) from error
    size = shard.size or HttpSource(address, 0, None, settings).find_size(connections)
    source = HttpSource(address, size, shard.sha256, settings)

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
