"""What has to be done to disks so that they hold the volume for models: a pure function of what is on them.

Nothing that holds data is touched unless its serial is told, and nothing that is in use ever is. What is refused is
refused before the first step, for all disks at once.
"""

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple, Union

from ..errors import RackllamaError
from .declaration import WantedVolume

RAID_MEMBER = "linux_raid_member"
WIPE, STOP, CREATE, ASSEMBLE, FORMAT, MOUNT = "wipe", "stop", "create", "assemble", "format", "mount"
DESTRUCTIVE = (WIPE, CREATE, FORMAT)
DLAMI_GROUP = "vg.01"


@dataclass(frozen=True)
class Signature:
    """What a device says it holds, as libblkid names it."""

    kind: str
    label: str = ""


@dataclass(frozen=True)
class Content:
    """What is on a device. `zeros` tells whether it reads as zeros wherever it was looked at.

    `unfinished` is a file system whose maker was stopped before its end.
    """

    signatures: Tuple[Signature, ...] = ()
    zeros: bool = True
    unfinished: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether nothing is there."""
        return not self.signatures and self.zeros

    @property
    def words(self) -> str:
        """What is there, for people."""
        kinds = [f"{each.kind} {each.label!r}" if each.label else each.kind for each in self.signatures]
        return ", ".join(kinds) or "data that no tool here knows"

    def is_filesystem(self, kind: str, label: str) -> bool:
        """Whether it is this file system, whole, and nothing else."""
        return self.signatures == (Signature(kind, label),) and not self.unfinished


@dataclass(frozen=True)
class Member:
    """What a member of an md array says of the array."""

    name: str
    uuid: str
    devices: int
    level: str = "raid0"


@dataclass(frozen=True)
class Child:
    """What the kernel has on top of a disk (a partition, an array, a logical volume) and where that is mounted."""

    path: str
    kind: str
    mounts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Disk:
    """A whole disk as it is. `path` is how it was named, `busy` whether the kernel lends it to somebody."""

    path: str
    node: str
    size: int
    serial: str = ""
    content: Content = Content()
    member: Optional[Member] = None
    children: Tuple[Child, ...] = ()
    mounts: Tuple[str, ...] = ()
    busy: bool = False

    @property
    def identity(self) -> str:
        """What tells it from all others: its serial, or, where it has none, the path that it is declared by."""
        return self.serial or self.path

    @property
    def words(self) -> str:
        """It, for people."""
        told = f", serial {self.serial}" if self.serial else ""
        return f"{self.path} ({self.size / 2**30:.1f} GiB{told})"


@dataclass(frozen=True)
class Array:
    """The assembled RAID 0 of our name; an inactive one has no size."""

    node: str
    content: Content = Content()
    mounts: Tuple[str, ...] = ()
    children: Tuple[Child, ...] = ()
    active: bool = True


Target = Union[Disk, Array, None]  # what carries the file system; None where it is still to be made


@dataclass(frozen=True)
class Record:
    """What we wrote down of our own work: the disks by identity and size, and whether it came to its end."""

    finished: bool
    disks: Tuple[Tuple[str, int], ...] = ()

    def left(self, disk: Disk) -> bool:
        """Whether our work on this disk was interrupted."""
        return not self.finished and (disk.identity, disk.size) in self.disks


@dataclass(frozen=True)
class Found:
    """All that the plan depends on.

    `mounted` is the device mounted at the wanted folder, `hidden` whether the folder holds files that a mount would
    hide, `namesakes` are other devices that carry the wanted label.
    """

    disks: Tuple[Disk, ...]
    array: Optional[Array] = None
    record: Optional[Record] = None
    mounted: str = ""
    hidden: bool = False
    namesakes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One thing to do, with which devices, and in words."""

    action: str
    nodes: Tuple[str, ...]
    words: str


def plan(wanted: WantedVolume, found: Found) -> List[Step]:
    """The steps to the volume; none where it is as wanted.

    A step that assembles an array is the last of its plan: what is on the array is seen only after it.
    Raises RackllamaError for all that is in the way, with what to do about it.
    """
    if found.namesakes:
        raise RackllamaError(
            f"{', '.join(found.namesakes)} carries the label {wanted.label} as well",
            "give that one another label, or choose another storage_label",
        )
    steps, target = (_plan_array if len(found.disks) > 1 else _plan_single)(wanted, found)
    if steps and steps[-1].action == ASSEMBLE:
        return steps
    return steps + _plan_mount(wanted, found, target)


