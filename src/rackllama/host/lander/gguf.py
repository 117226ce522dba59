"""Read GGUF headers, strictly and within bounds: from bytes, a file, or ranged reads of something far away.

What llama.cpp's own reader (ggml/src/gguf.cpp) refuses is refused here, so that a header that parses is one that can be
served. A header comes from whoever published the model: each count, length and offset is checked before memory is
taken for it. docs/gguf.md tells the rules.
"""

import struct
import sys
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from ..errors import RackllamaError

MAGIC = b"GGUF"
VERSION = 3
DEFAULT_ALIGNMENT = 32

# Far above what is published (Gemma's vocabulary of 262 144 tokens makes a header of 6 MB), and low enough for a bound
# on time and memory.
MAX_HEADER_BYTES = 64 * 2**20
MAX_KEY_VALUES = 2**14
MAX_TENSORS = 2**14
MAX_STRINGS = 2**21
FIRST_READ_BYTES = 2**20

MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 63
MAX_ELEMENTS = 2**63 - 1

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
# Value type -> its letter in `struct` and in `array`; both have the same sizes on every host that serves models.
NUMBERS = {
    UINT8: "B",
    INT8: "b",
    UINT16: "H",
    INT16: "h",
    UINT32: "I",
    INT32: "i",
    FLOAT32: "f",
    BOOL: "B",
    UINT64: "Q",
    INT64: "q",
    FLOAT64: "d",
}
INTEGERS = (UINT8, INT8, UINT16, INT16, UINT32, INT32, UINT64, INT64)
# Any byte but 0 means true.
AS_BOOLS = bytes([0]) + bytes([1]) * 255


class TensorType(NamedTuple):
    """How a ggml type is stored: each `block` elements of a row take `size` bytes."""

    name: str
    block: int
    size: int


# ggml type -> how it is stored. Numbers missing in between were withdrawn upstream.
TENSOR_TYPES: Dict[int, TensorType] = {
    0: TensorType("f32", 1, 4),
    1: TensorType("f16", 1, 2),
    2: TensorType("q4_0", 32, 18),
    3: TensorType("q4_1", 32, 20),
    6: TensorType("q5_0", 32, 22),
    7: TensorType("q5_1", 32, 24),
    8: TensorType("q8_0", 32, 34),
    9: TensorType("q8_1", 32, 36),
    10: TensorType("q2_K", 256, 84),
    11: TensorType("q3_K", 256, 110),
    12: TensorType("q4_K", 256, 144),
    13: TensorType("q5_K", 256, 176),
    14: TensorType("q6_K", 256, 210),
    15: TensorType("q8_K", 256, 292),
    16: TensorType("iq2_xxs", 256, 66),
    17: TensorType("iq2_xs", 256, 74),
    18: TensorType("iq3_xxs", 256, 98),
    19: TensorType("iq1_s", 256, 50),
    20: TensorType("iq4_nl", 32, 18),
    21: TensorType("iq3_s", 256, 110),
    22: TensorType("iq2_s", 256, 82),
    23: TensorType("iq4_xs", 256, 136),
    24: TensorType("i8", 1, 1),
    25: TensorType("i16", 1, 2),
    26: TensorType("i32", 1, 4),
    27: TensorType("i64", 1, 8),
    28: TensorType("f64", 1, 8),
    29: TensorType("iq1_m", 256, 56),
    30: TensorType("bf16", 1, 2),
    34: TensorType("tq1_0", 256, 54),
    35: TensorType("tq2_0", 256, 66),
    39: TensorType("mxfp4", 32, 17),
    40: TensorType("nvfp4", 64, 36),
    41: TensorType("q1_0", 128, 18),
    42: TensorType("q2_0", 64, 18),
}

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
# By the number of dimensions: these, the type and the offset.
_SHAPES = [struct.Struct(f"<{dimensions}QIQ") for dimensions in range(MAX_DIMENSIONS + 1)]

# Bytes from an offset, at most the length asked for, and fewer only where the file ends.
Read = Callable[[int, int], bytes]


class GgufError(RackllamaError):
    """This is no GGUF file, or not one that can be served; the message says what is wrong, and at which byte."""

    def __init__(self, message: str, remedy: str = "fetch the file again, or choose another source of it") -> None:
        super().__init__(message, remedy)


