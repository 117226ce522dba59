"""Where each shard's bytes lie in the merged model, from the shards' headers alone.

A download can then write every byte once, straight to its final place, and the result is the very file that
`llama-gguf-split --merge` makes of the same shards. docs/gguf.md tells the rules, and where they come from.
"""

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Iterable, List, Optional, Sequence, Tuple

from ..errors import RackllamaError
from . import gguf
from .gguf import Header, KeyValue, TensorInfo, padded

SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS_COUNT = "split.no", "split.count", "split.tensors.count"
SPLIT_KEYS = (SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS_COUNT)
MAX_FILE_BYTES = 2**63 - 1

_ALL_SHARDS = "give all shards of one model, each once, in the order of their numbers"


@dataclass(frozen=True)
class Placement:
    """Of one shard, `length` bytes from `source_offset` on go to `destination_offset` of the merged file."""

    source_offset: int
    length: int
    destination_offset: int


@dataclass(frozen=True)
class Layout:
    """The merged file: `header` at its beginning, then the data of each shard; it has `size` bytes.

    `placements` has one for each shard, in order, of length 0 for a shard without tensors. They follow each other with
    no gap, except where a shard ends without the padding after its last tensor: bytes that nothing covers are zero.
    Padding that a shard has is taken from it, and everything that writes GGUF files writes it as zeros.
    """

    header: bytes
    size: int
    placements: Tuple[Placement, ...]


def merged(headers: Sequence[Header], sizes: Sequence[int], drop_split_keys: bool = False) -> Layout:
    """The layout of the model whose shards, in order, have these headers and these sizes in bytes.

    A model of one file that was never split stays as it is. With `drop_split_keys` the result is what the model was
    before it was split, and not what upstream's tool makes of the shards. Raises RackllamaError where these are not the
    shards of one model in order, where one is cut off, or where upstream could not read what it would write.
    """
    if not headers or len(headers) != len(sizes):
        raise ValueError(f"{len(headers)} headers and {len(sizes)} sizes")
    for number, (header, size) in enumerate(zip(headers, sizes), 1):
        end = header.data_offset + header.data_size
        if size < end:
            raise RackllamaError(
                f"shard {number} of {len(headers)} has {size} bytes, and its tensors end at {end}: it is cut off",
                "fetch this shard again",
            )
    if sum(sizes) > MAX_FILE_BYTES:
        raise RackllamaError(f"the shards have {sum(sizes)} bytes together, more than a file can have", _ALL_SHARDS)
    first = headers[0]
    if is_split(headers):
        require_one_model(headers)
    elif not drop_split_keys or not any(map(first.find, SPLIT_KEYS)):
        return Layout(first.raw, sizes[0], (Placement(len(first.raw), sizes[0] - len(first.raw), len(first.raw)),))
    _require_default_alignment(headers)
    header_bytes = _header(first.kvs, [tensor for header in headers for tensor in header.tensors], drop_split_keys)
    placements, end = [], len(header_bytes)
    for header, size in zip(headers, sizes):
        data_size = padded(header.data_size)
        length = min(data_size, size - header.data_offset) if header.tensors else 0
        placements.append(Placement(header.data_offset, length, end))
        end += data_size
    return Layout(header_bytes, end, tuple(placements))


def is_split(headers: Sequence[Header]) -> bool:
    """Whether these are shards, or one of them, and not the header of a whole file."""
    return len(headers) > 1 or bool(_split_number(headers[0], SPLIT_COUNT))


def require_one_model(headers: Sequence[Header]) -> None:
    """Raise RackllamaError where these are not the headers of all shards of one model, in order."""
    tensor_count = sum(len(header.tensors) for header in headers)
    for index, header in enumerate(headers):
        for key, wanted in ((SPLIT_COUNT, len(headers)), (SPLIT_NO, index), (SPLIT_TENSORS_COUNT, tensor_count)):
            found = _split_number(header, key)
            if found != wanted:
                says = f"has no number {key}" if found is None else f"says {key} = {found}"
                raise RackllamaError(
                    f"shard {index + 1} of {len(headers)} {says}, where these shards make it {wanted}", _ALL_SHARDS
                )
    names = Counter(tensor.name for header in headers for tensor in header.tensors)
    name, times = names.most_common(1)[0] if names else ("", 1)
    if times > 1:
        raise RackllamaError(f"the tensor {name!r} is in {times} shards", _ALL_SHARDS)


def _split_number(header: Header, key: str) -> Optional[int]:
    found = header.find(key)
    return int(found.value) if found is not None and found.type in gguf.INTEGERS else None


def _require_default_alignment(headers: Sequence[Header]) -> None:
    for number, header in enumerate(headers, 1):
        if header.alignment != gguf.DEFAULT_ALIGNMENT:
            raise RackllamaError(
                f"shard {number} of {len(headers)} is aligned to {header.alignment} bytes, and upstream merges with "
                f"{gguf.DEFAULT_ALIGNMENT} only: the result could not be read",
                "choose a file of this model that is not split, or shards of another publisher",
            )


def _header(kvs: Iterable[KeyValue], tensors: Sequence[TensorInfo], drop_split_keys: bool) -> bytes:
    """The merged file's header, padded to where the data begins."""
    dropped = SPLIT_KEYS if drop_split_keys else (SPLIT_COUNT,)
    entries = [_entry(kv.key, kv.type, _as_upstream_writes(kv)) for kv in kvs if kv.key not in dropped]
    if not drop_split_keys:
        # A merged file must not look like a shard.
        entries.append(_entry(SPLIT_COUNT, gguf.UINT16, struct.pack("<H", 0)))
    counts = struct.pack("<IQQ", gguf.VERSION, len(tensors), len(entries))
    header = b"".join([gguf.MAGIC, counts, *entries, *_tensor_infos(tensors)])
    return header.ljust(padded(len(header)), b"\0")


def _entry(key: str, type_: int, value: bytes) -> bytes:
    return _string(key.encode("utf-8", "surrogateescape")) + struct.pack("<I", type_) + value


def _as_upstream_writes(kv: KeyValue) -> bytes:
    """The value's bytes after upstream read and wrote it: strings end at their first NUL, and what is true is 1."""
    raw = bytes(kv.raw)
    elements = bytes(kv.elements)
    before = raw[: len(raw) - len(elements)]
    if kv.element_type == gguf.BOOL:
        return before + elements.translate(gguf.AS_BOOLS)
    if kv.element_type == gguf.STRING:
        texts = gguf.strings(elements, kv.count)
        if b"\0" in b"".join(texts):
            return before + b"".join(_string(text.split(b"\0", 1)[0]) for text in texts)
    return raw


def _tensor_infos(tensors: Iterable[TensorInfo]) -> List[bytes]:
    infos, offset = [], 0
    for tensor in tensors:
        dims = list(tensor.dims) or [1]
        while len(dims) > 1 and dims[-1] == 1:
            dims.pop()
        name = _string(tensor.name.encode("utf-8", "surrogateescape"))
        infos.append(name + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type, offset))
        offset += padded(tensor.size)
    return infos


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text
