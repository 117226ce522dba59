"""The SSH session that this process belongs to, and the ports at which this host takes SSH."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from .. import systemd
from .sockets import all_listeners, programs

DEFAULT_PORT = 22
SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Session:
    """One connection to sshd, as this host sees it."""

    client: str
    client_port: int
    port: int


def parse_session(environ: bytes) -> Optional[Session]:
    """The session in an environment as /proc has it, or None."""
    for entry in environ.split(b"\0"):
        if entry.startswith(b"SSH_CONNECTION="):
            words = entry.decode(errors="replace").partition("=")[2].split()
            if len(words) == 4:  # noqa: PLR2004 - client, its port, server, its port
                return Session(words[0], int(words[1]), int(words[3]))
    return None


def session() -> Optional[Session]:
    """The session that this process was started from, or None.

    sudo takes it out of the environment, so parents are asked as well.
    """
    pid = os.getpid()
    while pid > 1:
        folder = Path(f"/proc/{pid}")
        try:
            found = parse_session((folder / "environ").read_bytes())
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return None
        if found:
            return found
        pid = parent
    return None


def parse_ports(said: str) -> List[int]:
    """The ports in what `sshd -T` says, or `systemctl show --property Listen`."""
    found = re.findall(r"^(?:port |(?:listenaddress |Listen=)\S*:)(\d+)(?: \(Stream\))?$", said, re.MULTILINE)
    return sorted(set(map(int, found)))


def ports() -> List[int]:
    """Every port that SSH is or will be taken at: of this session, of sshd as it listens, and as it is configured."""
    held_by = programs()
    found = {listener.port for listener in all_listeners() if held_by.get(listener.inode) == "sshd"}
    current = session()
    if current:
        found.add(current.port)
    sshd = shutil.which("sshd", path=SBIN)
    if sshd:
        found.update(parse_ports(systemd.run(sshd, "-T", check=False).stdout))
    for unit in ("ssh.socket", "sshd.socket"):
        if systemd.unit_state(unit).active:
            found.update(parse_ports(systemd.run("systemctl", "show", unit, "--property", "Listen").stdout))
    return sorted(found) or [DEFAULT_PORT]
