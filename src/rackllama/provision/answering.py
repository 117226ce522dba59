"""Whether SSH answers at an address: a host that has come up, or a machine that holds a system already."""

import socket
import time

from rackllama.host.errors import RackllamaError

ATTEMPT_SECONDS = 5.0
PAUSE_SECONDS = 2.0


def ssh_banner(address: str, port: int = 22, seconds: float = ATTEMPT_SECONDS) -> str | None:
    """What an SSH server at that address calls itself, as `SSH-2.0-OpenSSH_9.6`; None where none answers in time."""
    try:
        with socket.create_connection((address, port), timeout=seconds) as connection:
            line = connection.makefile("rb").readline(255).decode("ascii", "replace").strip()
    except OSError:
        return None
    return line if line.startswith("SSH-") else None


def wait_for_ssh(name: str, address: str, port: int, seconds: float) -> str:
    """Wait until SSH answers there, and return what it calls itself. Raises RackllamaError after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if banner := ssh_banner(address, port):
            return banner
        if time.monotonic() > deadline:
            raise RackllamaError(
                f"{name} does not answer SSH at {address}:{port} after {seconds:.0f} s",
                "see its console: it may still be starting, or have got another address",
            )
        time.sleep(min(PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
