"""Proxies, as `http_proxy`, `https_proxy` and `no_proxy` name them. Their addresses may hold passwords."""

import os
from contextlib import contextmanager
from typing import Iterator, Mapping, Optional
from urllib.parse import urlsplit

from .errors import RackllamaError

ADDRESSES = ("http_proxy", "https_proxy")


@contextmanager
def behind(given: Mapping[str, Optional[str]]) -> Iterator[None]:
    """Fetch by these proxies, as the programs do that are started meanwhile. Raises as `require_proxies`.

    They are put into the environment of this process, so that they are on no command line.
    """
    proxies = {name: value or "" for name, value in given.items()}
    require_proxies(proxies)
    before = {name: os.environ.get(name) for name in proxies}
    os.environ.update(proxies)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def require_proxies(environment: Mapping[str, str]) -> None:
    """Raise RackllamaError where an address of a proxy is none; it does not tell the address.

    Whoever meets it later would tell a part of it, which may be one of the password.
    """
    for name, value in environment.items():
        if name.lower() in ADDRESSES and value and not _is_address(value):
            raise RackllamaError(
                f"{name} is not the address of a proxy",
                "write http://USER:PASSWORD@HOST:PORT; in a password / ? # @ : % are %2F %3F %23 %40 %3A %25",
            )


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port
    except ValueError:
        return False
    extra = parts.path.strip("/") or parts.query or parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and not extra
