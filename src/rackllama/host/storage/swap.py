"""A swap file of a given size, used at each boot."""

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from .. import systemd
from ..errors import RackllamaError
from ..files import read_json, read_text, write_atomically, write_json
from ..hardware.machine import ask
from ..module import difference
from ..services.unit import UNITS
from .units import MARK, escaped

RECORD = Path("/etc/rackllama/swap.json")
SWAPS = Path("/proc/swaps")
FILESYSTEMS = ("ext4", "xfs")  # a file without holes, that is written in place
MODE = 0o600
MAKE, DROP, USE = "make", "drop", "use"


@dataclass(frozen=True)
class SwapFile:
    """A swap file as it is declared, or as we wrote down that we made it."""

    path: str
    size: int


@dataclass(frozen=True)
class FoundSwap:
    """What there is at a path: a file of so many bytes; whether it is marked as swap, closed to others, and used."""

    size: int = -1
    marked: bool = False
    closed: bool = False
    used: bool = False

    @property
    def is_there(self) -> bool:
        """Whether there is a file."""
        return self.size >= 0

    def is_ready(self, size: int) -> bool:
        """Whether it can be used as it is."""
        return self.size == size and self.marked and self.closed


def plan(wanted: Optional[SwapFile], ours: Optional[SwapFile], found: FoundSwap) -> List[str]:
    """The steps to the wanted swap file, or to none. Pure.

    `ours` is what we made before, `found` what is at the wanted path.
    """
    moved = ours is not None and (wanted is None or wanted.path != ours.path)
    steps = [DROP] if moved else []
    if wanted is None:
        return steps
    if found.is_there and (ours is None or ours.path != wanted.path):
        raise RackllamaError(
            f"{wanted.path} is there, and this role has not made it",
            "remove it (swapoff first), or choose another storage_swap_path",
        )
    if not found.is_ready(wanted.size):
        return [*steps, MAKE, USE] if not found.is_there or moved else [DROP, MAKE, USE]
    return steps if found.used else [*steps, USE]


@dataclass(frozen=True)
class SwapChange:
    """All that differs between the swap here and the wanted one."""

    wanted: Optional[SwapFile]
    ours: Optional[SwapFile]
    steps: List[str]
    unit_text: Optional[str] = None

    def __bool__(self) -> bool:
        return bool(self.steps or self.unit_text)

    @property
    def words(self) -> List[str]:
        """The change as lines for people."""
        told = {
            DROP: f"take away the swap file {self.ours.path if self.ours else ''}",
            MAKE: f"make a swap file of {_gib(self.wanted)} GiB at {self.wanted.path if self.wanted else ''}",
            USE: "use it, and at each boot",
        }
        return [told[step] for step in self.steps]

    def diff(self) -> Dict[str, str]:
        """For Ansible's `--diff`."""
        return difference([], self.words, header="swap")

    def carry_out(self) -> None:
        """Make it so; what is interrupted is known as ours by the next run."""
        if DROP in self.steps and self.ours:
            _drop(self.ours)
        if self.wanted is None:
            return
        write_json(RECORD, {"path": self.wanted.path, "size": self.wanted.size})
        if MAKE in self.steps:
            _make(self.wanted)
        if self.unit_text:
            write_atomically(UNITS / _unit(self.wanted), self.unit_text)
            systemd.run("systemctl", "daemon-reload")
        systemd.run("systemctl", "enable", _unit(self.wanted))
        if USE in self.steps:
            _use(self.wanted)


def change(size_gib: float, path: str) -> SwapChange:
    """What has to change on this host so that it has a swap file of that size; 0 for none of ours."""
    wanted = SwapFile(path, int(size_gib * 2**30) // 4096 * 4096) if size_gib > 0 else None
    ours = recorded()
    steps = plan(wanted, ours, look(path))
    text = _unit_text(wanted) if wanted else None
    # What is taken away takes its unit along.
    if wanted and DROP not in steps and text == read_text(UNITS / _unit(wanted)):
        text = None if systemd.unit_state(_unit(wanted)).enabled else text
    return SwapChange(wanted, ours, steps, text)


def recorded() -> Optional[SwapFile]:
    """The swap file that we made on this host."""
    found: Any = read_json(RECORD)
    return SwapFile(found["path"], found["size"]) if isinstance(found, dict) else None


def look(path: str) -> FoundSwap:
    """What there is at a path."""
    file = Path(path)
    try:
        status = file.lstat()
    except FileNotFoundError:
        return FoundSwap()
    if not stat.S_ISREG(status.st_mode):
        raise RackllamaError(f"{path} is no plain file", "choose another storage_swap_path")
    used = any(line.split()[0] == str(file.resolve()) for line in SWAPS.read_text(encoding="utf-8").splitlines()[1:])
    said = ask("wipefs", "--no-act", "--noheadings", "--output", "TYPE", path) or ""
    closed = stat.S_IMODE(status.st_mode) == MODE and status.st_uid == 0
    return FoundSwap(status.st_size, "swap" in said.split(), closed, used)


def room_needed(size_gib: float, path: str) -> int:
    """The room that the swap file will take beyond what it takes already."""
    ours = recorded()
    there = look(path).size if ours and ours.path == path else 0
    return max(0, int(size_gib * 2**30) - max(0, there))


def _make(wanted: SwapFile) -> None:
    file = Path(wanted.path)
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = (ask("findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(file.parent)) or "").strip()
    if kind not in FILESYSTEMS:
        raise RackllamaError(
            f"a swap file cannot lie on the {kind} of {file.parent}",
            f"choose a storage_swap_path on one of: {', '.join(FILESYSTEMS)}",
        )
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        os.posix_fallocate(descriptor, 0, wanted.size)  # real blocks: the kernel takes no file with holes
        os.fsync(descriptor)
    except OSError as error:
        file.unlink()
        raise RackllamaError(
            f"there is no room for a swap file of {_gib(wanted)} GiB at {file} ({error.strerror})",
            "lower storage_swap_gib, or choose another storage_swap_path",
        ) from error
    finally:
        os.close(descriptor)
    systemd.run("mkswap", str(file))


def _use(wanted: SwapFile) -> None:
    unit = _unit(wanted)
    systemd.run("systemctl", "reset-failed", unit, check=False)
    if systemd.run("systemctl", "start", unit, check=False).returncode:
        raise RackllamaError(
            f"the kernel does not take {wanted.path} as swap. The journal ends:\n{systemd.journal(unit, 5).rstrip()}\n",
            "set storage_swap_gib to 0, or choose a path on another file system; containers have no swap of their own",
        )


def _drop(ours: SwapFile) -> None:
    unit = _unit(ours)
    systemd.run("systemctl", "disable", "--now", unit, check=False)
    if look(ours.path).used:
        systemd.run("swapoff", ours.path)
    for path in (Path(ours.path), UNITS / unit, RECORD):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    systemd.run("systemctl", "daemon-reload")


def _unit(swap: SwapFile) -> str:
    return f"{escaped(swap.path)}.swap"


def _unit_text(swap: SwapFile) -> str:
    # Not wanted by swap.target, which comes before the volume that the file may lie on.
    return (
        f"{MARK}[Unit]\nDescription=Swap file\n\n[Swap]\nWhat={swap.path}\nOptions=nofail\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def _gib(swap: Optional[SwapFile]) -> str:
    return f"{swap.size / 2**30:g}" if swap else ""