def target_node(found: Found) -> str:
    """The device that holds the file system; empty where it is still to be made."""
    if len(found.disks) == 1:
        return found.disks[0].node
    return found.array.node if found.array else ""


def _plan_single(wanted: WantedVolume, found: Found) -> Tuple[List[Step], Target]:
    disk = found.disks[0]
    if _is_ours(wanted, disk.content) and not disk.children:
        return [], disk
    return [*_cleared(wanted, found, [disk]), _format(wanted, disk.node)], disk


def _plan_array(wanted: WantedVolume, found: Found) -> Tuple[List[Step], Target]:
    disks, array = found.disks, found.array
    members = [disk for disk in disks if disk.member and disk.member.name == wanted.array_name]
    if _is_whole(members, disks):
        if array is None or not array.active:
            return [_assemble(wanted, disks, array)], array
        if _is_ours(wanted, array.content):
            return [], array
        if not array.mounts and not array.children and _may_format(found, array.content):
            leftover = [] if not array.content.signatures else [_wipe(array.node, array.content.words)]
            return [*leftover, _format(wanted, array.node)], array
    elif members and not _all_told(wanted, found):
        raise RackllamaError(_broken_array(wanted, members, disks), _remedy_for_array(disks))
    create = Step(CREATE, tuple(disk.node for disk in disks), f"make the RAID 0 {wanted.array_name} of {_named(disks)}")
    return [*_cleared(wanted, found, disks), create, _format(wanted, "")], None


def _plan_mount(wanted: WantedVolume, found: Found, target: Target) -> List[Step]:
    if target is not None:
        if found.mounted == target.node:
            return []
        if target.mounts:
            raise RackllamaError(
                f"the file system for models is mounted at {', '.join(target.mounts)}",
                f"unmount it there (and see /etc/fstab), or set storage_mount_dir to {target.mounts[0]}",
            )
    if found.mounted:
        raise RackllamaError(
            f"{found.mounted} is mounted at {wanted.mount_dir}", "unmount it, or choose another storage_mount_dir"
        )
    if found.hidden:
        raise RackllamaError(
            f"{wanted.mount_dir} holds files that the mount would hide",
            "move them away, and onto the volume after the converge",
        )
    node = target.node if target is not None else ""
    return [Step(MOUNT, (node,), f"mount it at {wanted.mount_dir} by its label {wanted.label}")]


def _is_ours(wanted: WantedVolume, content: Content) -> bool:
    return content.is_filesystem(wanted.filesystem, wanted.label)


def _is_whole(members: Sequence[Disk], disks: Sequence[Disk]) -> bool:
    """Whether these disks are all members of one array of our name, and it has no others."""
    arrays = {(disk.member.uuid, disk.member.devices, disk.member.level) for disk in members if disk.member}
    return len(members) == len(disks) and {each[1:] for each in arrays} == {(len(disks), "raid0")} and len(arrays) == 1


def _may_format(found: Found, content: Content) -> bool:
    """Whether an array of ours is still to get its file system: nothing is on it, or what an interrupted run left."""
    interrupted = all(found.record.left(disk) for disk in found.disks) if found.record else False
    return content.is_blank or (interrupted and _is_leftover(content))


def _is_leftover(content: Content) -> bool:
    """Whether this may be what an interrupted run of ours left: never anything that is whole."""
    return content.unfinished or not content.signatures


def _left_by_us(wanted: WantedVolume, found: Found, disk: Disk) -> bool:
    if found.record is None or not found.record.left(disk):
        return False
    half_array = disk.member is not None and disk.member.name == wanted.array_name
    return not disk.children and (_is_leftover(disk.content) or half_array)


def _may_go(wanted: WantedVolume, found: Found, disk: Disk) -> bool:
    """Whether what is on a disk may be overwritten."""
    told = disk.identity in wanted.overwrite
    return told or _left_by_us(wanted, found, disk) or (disk.content.is_blank and not disk.children)


