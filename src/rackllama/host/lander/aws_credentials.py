"""Credentials for AWS and what is compatible with it: of the environment, a container or the instance's role.

What expires is asked for anew in time. Where nothing gives any, requests are anonymous, as public buckets want them.
"""

import http.client
import ipaddress
import json
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional
from urllib.parse import quote, urlsplit

from .sources import SourceError

INSTANCE_METADATA = "http://169.254.169.254"
CONTAINER_METADATA = "http://169.254.170.2"
CONTAINER_HOSTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost")
ROLES = "/latest/meta-data/iam/security-credentials/"
TOKEN_LIFE_SECONDS = 21600
REFRESH_SECONDS = 300.0  # new ones are there at least that long before the old ones expire
METADATA_SECONDS = 2.0
LARGEST_ANSWER_BYTES = 1 << 16


@dataclass(frozen=True)
class Credentials:
    """A key, and where it is a temporary one its token and when it expires, in seconds since the epoch."""

    access_key: str
    secret_key: str = field(repr=False)
    token: Optional[str] = field(default=None, repr=False)
    expires_at: Optional[float] = None


class CredentialSource:
    """Gives the credentials in force, to any thread."""

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._environment = environment
        self._clock = clock
        self._found: Optional[Credentials] = None
        self._asked = False
        self._lock = threading.Lock()

    def current(self) -> Optional[Credentials]:
        """The credentials to sign with now; None: none. Raises SourceError where they cannot be had at the moment."""
        with self._lock:
            found, now = self._found, self._clock()
            is_ending = found and found.expires_at is not None and now > found.expires_at - REFRESH_SECONDS
            if not self._asked or is_ending:
                self._found = self._ask(now)
                self._asked = True
            return self._found

    def _ask(self, now: float) -> Optional[Credentials]:
        try:
            found = _find(self._environment)
            if found or not self._found:
                return found
            reason = "they were there before"
        except (OSError, http.client.HTTPException, AttributeError, KeyError, TypeError, ValueError) as error:
            reason = str(error) or type(error).__name__
        if self._found and now < (self._found.expires_at or now):
            return self._found
        raise SourceError(f"no credentials for S3 can be had ({reason})")


def _find(environment: Mapping[str, str]) -> Optional[Credentials]:
    key, secret = (environment.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if key and secret:
        return Credentials(key, secret, environment.get("AWS_SESSION_TOKEN") or None)
    if key or secret:
        raise SourceError("one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is missing", final=True)
    relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    full = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if relative or full:
        return _of_container(f"{CONTAINER_METADATA}{relative}" if relative else str(full), environment)
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    return _of_instance(environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or INSTANCE_METADATA)


def _of_container(address: str, environment: Mapping[str, str]) -> Credentials:
    parts = urlsplit(address)
    if parts.scheme != "https" and not _is_near(parts.hostname or ""):
        raise SourceError(f"credentials are not asked of {parts.netloc}: it is neither near nor encrypted", final=True)
    path = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    token = Path(path).read_text("utf-8").strip() if path else environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    return _credentials(_asked(address, {"Authorization": token} if token else {}))


def _is_near(host: str) -> bool:
    try:
        return host in CONTAINER_HOSTS or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _of_instance(base: str) -> Optional[Credentials]:
    base = base.rstrip("/")
    try:
        life = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE_SECONDS)}
        token = {"X-aws-ec2-metadata-token": _asked(f"{base}/latest/api/token", life, "PUT").decode("ascii")}
        role = _asked(f"{base}{ROLES}", token).decode("utf-8").split()
    except (OSError, http.client.HTTPException):
        return None  # no instance of theirs, or one without a role
    return _credentials(_asked(f"{base}{ROLES}{quote(role[0], safe='')}", token)) if role else None


def _credentials(answer: bytes) -> Credentials:
    document: Dict[str, Any] = json.loads(answer)
    if document.get("Code", "Success") != "Success":
        raise ValueError(f"the metadata service says {document['Code']}")
    expires = document.get("Expiration")
    return Credentials(
        document["AccessKeyId"],
        document["SecretAccessKey"],
        document.get("Token"),
        datetime.fromisoformat(expires.replace("Z", "+00:00")).timestamp() if expires else None,
    )


def _asked(address: str, headers: Mapping[str, str], method: str = "GET") -> bytes:
    """What a metadata service answers; never through a proxy."""
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=METADATA_SECONDS)
    try:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=dict(headers))
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise OSError(f"{parts.netloc} answered {answer.status} {answer.reason}")
        return answer.read(LARGEST_ANSWER_BYTES)
    finally:
        connection.close()