@dataclass(frozen=True)
class KeyValue:
    """One entry of the metadata. `type` is the value's (ARRAY for an array); `raw` holds the value as the file does."""

    key: str
    type: int
    raw: memoryview

    @property
    def element_type(self) -> int:
        """The type of an array's elements, and of a scalar the type itself."""
        return int(_U32.unpack_from(self.raw)[0]) if self.type == ARRAY else self.type

    @property
    def count(self) -> int:
        """The number of an array's elements, and 1 for a scalar."""
        return int(_U64.unpack_from(self.raw, _U32.size)[0]) if self.type == ARRAY else 1

    @property
    def elements(self) -> memoryview:
        """The bytes of the elements, without an array's type and count before them."""
        return self.raw[_U32.size + _U64.size :] if self.type == ARRAY else self.raw

    @property
    def value(self) -> Any:
        """The value decoded, anew at each call: a number, bool or str; of an array a tuple of str, or an `array`.

        An array of bools has 0 and 1 as its elements. Bytes that are no UTF-8 become replacement characters.
        """
        if self.element_type == STRING:
            texts = tuple(text.decode("utf-8", "replace") for text in strings(bytes(self.elements), self.count))
            return texts if self.type == ARRAY else texts[0]
        elements = bytes(self.elements)
        numbers = array(NUMBERS[self.element_type], elements.translate(AS_BOOLS) if self._is_bool else elements)
        if sys.byteorder == "big":
            numbers.byteswap()
        if self.type == ARRAY:
            return numbers
        return bool(numbers[0]) if self._is_bool else numbers[0]

    @property
    def _is_bool(self) -> bool:
        return self.element_type == BOOL


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: its shape (fastest-varying dimension first), ggml type, and offset in bytes in the data region."""

    name: str
    dims: Tuple[int, ...]
    type: int
    offset: int

    @property
    def elements(self) -> int:
        """The number of its elements."""
        count = 1
        for dim in self.dims:
            count *= dim
        return count

    @property
    def size(self) -> int:
        """Its size in bytes, without padding."""
        stored = TENSOR_TYPES[self.type]
        return self.elements // stored.block * stored.size


@dataclass(frozen=True)
class Header:
    """All that stands before the tensors' data, which begins `data_offset` bytes into the file.

    Tensors lie there one after another in their order, each from a multiple of `alignment` on. `raw` is the header
    itself, byte for byte.
    """

    version: int
    kvs: Tuple[KeyValue, ...]
    tensors: Tuple[TensorInfo, ...]
    alignment: int
    raw: bytes = field(repr=False)

    @property
    def data_offset(self) -> int:
        """Where the data region begins, in bytes from the file's beginning."""
        return len(self.raw)

    @property
    def data_size(self) -> int:
        """From there to the end of the last tensor, in bytes, without the padding after it."""
        return self.tensors[-1].offset + self.tensors[-1].size if self.tensors else 0

    def find(self, key: str) -> Optional[KeyValue]:
        """The entry of that key, or None."""
        return next((kv for kv in self.kvs if kv.key == key), None)

    def get(self, key: str, default: Any = None) -> Any:
        """The decoded value of that key, or `default` where there is none."""
        found = self.find(key)
        return default if found is None else found.value


def read_header(read: Read, size: Optional[int] = None) -> Header:
    """The header of the file that `read` reads, of `size` bytes where that is known.

    `read(offset, length)` gives that many bytes, and fewer only at the file's end; it is asked for the file's
    beginning, then for as much more as the header turns out to need. Raises GgufError; what `read` raises passes
    through.
    """
    cursor = _Cursor(read, size)
    version = _version(cursor)
    tensor_count = cursor.count("tensors", MAX_TENSORS)
    kvs = _key_values(cursor, cursor.count("metadata entries", MAX_KEY_VALUES))
    alignment = _alignment(kvs, cursor)
    tensors = _tensors(cursor, tensor_count, alignment)
    if tensors:
        cursor.skip(-cursor.at % alignment, "the padding before the data")
    # From here on the header is held once: the entries are views of it.
    raw = cursor.data[: cursor.at]
    view = memoryview(raw)
    return Header(
        version,
        tuple(KeyValue(key, type_, view[start:end]) for key, (type_, start, end) in kvs.items()),
        tensors,
        alignment,
        raw,
    )


