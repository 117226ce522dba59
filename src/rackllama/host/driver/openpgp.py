"""Fingerprints of OpenPGP keys (RFC 9580), so that a key is known before any package manager is told to trust it."""

import base64
import binascii
import hashlib
import re
from typing import Iterator, List, NoReturn, Tuple

from ..errors import RackllamaError

PUBLIC_KEY = 6
ONE_BYTE, TWO_BYTES, FIVE_BYTES = range(192), range(192, 224), 255  # first bytes of a length in the new form
UNKNOWN_LENGTH = 3
ARMOUR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[^\n]+: [^\n]*\n)*\n(.*?)\n(?:=[^\n]{4}\n)?-----END PGP", re.S
)
NO_KEY = "look at what the archive serves there: it is no OpenPGP key"


def dearmoured(text: str) -> bytes:
    """The bytes of one ASCII-armoured public key. Raises RackllamaError where it is none, or more than one."""
    if text.count("BEGIN PGP") > 1:
        _no_key("there is more than one")
    found = ARMOUR.search(text.replace("\r\n", "\n"))
    try:
        return base64.b64decode(found[1]) if found else _no_key("it has no armour")
    except binascii.Error as error:
        _no_key(str(error))


def fingerprints(key: bytes) -> List[str]:
    """The fingerprints of the primary keys in a keyring, 40 hexadecimal digits each. Raises as `dearmoured`."""
    return [_fingerprint(body) for tag, body in _packets(key) if tag == PUBLIC_KEY]


def _fingerprint(body: bytes) -> str:
    """Of a key of version 4: SHA-1 over 0x99, the length in two bytes, and the packet's body (RFC 9580, 5.5.4.2)."""
    if body[:1] != b"\x04":
        _no_key("its version is not 4")
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()


def _packets(data: bytes) -> Iterator[Tuple[int, bytes]]:
    """Tag and body of each packet, whose header has one of two forms (RFC 9580, 4.2)."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            _no_key("a packet begins with no tag")
        tag, at, length = _new_header(data, at) if head & 0x40 else _old_header(data, at)
        if at + length > len(data):
            _no_key("it is cut off")
        yield tag, data[at : at + length]
        at += length


def _new_header(data: bytes, at: int) -> Tuple[int, int, int]:
    tag, first = data[at] & 0x3F, _number(data, at + 1, 1)
    if first in ONE_BYTE:
        return tag, at + 2, first
    if first in TWO_BYTES:
        return tag, at + 3, ((first - 192) << 8) + _number(data, at + 2, 1) + 192
    if first != FIVE_BYTES:
        _no_key("a packet has no length")
    return tag, at + 6, _number(data, at + 2, 4)


def _old_header(data: bytes, at: int) -> Tuple[int, int, int]:
    kind = data[at] & 3
    if kind == UNKNOWN_LENGTH:
        _no_key("a packet has no length")
    width = 1 << kind
    return (data[at] >> 2) & 0xF, at + 1 + width, _number(data, at + 1, width)


def _number(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        _no_key("it is cut off")
    return int.from_bytes(data[at : at + width], "big")


def _no_key(why: str) -> NoReturn:
    raise RackllamaError(f"what ought to be a signing key is none: {why}", NO_KEY)
