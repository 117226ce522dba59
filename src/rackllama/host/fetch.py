"""Fetch one file over HTTP(S) (or file://), resumed where it broke off, and checked before anybody sees it."""

import errno
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Optional, Tuple

from .errors import RackllamaError
from .files import CHUNK_BYTES, hash_file, sync_directory

SOCKET_TIMEOUT_SECONDS = 60
ATTEMPTS = 4
# Answers that another attempt may change; every other 4xx is final.
RANGE_NOT_SATISFIABLE = 416
PASSING_STATUSES = (RANGE_NOT_SATISFIABLE, 408, 425, 429, 500, 502, 503, 504)


def fetch(url: str, destination: Path, sha256: str, size: Optional[int] = None) -> None:
    """Put the file at `url` at `destination`, where it appears only once its sha256 is right.

    What has arrived stays in `<destination>.part` and is continued by the next call; proxies are taken from the
    environment. Raises RackllamaError where the source cannot be reached, the disk is too small (told before the first
    byte where `size`, in bytes, is known), or the bytes are not those that were locked; a wrong file is deleted.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(destination.name + ".part")
    if size is not None:
        require_free_space(destination.parent, size - (part.stat().st_size if part.exists() else 0))
    found = _arrive(url, part, size)
    if found != sha256:
        part.unlink()
        raise RackllamaError(
            f"{url} has sha256 {found}, but {sha256} is locked; the download was deleted",
            "if the mirror holds a damaged copy, repair it; if upstream really changed the file, review it and lock it",
        )
    part.replace(destination)
    sync_directory(destination.parent)


def require_free_space(directory: Path, needed_bytes: int) -> None:
    """Raise RackllamaError where the file system of `directory` has less than `needed_bytes` free."""
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise RackllamaError(
            f"{directory} has {free / 2**30:.2f} GiB free, and {needed_bytes / 2**30:.2f} GiB are needed",
            f"free space on the file system of {directory}, or choose a larger one",
        )


def _arrive(url: str, part: Path, size: Optional[int]) -> str:
    """Bring `part` to its full length and give its sha256; as many attempts as make progress, and a few that do not."""
    hasher, have = _hash_of_part(part)
    fruitless = 0
    while size is None or have < size:
        try:
            _append(url, part, hasher, have)
        except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
            failure, final = _explained(url, part, error)
            before, (hasher, have) = have, _hash_of_part(part)
            fruitless = 0 if have > before else fruitless + 1
            if final or fruitless == ATTEMPTS:
                raise failure from error
            time.sleep(2 ** max(0, fruitless - 1))  # back-off: the one condition to wait for is on the other side
        else:
            if size is not None and part.stat().st_size < size:
                got = part.stat().st_size
                raise RackllamaError(f"{url} has {got} bytes, and {size} are locked", "check the mirror's copy")
            break
    return hasher.hexdigest()


def _hash_of_part(part: Path) -> "Tuple[hashlib._Hash, int]":
    return hash_file(part) if part.exists() else (hashlib.sha256(), 0)


def _append(url: str, part: Path, hasher: "hashlib._Hash", have: int) -> None:
    """Append all that follows the first `have` bytes. An answer that is cut off is a ConnectionError."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=SOCKET_TIMEOUT_SECONDS) as response:
        if have and getattr(response, "status", None) != http.client.PARTIAL_CONTENT:
            part.unlink()
            raise ConnectionError("the source does not serve ranges, starting over")
        with part.open("ab") as file:
            for chunk in iter(lambda: response.read(CHUNK_BYTES), b""):
                hasher.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if getattr(response, "length", 0):
            raise ConnectionError(f"the answer was cut off {response.length} bytes before its end")


def _explained(url: str, part: Path, error: Exception) -> Tuple[RackllamaError, bool]:
    """What to tell the user of a failed attempt, and whether another attempt is pointless."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        part.unlink()  # a full disk helps nobody; the next call starts this file over
        return RackllamaError(f"the disk of {part.parent} is full", "free space there and run again"), True
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code == RANGE_NOT_SATISFIABLE:
            part.unlink()
        return (
            RackllamaError(
                f"{url} answered {error.code} {error.reason}", "check the address in the lock, and the mirror"
            ),
            error.code not in PASSING_STATUSES,
        )
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = "check rackllama_mirror, the proxy settings and the network of the host"
    return RackllamaError(f"{url} cannot be reached ({reason})", remedy), False
