"""What is to be landed: one file, put together from byte ranges of shards. Plain data, checked before anything is done.

The engine knows nothing of GGUF: whoever computed the merged header says where each shard's bytes go.
"""

import hashlib
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from ..errors import RackllamaError

SLUG = re.compile(r"[a-z0-9.]+(-[a-z0-9.]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
LARGEST_GAP_BYTES = 1 << 20  # padding; more means that a shard is missing
COMPUTE_AGAIN = "compute the job again from the shards' headers"


class LayoutError(RackllamaError):
    """The layout was computed from a header that is not the published shard's; `header_sha256` tells which one."""

    def __init__(self, shard: str, header_sha256: str) -> None:
        super().__init__(f"the layout was not computed from the header of {shard}", COMPUTE_AGAIN)
        self.header_sha256 = header_sha256


@dataclass(frozen=True)
class Placement:
    """`length` bytes of a shard from `source_offset` on go to `destination_offset` of the landed file."""

    source_offset: int
    length: int
    destination_offset: int

    @property
    def source_end(self) -> int:
        """Where the shard's placed bytes end."""
        return self.source_offset + self.length

    @property
    def destination_end(self) -> int:
        """Where they end in the landed file."""
        return self.destination_offset + self.length


@dataclass(frozen=True)
class ShardJob:
    """One published file: `size` in bytes, `sha256` as published (None: unverified), sources in order of preference.

    A source is an http, https, s3 or file address, or a path; one that is a directory, or ends with a slash, holds the
    shard under its name. `header_sha256` is of the bytes before the placement, as the layout was computed from them.
    """

    name: str
    size: int
    sha256: Optional[str]
    sources: Tuple[str, ...]
    placement: Placement
    header_sha256: Optional[str] = None


@dataclass(frozen=True)
class LandingJob:
    """One file to land at `destination`: `size` bytes, beginning with `header`, the rest from shards.

    What neither the header nor a shard covers is zero. `sha256` is that of the whole file, where it is known.
    """

    slug: str
    destination: Path
    size: int
    header: bytes
    shards: Tuple[ShardJob, ...]
    sha256: Optional[str] = None

    @property
    def identity(self) -> str:
        """Names this job's part file and journal: whatever changes a shard's byte in them changes it. Sources do not.

        Nor does the header, which each run writes anew, where published digests tell which shards are meant.
        """
        published = all(shard.sha256 for shard in self.shards)
        hasher = hashlib.sha256(b"" if published else self.header)
        places = [
            (shard.size, shard.sha256, *(getattr(shard.placement, field.name) for field in fields(Placement)))
            for shard in self.shards
        ]
        hasher.update(repr((self.slug, self.size, self.sha256, places)).encode())
        return hasher.hexdigest()[:16]

    @property
    def needs_merged_digest(self) -> bool:
        """Whether the whole file must be hashed in order.

        Not where its digest is known and everything that it would prove is proved by the shards, each on its own: their
        published digests, and that the header came from those very shards.
        """
        return self.sha256 is None or not all(shard.sha256 and shard.header_sha256 for shard in self.shards)

    def placements(self) -> List[Placement]:
        """Where bytes of shards go, in the order of the landed file."""
        places = [shard.placement for shard in self.shards if shard.placement.length]
        return sorted(places, key=lambda place: place.destination_offset)

    def gaps(self) -> Iterator[Tuple[int, int]]:
        """(start, end) of what lies before each placement, in their order, and after the last: often nothing."""
        position = len(self.header)
        for place in self.placements():
            yield position, place.destination_offset
            position = place.destination_end
        yield position, self.size


def landing_job(given: Mapping[str, Any], header: bytes) -> LandingJob:
    """A job from plain data, with the names of the dataclasses above; raises RackllamaError where it is not sound."""
    try:
        shards = tuple(
            ShardJob(**{**shard, "sources": tuple(shard["sources"]), "placement": Placement(**shard["placement"])})
            for shard in given["shards"]
        )
        job = LandingJob(given["slug"], Path(given["destination"]), given["size"], header, shards, given.get("sha256"))
    except (KeyError, TypeError) as error:
        raise RackllamaError(f"this is no landing job ({error})", COMPUTE_AGAIN) from error
    check(job)
    return job


def check(job: LandingJob) -> None:
    """Raise RackllamaError where a name leads elsewhere, or where sizes and places do not fit together."""
    if not SLUG.fullmatch(job.slug):
        _refuse(f"{job.slug!r} is no slug", "use small letters, digits, dots and single dashes")
    _check_name(job.destination.name)
    if not job.destination.is_absolute() or ".." in job.destination.parts or "\0" in str(job.destination):
        _refuse(f"{str(job.destination)!r} is no plain absolute path", "give the full path of the file to land")
    for digest in [job.sha256, *(sha for shard in job.shards for sha in (shard.sha256, shard.header_sha256))]:
        if digest is not None and not SHA256.fullmatch(digest):
            _refuse(f"{digest!r} is no sha256", "lock the model again")
    if not job.shards:
        _refuse(f"{job.slug} has no shard", "name at least one")
    for shard in job.shards:
        _check_shard(shard)
    gaps = [end - start for start, end in job.gaps()]
    if max(gaps) > LARGEST_GAP_BYTES:
        _refuse(f"the header and the shards of {job.slug} leave {max(gaps)} bytes of it open", COMPUTE_AGAIN)
    if min(gaps) < 0:
        _refuse(f"the header and the shards of {job.slug} overlap, or do not fit in {job.size} bytes", COMPUTE_AGAIN)


def _check_shard(shard: ShardJob) -> None:
    _check_name(shard.name)
    place = shard.placement
    if min(place.source_offset, place.length, place.destination_offset) < 0 or place.source_end > shard.size:
        _refuse(f"{shard.name} has {shard.size} bytes, and others were to be taken from it", COMPUTE_AGAIN)
    if not shard.sources:
        _refuse(f"{shard.name} has no source", "give an address or a path")
    for source in shard.sources:
        if "@" in urlsplit(source).netloc:
            _refuse(f"a source of {shard.name} has a password in its address", "give a token instead")


def _check_name(name: str) -> None:
    if not name or name in (".", "..") or "/" in name or "\0" in name or "\n" in name:
        _refuse(f"{name!r} is no plain file name", "name the file itself, without any folder")


def _refuse(message: str, remedy: str) -> None:
    raise RackllamaError(message, remedy)
