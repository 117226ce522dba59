"""Memory, disks and network of this host, from what the kernel shows; and how fast a disk is read."""

import json
import mmap
import os
import re
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple

from ..errors import RackllamaError
from ..files import read_text

READ_BYTES = 4 << 20
READ_SECONDS = 2.0
LSBLK = ("lsblk", "--json", "--bytes", "--output", "NAME,PATH,TYPE,SIZE,ROTA,MODEL,SERIAL,TRAN,FSTYPE,LABEL,MOUNTPOINT")
NO_DISKS = '{"blockdevices": []}'  # where there is no lsblk
VIRTUAL_NETWORK = Path("devices/virtual/net")


@dataclass(frozen=True)
class Disk:
    """A whole disk; its size is in bytes.

    `used_by` says what is on it or its parts, and is empty where nothing is; `mounts` are its file systems in use.
    """

    path: str
    size: int
    rotates: bool
    model: str
    serial: str
    transport: str
    used_by: Tuple[str, ...] = ()
    mounts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class MemoryModules:
    """Memory modules in their slots, as the firmware tells: how many, and their rate in MT/s where all have one."""

    count: int
    rate_mts: Optional[int]
    kind: str


def ram_mib(meminfo: str) -> int:
    """Memory of the host in MiB, from /proc/meminfo."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    if not found:
        raise RackllamaError("/proc/meminfo does not tell the memory of the host", "look at it")
    return int(found[1]) // 1024


def numa_nodes(root: Path = Path("/sys/devices/system/node")) -> int:
    """How many NUMA nodes it has; one where the kernel does not tell."""
    return len(list(root.glob("node[0-9]*"))) or 1


def memory_modules(dmidecode: str) -> Optional[MemoryModules]:
    """What `dmidecode --type 17` tells of the memory's modules; None where it tells of none, as on virtual machines."""
    devices = [
        dict(re.findall(r"^\t([^:\n]+): (.*)$", part, re.MULTILINE)) for part in dmidecode.split("Memory Device")
    ]
    there = [device for device in devices if re.match(r"\d+ [MGT]B", device.get("Size", ""))]
    rates = [_leading_number(device.get("Configured Memory Speed", "")) for device in there]
    if not there:
        return None
    same = rates[0] if len(set(rates)) == 1 else None
    return MemoryModules(len(there), same, there[0].get("Type", "").strip())


def disks(lsblk: str) -> List[Disk]:
    """Whole disks, from what `lsblk --json --bytes` prints; not those that have no medium."""
    found = json.loads(lsblk)["blockdevices"]
    return [_disk(device) for device in found if device["type"] == "disk" and int(device["size"])]


def network_mbs(root: Path = Path("/sys/class/net")) -> Optional[int]:
    """Megabytes a second of the fastest link that is up; None where none tells its speed, as on virtual machines."""
    speeds = []
    for link in sorted(root.iterdir()) if root.is_dir() else []:
        with suppress(OSError, ValueError):  # a link that is down refuses to tell
            if str(VIRTUAL_NETWORK) not in str(link.resolve()):
                speeds.append(int((read_text(link / "speed") or "-1").strip()))
    fastest = max(speeds, default=-1)
    return fastest // 8 if fastest > 0 else None


def read_mbs(path: Path, seconds: float = READ_SECONDS) -> float:
    """Megabytes a second that a disk or a file is read with, past the page cache, for so long at the most.

    Raises RackllamaError where it cannot be read so.
    """
    buffer = mmap.mmap(-1, READ_BYTES)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        raise RackllamaError(f"{path} cannot be read ({error.strerror})", "measure as root, on a local disk") from error
    try:
        started, done = time.monotonic(), 0
        while time.monotonic() - started < seconds:
            count = os.preadv(descriptor, [buffer], done)
            if not count:
                break
            done += count
        passed = time.monotonic() - started
    finally:
        os.close(descriptor)
        buffer.close()
    if not done:
        raise RackllamaError(f"{path} is empty", "measure a disk or a large file")
    return done / passed / 1e6


def ask(*command: str) -> Optional[str]:
    """What a program prints; None where the host has it not, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _disk(found: Mapping[str, Any]) -> Disk:
    return Disk(
        path=found["path"],
        size=int(found["size"]),
        rotates=found["rota"] in (True, "1"),
        model=(found["model"] or "").strip(),
        serial=(found["serial"] or "").strip(),
        transport=found["tran"] or "",
        used_by=tuple(_uses(found)),
        mounts=tuple(_mounts(found)),
    )


def _uses(found: Mapping[str, Any]) -> List[str]:
    here = found["mountpoint"] or found["fstype"]
    uses = [f"{found['path']}: {here}"] if here else []
    children = found.get("children", [])
    if children and not uses:
        uses = [f"{child['path']}: {child['type']}" for child in children]
    return uses + [use for child in children for use in _uses(child) if use not in uses]


def _mounts(found: Mapping[str, Any]) -> List[str]:
    own = [found["mountpoint"]] if (found["mountpoint"] or "").startswith("/") else []  # swap has "[SWAP]"
    return own + [mount for child in found.get("children", []) for mount in _mounts(child)]


def _leading_number(told: str) -> Optional[int]:
    found = re.match(r"\d+", told)
    return int(found[0]) if found else None
