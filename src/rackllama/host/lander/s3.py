"""Shards in S3 and what is compatible with it: `s3://BUCKET/KEY`, asked for with Signature Version 4 or anonymously."""

import functools
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Dict, Mapping, Tuple
from urllib.parse import quote, urlsplit

from ..errors import RackllamaError
from .aws_credentials import Credentials, CredentialSource

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
NO_BODY = hashlib.sha256().hexdigest()
COVERED = ("host", "range", "x-amz-")  # the headers that the signature is of
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class Account:
    """Where S3 is asked (`endpoint`; empty: AWS itself), for which region, and with whose credentials."""

    endpoint: str
    region: str
    credentials: CredentialSource

    def address(self, place: str) -> str:
        """The http(s) address of `s3://BUCKET/KEY`; raises RackllamaError where it names none."""
        bucket, _, key = place.partition("://")[2].partition("/")
        if not BUCKET.fullmatch(bucket) or not key or {"", ".", ".."} & set(key.split("/")) or not key.isprintable():
            raise RackllamaError(f"{place!r} names no object in S3", "write s3://BUCKET/KEY")
        path = quote(key, safe="/-_.~")
        if self.endpoint:
            return f"{self.endpoint}/{bucket}/{path}"
        if "." in bucket:  # no certificate covers it as a part of the host's name
            return f"https://s3.{self.region}.amazonaws.com/{bucket}/{path}"
        return f"https://{bucket}.s3.{self.region}.amazonaws.com/{path}"

    def signed(self, address: str, headers: Mapping[str, str]) -> Dict[str, str]:
        """The headers of a GET request, signed where there are credentials; raises SourceError as those do."""
        credentials = self.credentials.current()
        if credentials is None:
            return dict(headers)
        return signed_headers(address, headers, credentials, self.region, datetime.now(timezone.utc))


def account_of(environment: Mapping[str, str]) -> Account:
    """The account that the environment tells of, with one set of credentials for all its users."""
    return _account(tuple(sorted((name, value) for name, value in environment.items() if name.startswith("AWS_"))))


@functools.lru_cache(maxsize=4)
def _account(variables: Tuple[Tuple[str, str], ...]) -> Account:
    known = dict(variables)
    endpoint = (known.get("AWS_ENDPOINT_URL_S3") or known.get("AWS_ENDPOINT_URL") or "").rstrip("/")
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        raise RackllamaError(f"the endpoint of S3 is {endpoint!r}, which is no address", "give an https address")
    region = known.get("AWS_REGION") or known.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    return Account(endpoint, region, CredentialSource(known))


def signed_headers(
    address: str, headers: Mapping[str, str], credentials: Credentials, region: str, now: datetime
) -> Dict[str, str]:
    """The headers of a GET request without a query, with those that sign it for S3 at a time in UTC."""
    parts, stamp = urlsplit(address), now.strftime("%Y%m%dT%H%M%SZ")
    token = {"X-Amz-Security-Token": credentials.token} if credentials.token else {}
    sent = {**headers, "Host": parts.netloc, "X-Amz-Content-Sha256": NO_BODY, "X-Amz-Date": stamp, **token}
    covered = {
        name.lower(): value for name, value in sent.items() if name.lower().startswith(("host", "range", "x-amz-"))
    }
    lines = [f"{name}:{' '.join(covered[name].split())}" for name in sorted(covered)]
    names = ";".join(sorted(covered))
    request = "\n".join(["GET", parts.path, "", *lines, "", names, NO_BODY])
    scope = (stamp[:8], region, "s3", "aws4_request")
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, "/".join(scope), hashlib.sha256(request.encode()).hexdigest()])
    key = functools.reduce(_mac, scope, f"AWS4{credentials.secret_key}".encode())
    signature = _mac(key, text).hex()
    credential = f"{credentials.access_key}/{'/'.join(scope)}"
    sent["Authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return sent


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
