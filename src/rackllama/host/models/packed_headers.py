"""The headers of a model's shards, read where it is landed or will be, and packed for whoever plans for this host.

The host is who reaches its sources: by its network, proxies and tokens, and on its own disks.
"""

import zlib
from base64 import b64decode, b64encode
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..errors import RackllamaError
from ..lander import gguf
from ..lander.gguf import GgufError, Header
from ..lander.http_ranges import HttpSettings
from ..lander.shards import HeaderReading, read_headers
from .model import HEADER_PATIENCE_SECONDS, WantedModel, found_model
from .ollama_store import OllamaStore

TIMEOUT_SECONDS = 20.0


def packed_headers(wanted: WantedModel, tokens: Mapping[str, str]) -> Dict[str, Any]:
    """The headers of all shards in order, or the one of the landed model; or else why there are none, and a remedy."""
    try:
        return {"headers": [_packed(header, size) for header, size in _headers(wanted, tokens)]}
    except RackllamaError as error:
        return {"problem": error.message, "remedy": error.remedy}


def unpacked(packed: Mapping[str, Any]) -> Header:
    """A header as it was before it was packed. Raises GgufError where it is none."""
    try:
        raw = zlib.decompressobj().decompress(b64decode(packed["header"]), gguf.MAX_HEADER_BYTES)
        size = int(packed["size"])
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise GgufError(f"what a host sent is no header ({error})") from error
    return gguf.read_header(lambda offset, length: raw[offset : offset + length], size)


def _packed(header: Header, size: int) -> Dict[str, Any]:
    return {"size": size, "header": b64encode(zlib.compress(header.raw)).decode()}


def _headers(wanted: WantedModel, tokens: Mapping[str, str]) -> Sequence[Tuple[Header, int]]:
    landed = found_model(wanted).weights
    if landed:
        blob = OllamaStore(wanted.store).blob(landed.blob)
        try:
            return [(gguf.from_file(blob), landed.size)]
        except OSError as error:
            raise RackllamaError(f"{blob} cannot be read ({error.strerror})", "see its disk: dmesg") from error
    reading = HeaderReading(HttpSettings(tokens, TIMEOUT_SECONDS), HEADER_PATIENCE_SECONDS)
    read: List[Tuple[Header, int]] = read_headers(wanted.weights.shards, reading)
    return read
