"""From an address or a path to the source that it is."""

import os
from pathlib import Path
from typing import Optional
from urllib.parse import unquote, urlsplit

from ..errors import RackllamaError
from .http_ranges import HttpSettings, HttpSource
from .s3 import account_of
from .sources import FileSource

REMOTE = ("http", "https", "s3")


def remote_source(address: str, name: str, size: int, sha256: Optional[str], settings: HttpSettings) -> HttpSource:
    """A shard at an http(s) or S3 address; one that ends with a slash holds it under its name."""
    full = address + name if urlsplit(address).path.endswith("/") else address
    if urlsplit(address).scheme != "s3":
        return HttpSource(full, size, sha256, settings)
    account = account_of(os.environ)
    return HttpSource(account.address(full), size, sha256, settings, account.signed)


def file_source(address: str, name: str, size: int) -> FileSource:
    """A shard on a disk: its path or file address, or those of a folder that holds it under its name."""
    parts = urlsplit(address)
    if parts.scheme not in ("", "file"):
        raise RackllamaError(f"{name} has a source of an unknown kind: {parts.scheme}:", "give http(s), s3: or a path")
    path = Path(unquote(parts.path) if parts.scheme else address)
    return FileSource(path / name if path.is_dir() else path, size)
