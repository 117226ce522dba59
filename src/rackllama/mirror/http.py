"""The controller's HTTP client for small published facts: checksums, indexes, release metadata.

Proxies come from the environment, as everywhere. A token goes to its own host and to no other, whatever redirects say.
"""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO
from urllib.parse import urlsplit

from rackllama.host.errors import RackllamaError

TIMEOUT_SECONDS = 30
ATTEMPTS = 4
LONGEST_WAIT_SECONDS = 120.0
# The largest index of a Linux distribution's archive is about a tenth of this.
LARGEST_ANSWER_BYTES = 512 * 1024**2
TRANSIENT = {429, 500, 502, 503, 504}
HUGGING_FACE = "https://huggingface.co"
MODELSCOPE = "https://www.modelscope.cn"
TOKEN_VARIABLES = {
    "https://api.github.com": "GITHUB_TOKEN",
    HUGGING_FACE: "HF_TOKEN",
    MODELSCOPE: "MODELSCOPE_API_TOKEN",
}
# As the hubs' own clients read them.
ENDPOINT_VARIABLES = {HUGGING_FACE: "HF_ENDPOINT", MODELSCOPE: "MODELSCOPE_ENDPOINT"}


def endpoint(hub: str, environment: Mapping[str, str]) -> str:
    """Where a hub is asked: at its own address, or at the one that the environment names in its place."""
    named = environment.get(ENDPOINT_VARIABLES[hub], "").strip().rstrip("/")
    if named and urlsplit(named).scheme not in ("http", "https"):
        raise RackllamaError(f"{ENDPOINT_VARIABLES[hub]} is {named!r}, which is no address", "give an https address")
    return named or hub


def tokens_from(environment: Mapping[str, str]) -> dict[str, str]:
    """The tokens that the environment holds: `SCHEME://HOST` -> token. A hub's goes to its endpoint, too."""
    sites = dict(TOKEN_VARIABLES)
    for hub in ENDPOINT_VARIABLES:
        parts = urlsplit(endpoint(hub, environment))
        sites[f"{parts.scheme}://{parts.netloc}"] = TOKEN_VARIABLES[hub]
    return {site: environment[variable] for site, variable in sites.items() if environment.get(variable, "").strip()}


@dataclass(frozen=True)
class Fetcher:
    """Callable: an address -> the bytes served there, through `mirror` where that is not empty.

    `tokens` maps `SCHEME://HOST` to the bearer token of that site; `accept` is the media type to ask for. Transient
    refusals (429, 5xx) and network faults are tried again, after as long as upstream's Retry-After says. Raises
    RackllamaError with what to do.
    """

    mirror: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    accept: str = "*/*"
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, url: str) -> bytes:
        address = f"{self.mirror.rstrip('/')}/{url.split('://', 1)[1]}" if self.mirror else url
        if "@" in urlsplit(address).netloc:
            raise RackllamaError(
                f"the address at which {urlsplit(address).hostname} is to be asked has a password in it",
                "leave it out: addresses are told and written; a hub has tokens, and a mirror may know its clients",
            )
        opener = urllib.request.build_opener(_Redirects(self.tokens))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _read(opener, address, self.tokens, self.accept)
            except urllib.error.HTTPError as error:
                with error:
                    wait = _wait_seconds(error, attempt)
                    if wait is None or attempt == ATTEMPTS:
                        raise _refusal(address, error) from None
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS:
                    raise RackllamaError(
                        f"cannot fetch {address}: {getattr(error, 'reason', error)}",
                        "check the network, HTTPS_PROXY and SSL_CERT_FILE, or fetch through a mirror with --mirror URL",
                    ) from error
                wait = _backoff_seconds(attempt)
            self.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, with the token of the site it is sent to (if any) and never the one it came with."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.tokens = tokens

    def redirect_request(  # noqa: PLR0913, PLR0917 - the signature is urllib's
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise RackllamaError(
                f"{req.full_url} redirects to {newurl}, which is not encrypted", "do not use this address"
            )
        # urllib carries ordinary headers over to the new request, but not unredirected ones.
        redirected = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        return redirected and _authorized(redirected, self.tokens)


def _authorized(request: urllib.request.Request, tokens: Mapping[str, str]) -> urllib.request.Request:
    parts = urlsplit(request.full_url)
    token = tokens.get(f"{parts.scheme}://{parts.netloc}")
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request


def _read(opener: urllib.request.OpenerDirector, address: str, tokens: Mapping[str, str], accept: str) -> bytes:
    headers = {"User-Agent": "rackllama", "Accept": accept}
    request = _authorized(urllib.request.Request(address, headers=headers), tokens)
    with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
        content: bytes = answer.read(LARGEST_ANSWER_BYTES + 1)
    if len(content) > LARGEST_ANSWER_BYTES:
        raise RackllamaError(f"{address} is larger than any index or checksum file", "check the origin in the lock")
    if answer.length:  # a read with a limit does not tell that the connection was cut
        raise http.client.IncompleteRead(content, answer.length)
    return content


def _backoff_seconds(attempt: int) -> float:
    return float(2 ** (attempt - 1))


def _wait_seconds(error: urllib.error.HTTPError, attempt: int) -> float | None:
    """How long to wait before the next attempt, or None where another attempt is no use."""
    retry_after = error.headers.get("Retry-After", "")
    # GitHub's secondary rate limit is a 403 that says when to come back.
    if error.code not in TRANSIENT and not (error.code == http.client.FORBIDDEN and retry_after):
        return None
    if not retry_after:
        return _backoff_seconds(attempt)
    wait = retry_after_seconds(retry_after, datetime.now(UTC))
    return wait if wait <= LONGEST_WAIT_SECONDS else None


def retry_after_seconds(value: str, now: datetime) -> float:
    """Seconds to wait by a Retry-After header, which is a number of seconds or an HTTP date; 0 if it is neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _refusal(address: str, error: urllib.error.HTTPError) -> RackllamaError:
    site = urlsplit(address)
    variable = TOKEN_VARIABLES.get(f"{site.scheme}://{site.netloc}")
    if error.code == http.client.NOT_FOUND:
        return RackllamaError(f"upstream has no {address}", "check its name and version")
    limited = error.code in TRANSIENT or error.headers.get("X-RateLimit-Remaining") == "0"
    after = error.headers.get("Retry-After")
    what = f"upstream refuses {address} (HTTP {error.code}{f', come back in: {after}' if after else ''})"
    if limited:
        return RackllamaError(what, f"try again later{f', or set {variable} for a higher limit' if variable else ''}")
    return RackllamaError(
        what, f"set {variable} to a token that may read it" if variable else "check your access to it"
    )