def _all_told(wanted: WantedVolume, found: Found) -> bool:
    return all(_may_go(wanted, found, disk) for disk in found.disks)


def _cleared(wanted: WantedVolume, found: Found, disks: Sequence[Disk]) -> List[Step]:
    """The steps that make these disks blank. Raises RackllamaError naming each that may not be touched."""
    array = found.array if found.array and not found.array.mounts and not found.array.children else None
    in_the_way: List[Tuple[str, str]] = []
    for disk in disks:
        used = _uses(disk, array)
        if used:
            in_the_way.append((f"{disk.words} is in use: {', '.join(used)}", _remedy_for_use(disk, used)))
        elif not _may_go(wanted, found, disk):
            in_the_way.append((f"{disk.words} holds {_held(disk)}", _remedy_for_data(disk)))
    if in_the_way:
        raise RackllamaError("; ".join(each[0] for each in in_the_way), "; ".join(each[1] for each in in_the_way))
    stop = [Step(STOP, (array.node,), f"stop the array {array.node}")] if array else []
    dirty = [disk for disk in disks if not disk.content.is_blank or disk.children]
    return [*stop, *(_wipe(disk.node, f"{_held(disk)} on {disk.words}") for disk in dirty)]


def _uses(disk: Disk, array: Optional[Array]) -> List[str]:
    """Who uses a disk, but for an array of ours that can be stopped."""
    uses = [f"mounted at {mount}" for mount in disk.mounts]
    for child in disk.children:
        if array and child.path == array.node:
            continue
        uses += [f"{child.path} is mounted at {mount}" for mount in child.mounts]
        uses += [f"it is part of {child.path} ({child.kind})"] if child.kind != "part" and not child.mounts else []
    mine = array is not None and any(child.path == array.node for child in disk.children)
    return uses or (["another program or another namespace holds it"] if disk.busy and not mine else [])


def _held(disk: Disk) -> str:
    parts = [child.path for child in disk.children if child.kind == "part"]
    return f"partitions ({', '.join(parts)})" if parts else disk.content.words


def _wipe(node: str, what: str) -> Step:
    return Step(WIPE, (node,), f"wipe {what}")


def _format(wanted: WantedVolume, node: str) -> Step:
    where = f"on {node}" if node else f"on {wanted.array_name}"
    return Step(FORMAT, (node,), f"make the {wanted.filesystem} file system {wanted.label} {where}")


def _assemble(wanted: WantedVolume, disks: Sequence[Disk], inactive: Optional[Array]) -> Step:
    nodes = tuple(disk.node for disk in disks)
    return Step(ASSEMBLE, (inactive.node if inactive else "", *nodes), f"assemble {wanted.array_name}")


def _named(disks: Sequence[Disk]) -> str:
    return ", ".join(disk.path for disk in disks)


def _broken_array(wanted: WantedVolume, members: Sequence[Disk], disks: Sequence[Disk]) -> str:
    wants = max(disk.member.devices for disk in members if disk.member)
    others = [disk.path for disk in disks if disk not in members]
    beside = f", {', '.join(others)} is none" if others else ""
    return f"{_named(members)}: {len(members)} of the {wants} members of the RAID 0 {wanted.array_name}{beside}"


def _remedy_for_array(disks: Sequence[Disk]) -> str:
    listed = ", ".join(disk.identity for disk in disks if not disk.content.is_blank)
    return (
        "bring back the disks that it was made of, as a RAID 0 is lost without one; "
        f"or make it anew, and lose what is on it: storage_overwrite_serials: [{listed}]"
    )


def _remedy_for_use(disk: Disk, used: Sequence[str]) -> str:
    if any(DLAMI_GROUP in use for use in used):
        return (
            "the image has put the instance store to its own use: run on the host "
            "`systemctl disable --now dlami-nvme.service; umount /opt/dlami/nvme; vgremove --yes vg.01`"
        )
    return f"end that use of {disk.path} on the host, or take it out of storage_disks"


def _remedy_for_data(disk: Disk) -> str:
    if any(each.kind == "LVM2_member" for each in disk.content.signatures):
        return f"remove its volume group (vgremove), or lose it: storage_overwrite_serials: [{disk.identity}]"
    return f"save what is needed of {disk.path}, or lose it: storage_overwrite_serials: [{disk.identity}]"
