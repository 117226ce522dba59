"""What must be true of a host before anything on it is changed."""

import shutil
import sys
from pathlib import Path
from typing import List, Sequence

from . import systemd
from .report import Check
from .sockets import listeners
from .unit import SERVICES

OLDEST_PYTHON = (3, 9)


def host_checks(needed_bytes: int, root: Path = Path("/opt")) -> List[Check]:
    """Checks of the host itself: systemd in charge, a Python that is new enough, room for what is installed."""
    booted = Path("/run/systemd/system").is_dir()
    version = ".".join(map(str, sys.version_info[:3]))
    free = shutil.disk_usage(_existing(root)).free
    return [
        Check(
            "systemd", booted, "in charge of the host", "in charge" if booted else "not running", "boot it with systemd"
        ),
        Check(
            "python",
            sys.version_info >= OLDEST_PYTHON,
            "3.9 or newer",
            version,
            "install a newer python3 and name it in ansible_python_interpreter",
        ),
        Check(
            "disk",
            free >= needed_bytes,
            f"{needed_bytes / 2**30:.1f} GiB free at {root}",
            f"{free / 2**30:.1f} GiB free",
            f"free space on the file system of {root}",
        ),
    ]


def port_check(service: str, port: int) -> Check:
    """Whether a service can have its port: nobody listens there, or the service itself does."""
    taken = bool(listeners(port)) and not _is_ours(service)
    return Check(
        f"port {port}",
        not taken,
        f"free for {service}",
        "taken by another program" if taken else "free, or its own",
        f"see who listens (ss -tlnp 'sport = :{port}') and stop it, or choose another port",
    )


def failures(checks: Sequence[Check]) -> List[Check]:
    """Those that are not ok."""
    return [check for check in checks if not check.ok]


def _is_ours(service: str) -> bool:
    """Whether a service of ours by this name runs here, and so may hold the port itself."""
    return (SERVICES / f"{service}.json").exists() and systemd.unit_state(f"{service}.service").active


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
