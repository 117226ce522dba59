"""Whether this host has ended its boot: cloud-init, a reboot that is coming, and others who install packages.

It only looks, and at once; who waits asks again. cloud-init is judged by the files that it keeps for this, which are
the same in all of its releases: `result.json` is there when it has ended.
"""

import fcntl
import json
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

CLOUD_INIT = Path("run/cloud-init")
SCHEDULED = Path("run/systemd/shutdown/scheduled")
LOCKS = tuple(
    Path(path)
    for path in (
        "var/lib/dpkg/lock-frontend",
        "var/lib/dpkg/lock",
        "var/lib/apt/lists/lock",
        "var/cache/apt/archives/lock",
    )
)
ENDED = ("running", "degraded")
# cloud-init reboots, where it is told to, in the second or two after it has written its result.
SETTLE_SECONDS = 10
FLOCK = "hhqqi0q"  # struct flock of 64-bit Linux, padded as C does


class Boot(NamedTuple):
    """How far a host is. `pending` is what it is still at, `failure` what went wrong for good; either may be empty.

    `subject` is what is pending or has failed: cloud-init, reboot or packages.
    """

    subject: str = ""
    pending: str = ""
    failure: str = ""
    notes: Tuple[str, ...] = ()


def look(within_seconds: float, root: Path = Path("/"), now: Optional[float] = None) -> Boot:
    """How far this host is. A reboot that is scheduled for later than `within_seconds` is only noted."""
    now = time.time() if now is None else now
    state = system_state()
    if state == "stopping":
        return Boot("reboot", pending="it is shutting down")
    scheduled = _scheduled(root)
    if scheduled is not None and scheduled - now <= within_seconds:
        return Boot("reboot", pending=f"it reboots in {max(0, round(scheduled - now))} s")
    later = () if scheduled is None else (f"it reboots in {round((scheduled - now) / 60)} min",)
    boot = cloud_init(root / CLOUD_INIT, state in ENDED, now)
    if boot.pending or boot.failure:
        return boot
    holders = [f"{_name(pid, root)} (process {pid}) holds {path}" for path, pid in held_locks(root)]
    return Boot("packages" if holders else "", pending="; ".join(holders), notes=later + boot.notes)


def cloud_init(run: Path, boot_has_ended: bool, now: float) -> Boot:
    """How far cloud-init is, by its folder in `/run`: it is pending, has failed, or is of no concern any more."""
    if not run.exists() or (run / "disabled").exists():
        return Boot()
    result, status = _read(run / "result.json"), _read(run / "status.json")
    if result is not None:
        ended_for = now - (run / "result.json").stat().st_mtime
        return _ended(result, status or {}, ended_for)
    if not boot_has_ended:
        stage = (status or {}).get("stage")
        return Boot("cloud-init", pending=f"in the stage {stage}" if stage else "between two stages")
    if status is None:
        return Boot("cloud-init", notes=("cloud-init is installed, and has not run in this boot",))
    return Boot("cloud-init", failure="it was ended before it had a result")


def _ended(result: Dict[str, Any], status: Dict[str, Any], ended_for: float) -> Boot:
    if result.get("errors"):
        return Boot("cloud-init", failure="; ".join(map(str, result["errors"])))
    if 0 <= ended_for < SETTLE_SECONDS:
        return Boot("cloud-init", pending="it has just ended, and may reboot")
    return Boot("cloud-init", notes=tuple(f"cloud-init: {words}" for words in _recoverable(status)))


def system_state() -> str:
    """systemd's word for the system: starting, running, degraded, stopping and the like; empty without systemd."""
    if not shutil.which("systemctl"):
        return ""
    done = subprocess.run(
        ["systemctl", "is-system-running"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return done.stdout.decode().strip()


def held_locks(root: Path = Path("/")) -> List[Tuple[Path, int]]:
    """The locks of dpkg and apt that some process holds, and which. Asking takes none. Needs root."""
    found = []
    for name in LOCKS:
        path = root / name
        if path.exists():
            with path.open("rb") as file:
                wanted = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, wanted))
            if kind != fcntl.F_UNLCK:
                found.append((path, pid))
    return found


def _scheduled(root: Path) -> Optional[float]:
    """When the host is to reboot or halt, in seconds since the epoch; None where nothing is scheduled."""
    try:
        lines = (root / SCHEDULED).read_text("utf-8").splitlines()
        return int(dict(line.split("=", 1) for line in lines if "=" in line)["USEC"]) / 1e6
    except (OSError, KeyError, ValueError):
        return None


def _read(path: Path) -> Optional[Dict[str, Any]]:
    """What cloud-init's file tells, in the one version there is; None where it is not there, or being written."""
    try:
        return dict(json.loads(path.read_text("utf-8"))["v1"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _recoverable(status: Dict[str, Any]) -> List[str]:
    """What cloud-init has warned of in its stages, and went on after."""
    stages = [told for told in status.values() if isinstance(told, dict)]
    levels = [level for told in stages for level in (told.get("recoverable_errors") or {}).values()]
    return [str(words) for level in levels for words in level]


def _name(pid: int, root: Path) -> str:
    try:
        return (root / "proc" / str(pid) / "comm").read_text("utf-8").strip()
    except OSError:
        return "somebody"
