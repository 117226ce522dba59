"""Which ports of a host answer, asked from another one: many connections at a time, never more than allowed."""

import errno
import itertools
import resource
import selectors
import socket
import time
from enum import Enum
from typing import Dict, Iterable, List, Tuple, cast

Target = Tuple[str, int]
SPARE_FILES = 64
UDP_ATTEMPTS = 3


class Answer(Enum):
    """What became of one attempt: `SILENT` is that nothing came back in time, `UNREACHABLE` that no way leads there."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "silent"
    UNREACHABLE = "unreachable"


def probe_tcp(targets: Iterable[Target], connections: int, timeout_seconds: float) -> Dict[Target, Answer]:
    """Try to connect to each address and port, so many at a time."""
    at_a_time = max(1, min(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))
    answers: Dict[Target, Answer] = {}
    waiting: Dict[socket.socket, Tuple[Target, float]] = {}  # with its deadline, the oldest first
    rest = iter(targets)
    with selectors.DefaultSelector() as selector:
        while True:
            batch = list(itertools.islice(rest, at_a_time - len(waiting)))
            if not batch and not waiting:
                return answers
            for target in batch:
                probe, error = _connecting(target)
                waiting[probe] = target, time.monotonic() + timeout_seconds
                selector.register(probe, selectors.EVENT_WRITE)
                if error != errno.EINPROGRESS:
                    answers[target] = _answer(error)
            oldest = next(iter(waiting.values()))[1]
            for key, _ in selector.select(max(0.0, oldest - time.monotonic())):
                ready = cast(socket.socket, key.fileobj)
                answers.setdefault(waiting[ready][0], _answer(ready.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
            now = time.monotonic()
            for probe, (target, deadline) in list(waiting.items()):
                if target in answers or deadline <= now:
                    answers.setdefault(target, Answer.SILENT)
                    selector.unregister(probe)
                    probe.close()
                    del waiting[probe]


def _connecting(target: Target) -> Tuple[socket.socket, int]:
    """A socket that has begun to connect, and the error that it met at once, EINPROGRESS as a rule."""
    info = _resolve(target, socket.SOCK_STREAM)
    probe = socket.socket(info[0], socket.SOCK_STREAM)
    probe.setblocking(False)
    return probe, probe.connect_ex(info[4])


def probe_udp(target: Target, timeout_seconds: float = 1.0) -> Answer:
    """Send a datagram a few times: a refusal or an answer tells, silence tells little."""
    info = _resolve(target, socket.SOCK_DGRAM)
    with socket.socket(info[0], socket.SOCK_DGRAM) as probe:
        probe.settimeout(timeout_seconds)
        for _ in range(UDP_ATTEMPTS):  # a host says that nobody listens once a second at most
            try:
                probe.connect(info[4])
                probe.send(b"\0")
                probe.recv(1)
            except ConnectionRefusedError:
                return Answer.REFUSED
            except socket.timeout:
                continue
            except OSError:
                return Answer.UNREACHABLE
            return Answer.OPEN
    return Answer.SILENT


def resolved(name: str) -> List[str]:
    """The addresses of a name or an address; none where it is not known here."""
    try:
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def is_own(address: str) -> bool:
    """Whether this host itself has that address."""
    try:
        info = _resolve((address, 0), socket.SOCK_DGRAM)
        with socket.socket(info[0], socket.SOCK_DGRAM) as own:
            own.bind(info[4])
    except OSError:
        return False
    return True


def _answer(error: int) -> Answer:
    if error == 0:
        return Answer.OPEN
    if error == errno.ECONNREFUSED:
        return Answer.REFUSED
    return Answer.SILENT if error in (errno.ETIMEDOUT, errno.ECONNRESET) else Answer.UNREACHABLE


def _resolve(target: Target, kind: socket.SocketKind) -> "Tuple[int, int, int, str, Tuple[str, int]]":
    found = socket.getaddrinfo(*target, type=kind, flags=socket.AI_NUMERICHOST)
    return found[0]  # type: ignore[return-value]
