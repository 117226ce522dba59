"""The journal of a landing: which grains of the part file are on the disk, and with what checksum.

Records have one width and carry their own checksum, so that a torn end or a damaged record costs that grain alone:

    + 0000002a 9ae0daaf 1f0c33d1     grain 42 is there, with this crc32
    - 00000000 00000100 5e2cd011     the first 256 grains are not to be believed any more

What the journal belongs to stands in its name, since a damaged line that says so would cost everything.
"""

import os
import zlib
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional

HERE, GONE = "+", "-"
RECORD_BYTES = 29


class Record(NamedTuple):
    """`grain` is there with checksum `value`; or, of kind GONE, `value` grains from `grain` on are not."""

    kind: str
    grain: int
    value: int


def encode(record: Record) -> bytes:
    """The line of a record."""
    body = f"{record.kind} {record.grain:08x} {record.value:08x}"
    return f"{body} {zlib.crc32(body.encode()):08x}\n".encode()


def decode(line: bytes) -> Optional[Record]:
    """The record in a line, or None where the line is damaged."""
    body = line[:19]
    if len(line) != RECORD_BYTES or line[19:] != f" {zlib.crc32(body):08x}\n".encode():
        return None
    kind, grain, value = body.decode().split(" ")
    return Record(kind, int(grain, 16), int(value, 16))


def replay(journal: bytes) -> Dict[int, int]:
    """The crc32 of each grain that is there, by its number."""
    grains: Dict[int, int] = {}
    for start in range(0, len(journal) - RECORD_BYTES + 1, RECORD_BYTES):
        record = decode(journal[start : start + RECORD_BYTES])
        if record and record.kind == HERE:
            grains[record.grain] = record.value
        elif record:
            gone = range(record.grain, record.grain + record.value)
            for grain in [grain for grain in grains if grain in gone]:
                del grains[grain]
    return grains


class Journal:
    """An open journal. Whoever appends has made durable what the records say."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            found = file.read()
        self.grains = replay(found)
        self._end = len(found) - len(found) % RECORD_BYTES  # a torn record is written over

    def append(self, records: Iterable[Record]) -> int:
        """Add records durably; gives the bytes written."""
        lines: List[bytes] = [encode(record) for record in records]
        data = b"".join(lines)
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], self._end + written)
        os.fdatasync(self._descriptor)
        self._end += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