def from_bytes(data: bytes) -> Header:
    """The header of a file of which `data` is the beginning, or all of it. Raises GgufError."""
    return read_header(lambda offset, length: data[offset : offset + length], len(data))


def from_file(path: Path) -> Header:
    """The header of a file. Raises GgufError, naming the file, and OSError."""
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        try:
            return read_header(read, path.stat().st_size)
        except GgufError as error:
            raise GgufError(f"{path}: {error.message}", error.remedy) from error


def padded(size: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """The next multiple of `alignment` that is not below `size`."""
    return size + -size % alignment


def strings(data: bytes, count: int) -> List[bytes]:
    """The first `count` strings in `data`, which a header was found to hold: each a length, then its bytes."""
    found, at = [], 0
    for _ in range(count):
        start = at + _U64.size
        at = start + _U64.unpack_from(data, at)[0]
        found.append(data[start:at])
    return found


class _Cursor:
    """Goes forward through a file's beginning, and fetches more of it when what is there is used up."""

    def __init__(self, read: Read, size: Optional[int]) -> None:
        self.data = b""
        self.at = 0
        self.strings_left = MAX_STRINGS
        self._read = read
        self._size = MAX_HEADER_BYTES if size is None else min(size, MAX_HEADER_BYTES)
        self._is_whole_file = self._size == size

    def require(self, end: int, what: str) -> None:
        """Have the bytes before `end`, or raise: nothing is read or allocated for a length that cannot be."""
        if end <= len(self.data):
            return
        if end > self._size and not self._is_whole_file:
            raise GgufError(f"{what} at byte {self.at} would make the header longer than {MAX_HEADER_BYTES} bytes")
        if end <= self._size:
            wanted = min(max(end, 2 * len(self.data), FIRST_READ_BYTES), self._size)
            self.data += self._read(len(self.data), wanted - len(self.data))
        if end > len(self.data):
            raise GgufError(f"the file ends within {what}, which begins at byte {self.at} and ends at {end}")

    def skip(self, length: int, what: str) -> int:
        """Pass over that many bytes, and tell where they begin."""
        start = self.at
        self.require(start + length, what)
        self.at = start + length
        return start

    def numbers(self, layout: struct.Struct, what: str) -> Tuple[int, ...]:
        start = self.skip(layout.size, what)
        return layout.unpack_from(self.data, start)

    def number(self, layout: struct.Struct, what: str) -> int:
        return self.numbers(layout, what)[0]

    def count(self, what: str, limit: int) -> int:
        count = self.number(_U64, f"the number of {what}")
        if count > limit:
            raise GgufError(f"the header announces {count} {what}, and {limit} are the most that are read")
        return count

    def name(self, what: str) -> str:
        """A string that names something: it ends at its first NUL, as upstream reads it."""
        length = self.number(_U64, what)
        start = self.skip(length, what)
        # Bytes that are no UTF-8 survive being written again.
        return self.data[start : self.at].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int, what: str) -> None:
        if count > self.strings_left:
            raise GgufError(f"with the {count} of {what} at byte {self.at} there are more than {MAX_STRINGS} strings")
        self.strings_left -= count
        data, last, at = self.data, len(self.data) - _U64.size, self.at
        for _ in range(count):
            if at > last:
                self.require(at + _U64.size, what)
                data, last = self.data, len(self.data) - _U64.size
            at += _U64.size + _U64.unpack_from(data, at)[0]
        self.skip(at - self.at, what)


def _version(cursor: _Cursor) -> int:
    cursor.skip(len(MAGIC), "the magic number")
    magic = cursor.data[: cursor.at]
    if magic != MAGIC:
        if cursor.data.startswith(b"version https://git-lfs"):
            raise GgufError(
                "this is a Git LFS pointer in place of the weights themselves",
                "fetch the file from an address that resolves LFS pointers, or run `git lfs pull` where it came from",
            )
        raise GgufError(f"this is no GGUF file: it begins with {magic!r}")
    version = cursor.number(_U32, "the version")
    if not version & 0xFFFF:
        raise GgufError(
            "this GGUF file is big-endian, and models are served on little-endian hosts",
            "choose the little-endian file of this model",
        )
    if version not in (2, VERSION):
        raise GgufError(
            f"this is GGUF version {version}, and 2 and {VERSION} are what llama.cpp reads",
            "choose a file of this model that was converted by a llama.cpp of today",
        )
    return version


