"""Byte ranges over HTTP(S): kept-alive connections, redirects to signed addresses, tokens that stay with their host."""

import email.utils
import http.client
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Callable, Dict, Mapping, Optional, Tuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from .sources import POINTER_BYTES, Floor, RangesRefusedError, SourceError, wrong_size

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
# What a signed address answers once it has expired; asked of the original again, these are final.
EXPIRED = (401, 403, 404, 410)
PASSING = (408, 421, 425, 429, 500, 502, 503, 504)
NOT_SATISFIABLE = 416
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
DRAIN_BYTES = 1 << 16
CONNECT_SECONDS = 15.0
S3_CODE = re.compile(rb"<Code>(\w{1,64})</Code>")
S3_REGION = "X-Amz-Bucket-Region"
LINKED_DIGEST = "X-Linked-ETag"  # the sha256 of the file that a hub's redirect leads to

# The address and headers of a request -> the headers to send.
Sign = Callable[[str, Mapping[str, str]], Dict[str, str]]


@dataclass(frozen=True)
class HttpSettings:
    """`tokens` are bearer tokens by `host` or `host:port`: each is sent to that host and no other.

    Below the `floor`, another source is asked, where there is one.
    """

    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 60.0
    floor: Floor = field(default_factory=Floor)


def label(address: str) -> str:
    """An address without its query, which may be a signature."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Connections:
    """The kept-alive connections of one worker, one for each host."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._open: Dict[Tuple[str, str], http.client.HTTPConnection] = {}
        self._answers: Dict[Tuple[str, str], http.client.HTTPResponse] = {}
        self._socket: Optional[socket.socket] = None
        self._aborted = False
        self._lock = threading.Lock()

    def get(self, address: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Ask once; again only where a kept-alive connection turns out to be closed. Raises SourceError."""
        parts = urlsplit(address)
        key = (parts.scheme, parts.netloc)
        if key in self._open and (self._open[key].sock is None or not self._answers[key].isclosed()):
            self._drop(key)  # the other side closed it, or the rest of the last answer is not wanted
        kept = key in self._open
        try:
            return self._ask(key, parts, headers)
        except (ConnectionError, http.client.BadStatusLine, http.client.CannotSendRequest) as error:
            self._drop(key)
            if not kept:
                raise _unreachable(address, error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop(key)
            raise _unreachable(address, error) from error
        return self.get(address, headers)

    def abort(self) -> None:
        """End what is being read, from another thread."""
        with self._lock:
            self._aborted = True
            self._shut()

    def interrupt(self) -> None:
        """End the read that is under way, from another thread; the next one goes on with another connection."""
        with self._lock:
            self._shut()

    def close(self) -> None:
        """Close all."""
        for key in list(self._open):
            self._drop(key)

    def _ask(self, key: Tuple[str, str], parts: SplitResult, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        proxy = _proxy(parts)
        if key not in self._open:
            self._open[key] = _connection(parts, proxy, self._settings)
        connection = self._open[key]
        with self._lock:
            self._socket = connection.sock  # an answer that closes the connection takes it away from there
            if self._aborted:
                self._shut()
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        sent = dict(headers)
        if proxy and parts.scheme == "http":
            target = f"http://{parts.netloc}{target}"
            sent.update(_proxy_authorization(proxy))
        connection.request("GET", target, headers=sent)
        answer = connection.getresponse()
        self._answers[key] = answer
        return answer

    def _shut(self) -> None:
        if self._socket is not None:
            try:
                # Of the plain socket: that of a TLS socket changes what its reader is using.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                self._socket = None  # closed already

    def _drop(self, key: Tuple[str, str]) -> None:
        answer, connection = self._answers.pop(key, None), self._open.pop(key, None)
        if answer:
            answer.close()
        if connection:
            connection.close()


class HttpSource:
    """A shard at an address; shared by all workers. `sign` adds to the headers of what is asked of that address."""

    def __init__(
        self, address: str, size: int, sha256: Optional[str], settings: HttpSettings, sign: Optional[Sign] = None
    ) -> None:
        self.label = label(address)
        self._address = address
        self._sign = sign
        self._size = size
        self._sha256 = sha256
        self._tokens = {host.lower(): token for host, token in settings.tokens.items()}
        self._target: Optional[str] = None  # where the address redirected to, while that holds

    def open(self, start: int, end: int, connections: Connections) -> "HttpStream":
        """Begin to read bytes `start` to `end`; raises SourceError or RangesRefusedError."""
        try:
            return self._begin(start, end, connections)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # It broke off while a redirect or a refusal was read, or what it sent there makes no sense.
            raise SourceError(f"{self.label} answers oddly ({_reason(error)})") from error

    def find_size(self, connections: Connections) -> int:
        """The size in bytes of what is served there, whatever size was given. Raises SourceError."""
        try:
            return self._told_size(self._answer(connections, {"Range": "bytes=0-0"}))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(f"{self.label} answers oddly ({_reason(error)})") from error

    def _told_size(self, answer: http.client.HTTPResponse) -> int:
        if answer.status == http.client.PARTIAL_CONTENT:
            found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            told = found[3] if found else ""
            answer.read(DRAIN_BYTES)
        elif answer.status == http.client.OK:
            told = answer.headers.get("Content-Length", "")
        else:
            raise self._refused(answer)
        if not told.isdecimal():
            raise SourceError(f"{self.label} does not tell its size", final=True)
        return int(told)

    def _begin(self, start: int, end: int, connections: Connections) -> "HttpStream":
        answer = self._answer(connections, {"Range": f"bytes={start}-{end - 1}"})
        if answer.status == http.client.PARTIAL_CONTENT:
            self._check_range(answer, start, end)
        elif answer.status == http.client.OK:
            self._check_whole(answer, start, end)
        elif answer.status == NOT_SATISFIABLE:
            raise self._not_satisfiable(answer, connections)
        else:
            raise self._refused(answer)
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise SourceError(f"{self.label} is sent compressed", final=True)
        return HttpStream(answer, self.label)

    def _answer(self, connections: Connections, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """The answer behind all redirects."""
        target = self._target
        if target is not None:
            answer = connections.get(target, self._headers(target, headers))
            if answer.status not in (*EXPIRED, *REDIRECTS):
                return answer
            answer.read(DRAIN_BYTES)
            self._target = None
        address = self._address
        for _ in range(MOST_REDIRECTS + 1):
            answer = connections.get(address, self._headers(address, headers))
            if answer.status not in REDIRECTS:
                if address != self._address and answer.status in (http.client.OK, http.client.PARTIAL_CONTENT):
                    self._target = address
                return answer
            self._check_linked_digest(answer)
            address = self._redirected(address, answer)
        raise SourceError(f"{self.label} redirects without end", final=True)

    def _headers(self, address: str, headers: Mapping[str, str]) -> Dict[str, str]:
        parts, own = urlsplit(address), urlsplit(self._address)
        # Whoever redirects must not be able to have a token sent in the clear.
        safe = parts.scheme == "https" or (parts.scheme, parts.netloc) == (own.scheme, own.netloc)
        token = self._tokens.get(parts.netloc.lower()) if safe else None
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        plain = {"User-Agent": "rackllama", "Accept-Encoding": "identity", **headers, **authorization}
        return self._sign(address, plain) if self._sign and address == self._address else plain

    def _redirected(self, address: str, answer: http.client.HTTPResponse) -> str:
        if "Location" not in answer.headers:
            raise self._refused(answer)
        target = urljoin(address, str(answer.headers["Location"]))
        answer.read(DRAIN_BYTES)
        before, after = urlsplit(address).scheme, urlsplit(target).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise SourceError(f"{self.label} redirects from {before} to {after or 'nowhere'}", final=True)
        return target

    def _check_linked_digest(self, answer: http.client.HTTPResponse) -> None:
        linked = answer.headers.get(LINKED_DIGEST, "").strip('"')
        if self._sha256 and re.fullmatch("[0-9a-f]{64}", linked) and linked != self._sha256:
            raise SourceError(f"{self.label} is another file now: its sha256 is {linked}", final=True)

    def _check_range(self, answer: http.client.HTTPResponse, start: int, end: int) -> None:
        told = answer.headers.get("Content-Range", "")
        found = CONTENT_RANGE.fullmatch(told)
        if not found or found[1] is None:
            raise SourceError(f"{self.label} sent a part without saying which ({told!r})")
        if found[3] not in ("*", str(self._size)):
            raise wrong_size(self.label, int(found[3]), self._size, answer.read(POINTER_BYTES) if start == 0 else b"")
        if (int(found[1]), int(found[2])) != (start, end - 1):
            raise SourceError(f"{self.label} sent {told!r} where bytes {start}-{end - 1} were asked for")

    def _check_whole(self, answer: http.client.HTTPResponse, start: int, end: int) -> None:
        length = answer.headers.get("Content-Length")
        if length is not None and int(length) != self._size:
            raise wrong_size(self.label, int(length), self._size, answer.read(POINTER_BYTES))
        if (start, end) != (0, self._size):
            raise RangesRefusedError

    def _not_satisfiable(self, answer: http.client.HTTPResponse, connections: Connections) -> SourceError:
        """The file ends before the range: see what it is."""
        answer.read(DRAIN_BYTES)
        found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not found or not found[3].isdigit() or int(found[3]) == self._size:
            return SourceError(f"{self.label} answered 416 to a range within it")
        beginning = self._answer(connections, {}).read(POINTER_BYTES)
        return wrong_size(self.label, int(found[3]), self._size, beginning)

    def _refused(self, answer: http.client.HTTPResponse) -> SourceError:
        code, region = S3_CODE.search(answer.read(DRAIN_BYTES)), answer.headers.get(S3_REGION, "")
        hint = ""
        if re.fullmatch("[a-z0-9-]+", region) and answer.status in (*REDIRECTS, 400):
            hint = f": its region is {region}"
        elif answer.status in (401, 403):
            hint = f": it wants {'other credentials' if self._sign else 'another token'}, or one with access"
        named = f" ({code[1].decode()})" if code else ""
        return SourceError(
            f"{self.label} answered {answer.status} {answer.reason}{named}{hint}",
            final=answer.status not in PASSING,
            retry_after=_retry_after(answer.headers.get("Retry-After")),
        )


class HttpStream:
    """The body of an answer."""

    def __init__(self, answer: http.client.HTTPResponse, name: str) -> None:
        self.validator: Optional[str] = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        self._answer = answer
        self._name = name

    def readinto(self, view: memoryview) -> int:
        """As Stream.readinto."""
        try:
            return self._answer.readinto(view)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(f"{self._name} broke off ({_reason(error)})") from error

    def close(self) -> None:
        """Nothing: a body that was not read to its end makes its worker drop the connection."""


def _connection(parts: SplitResult, proxy: Optional[SplitResult], settings: HttpSettings) -> http.client.HTTPConnection:
    to = proxy or parts
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(to.hostname or "", to.port, timeout=CONNECT_SECONDS, context=context)
        if proxy:
            connection.set_tunnel(parts.hostname or "", parts.port, _proxy_authorization(proxy))
    else:
        connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=CONNECT_SECONDS)
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    connection.sock.settimeout(settings.timeout_seconds)
    return connection


def _proxy(parts: SplitResult) -> Optional[SplitResult]:
    """The proxy that the environment names for an address."""
    host = parts.hostname or ""
    found = getproxies().get(parts.scheme)
    if not found or proxy_bypass(host):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


def _proxy_authorization(proxy: SplitResult) -> Dict[str, str]:
    if proxy.username is None:
        return {}
    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


def _unreachable(address: str, error: Exception) -> SourceError:
    final = isinstance(error, (ssl.SSLCertVerificationError, http.client.InvalidURL, UnicodeError))
    return SourceError(f"{label(address)} cannot be reached ({_reason(error)})", final=final)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _retry_after(value: Optional[str]) -> Optional[float]:
    """Seconds, from a number of them or a date."""
    if not value:
        return None
    try:
        if value.strip().isdecimal():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
