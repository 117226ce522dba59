"""What volume for models an inventory declares, checked before anything is looked at."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

from ..errors import RackllamaError

DECLARATION = Path("/etc/rackllama/storage.json")
FILESYSTEMS = ("xfs", "ext4")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,11}")  # xfs takes 12 characters
MOUNT_DIR = re.compile(r"(/[A-Za-z0-9._-]+)+")
# What the host itself lives in: to mount over one of these hides it.
OF_THE_HOST = (
    *("bin", "boot", "dev", "etc", "home", "lib", "lib64", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp"),
    *("usr", "var", "var/lib", "var/lib/rackllama", "var/log", "var/tmp"),
)


@dataclass(frozen=True)
class Directory:
    """A folder on the volume and the user it belongs to."""

    path: str
    owner: str


@dataclass(frozen=True)
class WantedVolume:
    """The one file system for models: on which disks, and how.

    `overwrite` are the serials of disks whose data may go. It is never written down: nothing is overwritten at boot.
    A `read_ahead_kib` of 0 leaves it as it is. `directories` are made again when the boot made a new file system.
    """

    disks: Tuple[str, ...] = ()
    instance_store: bool = False
    mount_dir: str = "/srv/models"
    filesystem: str = "xfs"
    label: str = "rackllama"
    rebuilt_at_boot: bool = False
    read_ahead_kib: int = 0
    directories: Tuple[Directory, ...] = ()
    overwrite: Tuple[str, ...] = ()

    @property
    def is_declared(self) -> bool:
        """Whether there is to be a volume at all."""
        return bool(self.disks) or self.instance_store

    @property
    def array_name(self) -> str:
        """The name that the RAID 0 carries on its members. Not the label, which must mean one device alone."""
        return f"{self.label}-raid0"

    def holds(self, path: str) -> bool:
        """Whether the path lies on the volume."""
        return Path(self.mount_dir) in (Path(path), *Path(path).parents)

    def as_data(self) -> Dict[str, Any]:
        """What the boot has to know of it."""
        return {
            "disks": list(self.disks),
            "instance_store": self.instance_store,
            "mount_dir": self.mount_dir,
            "filesystem": self.filesystem,
            "label": self.label,
            "rebuilt_at_boot": self.rebuilt_at_boot,
            "read_ahead_kib": self.read_ahead_kib,
            "directories": [{"path": each.path, "owner": each.owner} for each in self.directories],
        }


def wanted_volume(given: Mapping[str, Any]) -> WantedVolume:
    """The volume that options or a record describe. Raises RackllamaError where they cannot be meant."""
    volume = WantedVolume(
        disks=tuple(given.get("disks") or ()),
        instance_store=bool(given.get("instance_store")),
        mount_dir=os.path.normpath(str(given["mount_dir"])),
        filesystem=str(given["filesystem"]),
        label=str(given["label"]),
        rebuilt_at_boot=bool(given.get("rebuilt_at_boot")),
        read_ahead_kib=int(given.get("read_ahead_kib") or 0),
        overwrite=tuple(str(serial).strip() for serial in given.get("overwrite_serials") or ()),
    )
    if volume.is_declared:
        _require_sound(volume)
    directories = tuple(
        Directory(str(each["path"]), str(each["owner"]))
        for each in given.get("directories") or ()
        if each["path"] and volume.holds(each["path"]) and Path(each["path"]) != Path(volume.mount_dir)
    )
    return WantedVolume(**{**volume.__dict__, "directories": directories})


def _require_sound(volume: WantedVolume) -> None:
    if volume.disks and volume.instance_store:
        raise RackllamaError(
            "storage_disks names disks, and storage_instance_store takes others",
            "name the disks, or take the instance store",
        )
    if volume.filesystem not in FILESYSTEMS:
        raise RackllamaError(f"no {volume.filesystem} can be made", f"choose one of: {', '.join(FILESYSTEMS)}")
    if not LABEL.fullmatch(volume.label):
        raise RackllamaError(
            f"{volume.label!r} cannot be the label of a file system",
            "use 1 to 12 letters, digits, hyphens and underscores",
        )
    if not MOUNT_DIR.fullmatch(volume.mount_dir) or volume.mount_dir[1:] in OF_THE_HOST:
        raise RackllamaError(
            f"models cannot be mounted at {volume.mount_dir}",
            "choose an absolute path without spaces, of its own, such as /srv/models",
        )
    for path in volume.disks:
        if not path.startswith("/dev/"):
            raise RackllamaError(f"{path} is no disk", "name it by its path, best below /dev/disk/by-id/")
