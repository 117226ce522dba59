"""Bring the volume for models to what is declared, and make it ready again at each boot."""

import contextlib
import os
import pwd
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from .. import systemd
from ..errors import RackllamaError
from ..files import read_json, read_text, write_atomically, write_json
from ..module import difference
from . import state, units
from .declaration import DECLARATION, WantedVolume, wanted_volume
from .plan import ASSEMBLE, CREATE, DESTRUCTIVE, FORMAT, MOUNT, STOP, WIPE, Found, Step, plan, target_node

ROUNDS = 4  # an array is assembled, and then seen; a device is wiped, and then blank
BOOT_SECONDS = 30
HEAD_BYTES = 1 << 20
RAID_LOG_STRIPE = "su=8b"  # the log takes no stripe as large as md's chunk of 512 KiB
PRIVATE_MOUNT = Path("/run/rackllama/volume")


@dataclass(frozen=True)
class VolumeChange:
    """All that differs between the volume here and the wanted one: steps to do, and files before and after."""

    wanted: WantedVolume
    steps: Tuple[Step, ...] = ()
    files: Mapping[Path, Tuple[Optional[str], Optional[str]]] = field(default_factory=dict)
    enable: Tuple[str, ...] = ()
    read_ahead_kib: int = 0

    def __bool__(self) -> bool:
        return bool(self.steps or self.files or self.enable or self.read_ahead_kib)

    @property
    def words(self) -> List[str]:
        """The change as lines for people."""
        told = [step.words for step in self.steps]
        told += [f"{'take away' if after is None else 'write'} {path}" for path, (_, after) in self.files.items()]
        told += [f"mount it at each boot ({', '.join(self.enable)})"] if self.enable else []
        return told + ([f"read {self.read_ahead_kib} KiB ahead"] if self.read_ahead_kib else [])

    def diff(self) -> List[Dict[str, str]]:
        """For Ansible's `--diff`: what is to be done, and each file."""
        texts = [
            difference((before or "").splitlines(), (after or "").splitlines(), header=str(path))
            for path, (before, after) in self.files.items()
        ]
        return [difference([], [step.words for step in self.steps], header="the models' volume"), *texts]

    def carry_out(self) -> None:
        """Make it so; what is interrupted is gone on with by the next run."""
        _bring(self.wanted, lambda steps: [step for step in steps if step.action != MOUNT])
        for path, (_, after) in self.files.items():
            if after is None:
                path.unlink()
            else:
                write_atomically(path, after)
        if self.files:
            systemd.run("systemctl", "daemon-reload")
        for unit in self.enable:
            systemd.run("systemctl", "enable", unit)
        if state.mounted_at(self.wanted.mount_dir) == "":
            _mount(self.wanted)
        if self.read_ahead_kib:
            _set_read_ahead(target_node(state.look(self.wanted)), self.read_ahead_kib)


def change(wanted: WantedVolume, python: str) -> VolumeChange:
    """What has to change on this host. Raises RackllamaError for all that is in the way."""
    if not wanted.is_declared:
        return VolumeChange(wanted)
    _await_boot(wanted)
    former = declared()
    if former and former.mount_dir != wanted.mount_dir and state.mounted_at(former.mount_dir):
        raise RackllamaError(
            f"the models' volume is mounted at {former.mount_dir}, and ought to be at {wanted.mount_dir}",
            f"stop what uses it, and run on the host: systemctl disable --now '{units.mount_unit(former)}'",
        )
    found = state.look(wanted)
    steps = tuple(plan(wanted, found))
    texts = {**_obsolete(former, units.files(wanted, python)), **units.files(wanted, python)}
    different = {
        path: (before, after) for path, after in texts.items() for before in [read_text(path)] if before != after
    }
    enable = (units.READY_UNIT, units.mount_unit(wanted))
    return VolumeChange(
        wanted,
        steps,
        different,
        tuple(unit for unit in enable if not systemd.unit_state(unit).enabled),
        _missing_read_ahead(wanted, target_node(found) if not steps else ""),
    )