def _key_values(cursor: _Cursor, count: int) -> Dict[str, Tuple[int, int, int]]:
    """Key -> type, and from where to where the value lies; in the file's order."""
    found: Dict[str, Tuple[int, int, int]] = {}
    for number in range(count):
        key = cursor.name(f"key {number}")
        if not key:
            raise GgufError(f"key {number}, before byte {cursor.at}, is empty")
        if key in found:
            raise GgufError(f"the key {key!r}, before byte {cursor.at}, is there twice")
        what = f"the value of {key!r}"
        type_ = cursor.number(_U32, what)
        start = cursor.at
        if type_ == ARRAY:
            element_type, elements = cursor.number(_U32, what), cursor.number(_U64, what)
        else:
            element_type, elements = type_, 1
        if element_type == STRING:
            cursor.skip_strings(elements, what)
        elif element_type in NUMBERS:
            cursor.skip(elements * struct.calcsize(NUMBERS[element_type]), what)
        else:
            raise GgufError(f"{what} at byte {start} is of a type that there is not: {element_type}")
        found[key] = (type_, start, cursor.at)
    return found


def _alignment(kvs: Dict[str, Tuple[int, int, int]], cursor: _Cursor) -> int:
    if "general.alignment" not in kvs:
        return DEFAULT_ALIGNMENT
    type_, start, _ = kvs["general.alignment"]
    if type_ != UINT32:
        raise GgufError(f"general.alignment at byte {start} is of type {type_}, and has to be a 32-bit number")
    alignment = int(_U32.unpack_from(cursor.data, start)[0])
    if alignment == 0 or alignment & (alignment - 1):
        raise GgufError(f"general.alignment at byte {start} is {alignment}, which is no power of 2")
    return alignment


def _tensors(cursor: _Cursor, count: int, alignment: int) -> Tuple[TensorInfo, ...]:
    found: List[TensorInfo] = []
    names: Set[str] = set()
    offset = 0
    for number in range(count):
        start = cursor.at
        tensor = _tensor(cursor, number)
        if tensor.name in names:
            raise GgufError(f"the tensor {tensor.name!r} at byte {start} is there twice")
        if tensor.offset != offset:
            raise GgufError(
                f"the data of {tensor.name!r}, as told at byte {start}, begin at {tensor.offset} of the data region, "
                f"where the tensors before it and an alignment of {alignment} make it {offset}"
            )
        offset += padded(tensor.size, alignment)
        names.add(tensor.name)
        found.append(tensor)
    return tuple(found)


def _tensor(cursor: _Cursor, number: int) -> TensorInfo:
    start = cursor.at
    name = cursor.name(f"the name of tensor {number}")
    what = f"the tensor {name!r}"
    if cursor.at - start - _U64.size > MAX_NAME_BYTES:
        raise GgufError(f"the name of tensor {number} at byte {start} is longer than {MAX_NAME_BYTES} bytes")
    dimensions = cursor.number(_U32, what)
    if dimensions > MAX_DIMENSIONS:
        raise GgufError(f"{what} at byte {start} has {dimensions} dimensions, and {MAX_DIMENSIONS} are the most")
    *dims, type_, offset = cursor.numbers(_SHAPES[dimensions], what)
    tensor = TensorInfo(name, tuple(dims), type_, offset)
    if not 0 < tensor.elements < MAX_ELEMENTS:
        raise GgufError(f"{what} at byte {start} has an impossible shape: {tensor.dims}")
    if tensor.type not in TENSOR_TYPES:
        raise GgufError(
            f"{what} at byte {start} is of ggml type {tensor.type}, which is not known",
            "choose another quantization of this model, or a newer release of rackllama",
        )
    row, block = dims[0] if dims else 1, TENSOR_TYPES[tensor.type].block
    if row % block:
        raise GgufError(f"{what} at byte {start} has rows of {row} elements, no multiple of its block of {block}")
    return tensor
