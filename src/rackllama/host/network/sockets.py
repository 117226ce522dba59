"""Who listens where, read from /proc, so that no tool has to be installed for it."""

import contextlib
import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, List

LISTEN = "0A"
UNCONNECTED = "07"  # what a UDP socket is that takes datagrams from anybody
TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
UDP_TABLES = (Path("/proc/net/udp"), Path("/proc/net/udp6"))


@dataclass(frozen=True)
class Listener:
    """One listening socket; `inode` is the kernel's number for it."""

    address: str
    port: int
    inode: int = field(default=0, compare=False)

    @property
    def is_loopback(self) -> bool:
        """Whether only this host itself can reach it."""
        address = ipaddress.ip_address(self.address)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def parse_listeners(table: str, state: str = LISTEN) -> List[Listener]:
    """The listeners in the text of /proc/net/tcp, tcp6, udp or udp6.

    Addresses there are 32-bit words in the host's byte order.
    """
    found = []
    for line in table.splitlines()[1:]:
        columns = line.split()
        if columns[3] == state:
            words, port = columns[1].split(":")
            raw = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
            found.append(Listener(str(ipaddress.ip_address(raw)), int(port, 16), int(columns[9])))
    return found


def all_listeners(tables: Iterable[Path] = TCP_TABLES, state: str = LISTEN) -> List[Listener]:
    """Everything that listens on this host."""
    return [listener for table in tables if table.exists() for listener in parse_listeners(table.read_text(), state)]


def listeners(port: int, tables: Iterable[Path] = TCP_TABLES) -> List[Listener]:
    """Everything that listens on a port of this host."""
    return [listener for listener in all_listeners(tables) if listener.port == port]


def programs() -> Dict[int, str]:
    """The names of the programs that hold sockets, by the sockets' inodes; root sees all of them."""
    found: Dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is not ours to see
            name = (folder / "comm").read_text().strip()
            for link in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    socket = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
                    if socket:
                        found.setdefault(int(socket[1]), name)
    return found