def _await_boot(wanted: WantedVolume) -> None:
    """Let a boot that is still at the volume end what it does. Raises RackllamaError where that takes too long."""
    deadline = time.monotonic() + 2 * BOOT_SECONDS
    while "activating" in (systemd.active_state(unit) for unit in (units.READY_UNIT, units.mount_unit(wanted))):
        if time.monotonic() > deadline:
            raise RackllamaError(
                f"{units.READY_UNIT} is still at work on the disks",
                f"wait for it to end, and run again; or see on the host: systemctl status {units.READY_UNIT}",
            )
        time.sleep(1)


def declared() -> Optional[WantedVolume]:
    """The volume that the last converge declared on this host."""
    found = read_json(DECLARATION)
    return wanted_volume(found) if isinstance(found, dict) else None


def make_ready(seconds: float = BOOT_SECONDS) -> List[str]:
    """At boot: assemble the array, and make anew what a stop of the machine has wiped; what was done, in words.

    Makes anew only where that is declared, where every disk is there, and where all are blank. Raises RackllamaError
    where the volume cannot be mounted.
    """
    wanted = declared()
    if wanted is None or not wanted.is_declared:
        return []
    found = _awaited(wanted, seconds)
    done = _bring(wanted, lambda steps: _allowed_at_boot(wanted, found, steps))
    if any(step.action == FORMAT for step in done):
        _make_directories(wanted)
    return [step.words for step in done]


def _allowed_at_boot(wanted: WantedVolume, found: Found, steps: List[Step]) -> List[Step]:
    makes = [step for step in steps if step.action in DESTRUCTIVE]
    if makes and not wanted.rebuilt_at_boot:
        raise RackllamaError(
            f"the volume for models is gone from {', '.join(disk.path for disk in found.disks)}, which read as blank",
            "see that these are the right disks, and converge again; or set storage_rebuilt_at_boot",
        )
    return [step for step in steps if step.action != MOUNT]


