"""The keys of the gateway: who may call it. Of a key only its SHA-256 is kept, on a line of its own with its user:

    /var/lib/rackllama/keys.map

A change is written to that file first, where each later start and reload of HAProxy reads it, and then told to every
worker that runs, those of earlier configurations as well: they still answer on the connections that they have.
"""

import grp
import hashlib
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Sequence

from ..errors import RackllamaError
from ..files import read_text, write_atomically
from ..module import alone

KEYS = Path("/var/lib/rackllama/keys.map")
SOCKET = Path("/run/gateway/master.sock")
GROUP = "gateway"
MODE = 0o640
KEY_PREFIX = "rl-"
KEY_BYTES = 32
SHORTEST_ID = 8
USER = re.compile(r"[a-z0-9]([a-z0-9._@-]{0,61}[a-z0-9])?")
SHA256 = re.compile(r"[0-9a-f]{64}")
SOCKET_SECONDS = 10

Tell = Callable[[str], str]


@dataclass(frozen=True)
class Key:
    """A key as it is kept: the sha256 of its text in hexadecimal, and whose it is."""

    sha256: str
    user: str

    @property
    def id(self) -> str:
        """What people call it by: the first digits of its sha256."""
        return self.sha256[:SHORTEST_ID]


def new_key() -> str:
    """A key that nobody can guess: 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def key_of(text: str, user: str) -> Key:
    """A key as it is kept. Raises RackllamaError where `user` cannot name a user."""
    require_user(user)
    return Key(hashlib.sha256(text.encode()).hexdigest(), user)


def require_user(user: str) -> None:
    """Raise RackllamaError where `user` cannot name a user."""
    if not USER.fullmatch(user):
        raise RackllamaError(
            f"{user!r} cannot name a user of the gateway",
            "give 1 to 63 lower-case letters, digits and . _ @ -, from a letter or digit to a letter or digit",
        )


def parse_keys(text: str) -> List[Key]:
    """The keys in the text of keys.map; what is no key, such as a comment, is passed over, as HAProxy does."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return [Key(sha256, user.strip()) for sha256, _, user in pairs if SHA256.fullmatch(sha256) and user.strip()]


def named(keys: Sequence[Key], name: str) -> List[Key]:
    """The keys of the user of that name or, where there is none, the one key whose id begins so.

    Raises RackllamaError where several keys do.
    """
    of_user = [key for key in keys if key.user == name]
    of_id = [key for key in keys if len(name) >= SHORTEST_ID and key.sha256.startswith(name)]
    if not of_user and len(of_id) > 1:
        raise RackllamaError(f"{len(of_id)} keys begin with {name}", "give more of its digits: see keys.map")
    return of_user or of_id


def keys() -> List[Key]:
    """The keys on this host. Raises RackllamaError where it is no gateway."""
    return parse_keys(_text())


def add(key: Key) -> bool:
    """Let a key in, within a second. Whether it was not in before."""
    require_user(key.user)
    if not SHA256.fullmatch(key.sha256):
        raise RackllamaError(f"{key.sha256!r} is no sha256", "give 64 hexadecimal digits in lower case")
    with alone("keys"):
        text = _text()
        if key in parse_keys(text):
            return False
        if text and not text.endswith("\n"):
            text += "\n"
        _write(f"{text}{key.sha256} {key.user}\n")
        _tell_all(f"add map {KEYS} {key.sha256} {key.user}", accepted="")
        return True


def revoke(name: str) -> List[Key]:
    """Refuse, within a second, all keys of a user, or the one of that id; gives them. None where there is none."""
    with alone("keys"):
        text = _text()
        revoked = named(parse_keys(text), name)
        gone = {key.sha256 for key in revoked}
        if gone:
            left = [line for line in text.splitlines(keepends=True) if line.split()[:1] not in [[one] for one in gone]]
            _write("".join(left))
        for sha256 in sorted(gone):
            _tell_all(f"del map {KEYS} {sha256}", accepted="Key not found.")
        return revoked


def _text() -> str:
    text = read_text(KEYS)
    if text is None:
        raise RackllamaError(f"there is no {KEYS}: this host is no gateway", "converge it: playbooks/site.yml")
    return text


def _write(text: str) -> None:
    write_atomically(KEYS, text, MODE, grp.getgrnam(GROUP).gr_gid)


def workers(processes: str) -> List[str]:
    """The process ids of HAProxy's workers, old ones too, in what its master answers to `show proc`."""
    lines = (line.split() for line in processes.splitlines())
    return [words[0] for words in lines if words[1:2] == ["worker"]]


def tell_workers(tell: Tell, command: str, accepted: str) -> None:
    """Give every worker a command, by the master's `tell`. Raises RackllamaError where one refuses it.

    `accepted` is an answer that is fine as well as none.
    """
    for worker in workers(tell("show proc")):
        answer = tell(f"@!{worker} {command}").strip()
        if answer not in ("", accepted):
            raise RackllamaError(
                f"{KEYS} is as it ought to be, but HAProxy's worker {worker} was not told: {answer}",
                "let it read the file: systemctl reload gateway",
            )


def _tell_all(command: str, accepted: str) -> None:
    """`tell_workers` on this host; a gateway that does not run reads the file when it starts."""
    try:
        tell_workers(_ask_master, command, accepted)
    except (FileNotFoundError, ConnectionRefusedError):
        return
    except OSError as error:
        raise RackllamaError(
            f"{KEYS} is as it ought to be, but HAProxy was not told: {error}", "run: systemctl restart gateway"
        ) from error


def _ask_master(command: str) -> str:
    """One answer of the socket of HAProxy's master process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SOCKET_SECONDS)
        connection.connect(str(SOCKET))
        connection.sendall(f"{command}\n".encode())
        connection.shutdown(socket.SHUT_WR)  # or it would wait for another command
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode(errors="replace")
