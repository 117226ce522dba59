"""How a shard is cut into pieces, and how many of them one request asks for. Pure.

A piece is what is hashed, written and journaled as one. Those of the placed range are the grains, which have a number
in the landed file as well; those before and after it, the margins, are hashed and never stored. Grains begin and end at
multiples of their size in the landed file, so that all but the first and the last of a shard can be written to the disk
past the page cache.
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional

from .landing_job import Placement

GRAIN_BYTES = 1 << 21
SPAN_BYTES = 32 << 20
SMALLEST_SPAN_BYTES = 4 << 20


class Piece(NamedTuple):
    """Bytes `start` to `end` of a shard; `destination` is their place in the landed file, None for a margin."""

    start: int
    end: int
    destination: Optional[int]


@dataclass(frozen=True)
class Tiling:
    """The pieces of one shard of `size` bytes, numbered in order; `first_grain` counts those of the shards before."""

    size: int
    placement: Placement
    first_grain: int = 0

    @property
    def before(self) -> int:
        """How many pieces lie before the placed range."""
        return _pieces(self.placement.source_offset)

    @property
    def grains(self) -> int:
        """How many pieces are stored."""
        place = self.placement
        return _pieces(place.destination_end) - self._first_cell if place.length else 0

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return self.before + self.grains + _pieces(self.size - self.placement.source_end)

    def piece(self, number: int) -> Piece:
        """The piece of that number."""
        place, grain = self.placement, number - self.before
        if grain < 0:
            start = number * GRAIN_BYTES
            return Piece(start, min(start + GRAIN_BYTES, place.source_offset), None)
        if grain < self.grains:
            begin = (self._first_cell + grain) * GRAIN_BYTES
            end = min(begin + GRAIN_BYTES, place.destination_end)
            begin = max(begin, place.destination_offset)
            shift = place.source_offset - place.destination_offset
            return Piece(begin + shift, end + shift, begin)
        start = place.source_end + (grain - self.grains) * GRAIN_BYTES
        return Piece(start, min(start + GRAIN_BYTES, self.size), None)

    @property
    def _first_cell(self) -> int:
        return self.placement.destination_offset // GRAIN_BYTES


def span_bytes(remaining_bytes: int, connections: int, ahead_bytes: int) -> int:
    """How many bytes to ask for at once, to the end of the piece that they end in.

    Few while the digests are close behind, so that they need not wait for one connection's long range; many once they
    have work ahead of them; few again towards the end, so that all connections end together.
    """
    fair = remaining_bytes // (2 * connections)
    wanted = min(SPAN_BYTES, fair, max(2 * SMALLEST_SPAN_BYTES, ahead_bytes // 4))
    return max(SMALLEST_SPAN_BYTES, wanted)


def _pieces(size: int) -> int:
    return -(-size // GRAIN_BYTES)