def _awaited(wanted: WantedVolume, seconds: float) -> Found:
    """What there is, once all disks are there that the last converge had."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _require_all(state.look(wanted))
        except RackllamaError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)


def _require_all(found: Found) -> Found:
    missing = len(found.record.disks) - len(found.disks) if found.record else 0
    if missing > 0:
        raise RackllamaError(f"{missing} of the disks for models are missing", "bring them back, or converge again")
    return found


def _bring(wanted: WantedVolume, choose: Callable[[List[Step]], List[Step]]) -> List[Step]:
    """Do the steps that `choose` leaves of the plan, until none is left."""
    done: List[Step] = []
    for _ in range(ROUNDS):
        found = state.look(wanted)
        steps = choose(plan(wanted, found))
        if not steps:
            _write_record(found, finished=True)
            return done
        _require_programs(wanted, steps)
        if any(step.action in DESTRUCTIVE for step in steps):
            _write_record(found, finished=False)
        for step in steps:
            _do(wanted, step, len(found.disks))
            done.append(step)
        _settle()
    raise RackllamaError(
        f"the disks do not become what they ought to: {steps[-1].words}", "see on the host: lsblk --fs; journalctl -k"
    )


def _require_programs(wanted: WantedVolume, steps: List[Step]) -> None:
    """Raise RackllamaError where a program for one of the steps is missing: before the first, which may wipe."""
    maker = f"mkfs.{wanted.filesystem}"
    needed = {FORMAT: maker, CREATE: "mdadm", ASSEMBLE: "mdadm", STOP: "mdadm"}
    packages = {"mkfs.xfs": "xfsprogs", "mkfs.ext4": "e2fsprogs", "mdadm": "mdadm"}
    for program in (needed[step.action] for step in steps if step.action in needed):
        if not shutil.which(program):
            raise RackllamaError(f"{program} is not installed", f"install the package {packages[program]}")


def _do(wanted: WantedVolume, step: Step, disks: int) -> None:
    node = step.nodes[0]
    if step.action == STOP:
        systemd.run("mdadm", "--stop", node)
    elif step.action == WIPE:
        systemd.run("wipefs", "--all", "--quiet", node)
        _zero_head(node)
    elif step.action == CREATE:
        array = ("--run", f"/dev/md/{wanted.array_name}", "--level=0", f"--name={wanted.array_name}")
        systemd.run("mdadm", "--create", "--force", "--verbose", *array, f"--raid-devices={disks}", *step.nodes)
        _settle()
    elif step.action == ASSEMBLE:
        if node:  # an inactive one holds its members
            systemd.run("mdadm", "--stop", node)
        systemd.run("mdadm", "--assemble", "--run", f"/dev/md/{wanted.array_name}", *step.nodes[1:])
    elif step.action == FORMAT:
        systemd.run(*mkfs(wanted, node or target_node(state.look(wanted)), is_array=disks > 1))


def mkfs(wanted: WantedVolume, node: str, is_array: bool) -> List[str]:
    """The command that makes the file system. Nothing is forced: it refuses what the plan did not foresee.

    Without a discard of the whole disk: they come trimmed, and where they do not it may take minutes.
    """
    if wanted.filesystem == "xfs":
        log = ["-l", RAID_LOG_STRIPE] if is_array else []
        return ["mkfs.xfs", "-q", "-K", "-L", wanted.label, *log, node]
    # No blocks kept for root: nothing but models is there.
    return ["mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard", "-L", wanted.label, node]


def _write_record(found: Found, finished: bool) -> None:
    disks = [{"identity": disk.identity, "size": disk.size} for disk in found.disks]
    document = {"finished": finished, "disks": disks}
    if read_json(state.RECORD) != document:
        write_json(state.RECORD, document)


def _zero_head(node: str) -> None:
    """Overwrite what no signature told of at the head of a device."""
    descriptor = os.open(node, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, bytes(HEAD_BYTES), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle() -> None:
    """Wait until udev has named what was made."""
    if Path("/run/udev/control").exists():
        systemd.run("udevadm", "settle", "--timeout=30", check=False)


def _mount(wanted: WantedVolume) -> None:
    unit = units.mount_unit(wanted)
    systemd.run("systemctl", "reset-failed", unit, units.READY_UNIT, check=False)
    if systemd.run("systemctl", "start", unit, check=False).returncode:
        raise RackllamaError(
            f"{wanted.mount_dir} is not mounted. Its journal ends:\n{systemd.journal(unit, 10).rstrip()}\n",
            f"see on the host: systemctl status {units.READY_UNIT} '{unit}'",
        )


def _make_directories(wanted: WantedVolume) -> None:
    """Make the folders of services on a new file system, before it is mounted where they look for them."""
    PRIVATE_MOUNT.mkdir(parents=True, exist_ok=True)
    systemd.run("mount", "-t", wanted.filesystem, target_node(state.look(wanted)), str(PRIVATE_MOUNT))
    try:
        for each in wanted.directories:
            with contextlib.suppress(KeyError):  # a user that is not there needs no folder
                owner = pwd.getpwnam(each.owner)
                folder = PRIVATE_MOUNT / Path(each.path).relative_to(wanted.mount_dir)
                folder.mkdir(parents=True, exist_ok=True)
                shutil.chown(folder, owner.pw_uid, owner.pw_gid)
                folder.chmod(0o755 if owner.pw_uid == 0 else 0o750)
    finally:
        systemd.run("umount", str(PRIVATE_MOUNT))


def _obsolete(former: Optional[WantedVolume], wanted: Mapping[Path, Any]) -> Dict[Path, Optional[str]]:
    """The files of a former declaration that the present one has no use for."""
    return {path: None for path in (units.files(former, "") if former else {}) if path not in wanted}


def _missing_read_ahead(wanted: WantedVolume, node: str) -> int:
    """The read-ahead to be set, in KiB; 0 where there is nothing to set."""
    if not wanted.read_ahead_kib:
        return 0
    sectors = systemd.run("blockdev", "--getra", node).stdout.strip() if node else ""
    return 0 if sectors == str(wanted.read_ahead_kib * 2) else wanted.read_ahead_kib


def _set_read_ahead(node: str, kib: int) -> None:
    systemd.run("blockdev", "--setra", str(kib * 2), node)
