"""Who listens where, read from /proc, so that no tool has to be installed for it."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, List

LISTEN = "0A"


@dataclass(frozen=True)
class Listener:
    """One listening TCP socket."""

    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this host itself can reach it."""
        return ipaddress.ip_address(self.address).is_loopback


def parse_listeners(table: str) -> List[Listener]:
    """The listeners in the text of /proc/net/tcp or tcp6; addresses there are 32-bit words in the host's byte order."""
    found = []
    for line in table.splitlines()[1:]:
        _, local, _, state = line.split()[:4]
        if state == LISTEN:
            words, port = local.split(":")
            raw = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
            found.append(Listener(str(ipaddress.ip_address(raw)), int(port, 16)))
    return found


def listeners(port: int, tables: Iterable[Path] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))) -> List[Listener]:
    """Everything that listens on a port of this host."""
    return [
        listener
        for table in tables
        if table.exists()
        for listener in parse_listeners(table.read_text())
        if listener.port == port
    ]
