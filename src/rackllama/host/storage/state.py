"""What is on the disks of this host, read without changing anything."""

import contextlib
import errno
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..errors import RackllamaError
from ..files import read_json
from ..hardware.machine import ask
from .declaration import WantedVolume
from .plan import RAID_MEMBER, Array, Child, Content, Disk, Found, Member, Record, Signature

# Only with NAME among them is it a tree, without which nothing would be seen on top of a disk.
LSBLK = ("lsblk", "--json", "--bytes", "--output", "NAME,PATH,TYPE,SIZE,MODEL,SERIAL,LABEL,MOUNTPOINT")
# What clouds call disks that a stop of the machine wipes. Google's lasting disks are "nvme_card-pd".
INSTANCE_STORE = re.compile(r"Amazon EC2 NVMe Instance Storage|nvme card\d*|Microsoft NVMe Direct Disk( v\d+)?")
RECORD = Path("/var/lib/rackllama/storage/volume.json")
MOUNTS = Path("/proc/self/mountinfo")
WHOLE = ("disk", "loop")
ARRAYS = ("raid", "md", "linear")

HEAD_BYTES = 16 << 20
TAIL_BYTES = 1 << 20
SAMPLE_BYTES = 64 << 10
SAMPLES = 256
XFS_IN_PROGRESS = 126  # where its superblock says that mkfs.xfs has not come to its end


@dataclass(frozen=True)
class Block:
    """A block device as lsblk shows it, with what is on top of it."""

    path: str
    kind: str
    size: int
    model: str = ""
    serial: str = ""
    label: str = ""
    mount: str = ""
    children: Tuple["Block", ...] = ()

    @property
    def everything(self) -> List["Block"]:
        """It and all that is on top of it."""
        return [self, *(block for child in self.children for block in child.everything)]

    @property
    def mounts(self) -> Tuple[str, ...]:
        """Where it and all that is on top of it is mounted."""
        return tuple(block.mount for block in self.everything if block.mount)


def look(wanted: WantedVolume) -> Found:
    """All that the plan for this volume depends on. Raises RackllamaError where a disk is not there."""
    blocks = blocks_here()
    chosen = chosen_blocks(wanted, blocks)
    disks = tuple(_disk(path, block, wanted.array_name) for path, block in chosen)
    array = _array(wanted, disks, [block for _, block in chosen])
    mounted = mounted_at(wanted.mount_dir)
    ours = {block.path for _, block in chosen for block in block.everything}
    carriers = {block.path for top in blocks for block in top.everything if block.label == wanted.label}
    return Found(
        disks=disks,
        array=array,
        record=record(),
        mounted=_node_of(mounted, blocks) if mounted else "",
        hidden=not mounted and _has_entries(Path(wanted.mount_dir)),
        namesakes=tuple(sorted(carriers - ours)),
    )


def blocks_here() -> List[Block]:
    """Every block device of this host. Raises RackllamaError where lsblk does not tell."""
    said = ask(*LSBLK)
    if said is None:
        raise RackllamaError("lsblk does not tell what disks there are", "install util-linux, and look what it says")
    return parse_lsblk(said)


def parse_lsblk(said: str) -> List[Block]:
    """The devices in what `lsblk --json --bytes` printed, whole disks outermost."""
    return [_block(found) for found in json.loads(said)["blockdevices"]]


def chosen_blocks(wanted: WantedVolume, blocks: Sequence[Block]) -> List[Tuple[str, Block]]:
    """The disks for the volume, with the path that each is named by. Raises RackllamaError where one is not there."""
    if wanted.instance_store:
        chosen = [(block.path, block) for block in blocks if is_instance_store(block)]
        if not chosen:
            raise RackllamaError(
                "this host has no NVMe instance store", "choose an instance type that has, or name its disks"
            )
        return chosen
    chosen = [(path, _named_block(path, blocks)) for path in wanted.disks]
    nodes = [block.path for _, block in chosen]
    twice = sorted({node for node in nodes if nodes.count(node) > 1})
    if twice:
        raise RackllamaError(f"storage_disks names {', '.join(twice)} twice", "name each disk once")
    return chosen


def is_instance_store(block: Block) -> bool:
    """Whether the cloud wipes this disk when the machine is stopped, by its model."""
    return block.kind == "disk" and bool(INSTANCE_STORE.fullmatch(block.model.replace("_", " ")))


def bytes_to_be(wanted: WantedVolume) -> int:
    """How large the volume will be, about: the sum of its disks less what a file system keeps for itself."""
    return sum(block.size for _, block in chosen_blocks(wanted, blocks_here())) * 98 // 100


def record() -> Optional[Record]:
    """What we wrote down of our own work on this host."""
    found = read_json(RECORD)
    if not isinstance(found, dict):
        return None
    return Record(bool(found["finished"]), tuple((each["identity"], each["size"]) for each in found["disks"]))


def content(node: str) -> Content:
    """What is on a device, by its signatures and, where it has none, by whether it reads as zeros."""
    said = ask("wipefs", "--no-act", "--json", node)
    if said is None:
        raise RackllamaError(f"wipefs does not tell what is on {node}", f"see on the host: wipefs --no-act {node}")
    signatures = parse_wipefs(said)
    return Content(
        signatures,
        zeros=not signatures and reads_as_zeros(Path(node)),
        unfinished=[each.kind for each in signatures] == ["xfs"] and _is_unfinished_xfs(Path(node)),
    )


def parse_wipefs(said: str) -> Tuple[Signature, ...]:
    """The signatures in what `wipefs --no-act --json` printed, each kind once: tables of partitions have several."""
    found = json.loads(said)["signatures"] if said.strip() else []
    return tuple(dict.fromkeys(Signature(each["type"], each.get("label") or "") for each in found))


def reads_as_zeros(path: Path) -> bool:
    """Whether a device reads as zeros at its head, at its end and at many places between."""
    with path.open("rb", buffering=0) as device:
        size = device.seek(0, os.SEEK_END)
        return all(_is_zero(device.fileno(), *piece) for piece in pieces(size))


def pieces(size: int) -> Iterator[Tuple[int, int]]:
    """The places of a device that are looked at, as offset and length, the telling ones first."""
    yield 0, min(size, HEAD_BYTES)
    if size > HEAD_BYTES:
        yield max(HEAD_BYTES, size - TAIL_BYTES), min(TAIL_BYTES, size - HEAD_BYTES)
        between = size - HEAD_BYTES - TAIL_BYTES
        for number in range(SAMPLES if between > SAMPLES * SAMPLE_BYTES else 0):
            yield HEAD_BYTES + between * number // SAMPLES, SAMPLE_BYTES
        if 0 < between <= SAMPLES * SAMPLE_BYTES:
            yield HEAD_BYTES, between


def parse_examine(said: str) -> Optional[Member]:
    """What `mdadm --examine --export` says of the array that a disk is a member of."""
    told = dict(line.split("=", 1) for line in said.splitlines() if line.startswith("MD_") and "=" in line)
    if "MD_UUID" not in told:
        return None
    name = told.get("MD_NAME", "").split(":")[-1]  # it begins with the name of the host that made it
    return Member(name, told["MD_UUID"], int(told.get("MD_DEVICES", "0")), told.get("MD_LEVEL", ""))


def mounted_at(folder: str, mountinfo: Path = MOUNTS) -> str:
    """The number, as `major:minor`, of what is mounted at a folder; empty where nothing is."""
    found = ""
    for line in mountinfo.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[4] == folder:
            found = fields[2]  # the last one is on top
    return found


def number_of(node: str) -> str:
    """A device's number as `major:minor`."""
    device = Path(node).stat().st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


def _block(found: Mapping[str, Any]) -> Block:
    return Block(
        path=found["path"],
        kind=found["type"],
        size=int(found["size"] or 0),
        model=(found["model"] or "").strip(),
        serial=(found["serial"] or "").strip(),
        label=found["label"] or "",
        mount=found["mountpoint"] or "",
        children=tuple(_block(child) for child in found.get("children", [])),
    )


def _named_block(path: str, blocks: Sequence[Block]) -> Block:
    node = Path(path).resolve()
    if not node.exists() or not stat.S_ISBLK(node.stat().st_mode):
        raise RackllamaError(f"{path} is not there", "see what is: ls -l /dev/disk/by-id; and name it in storage_disks")
    everything: Dict[str, Block] = {block.path: block for top in blocks for block in top.everything}
    block = everything.get(str(node))
    if block is None or not block.size:
        raise RackllamaError(f"{path} has no medium", "see on the host: lsblk; bring the disk back, or name another")
    if block.kind not in WHOLE:
        raise RackllamaError(
            f"{path} is no whole disk (lsblk calls it {block.kind})",
            "name a whole disk; what is managed otherwise is mounted without this role",
        )
    return block


def _disk(path: str, block: Block, array_name: str) -> Disk:
    held = content(block.path)
    return Disk(
        path=path,
        node=block.path,
        size=block.size,
        serial=block.serial,
        content=held,
        member=_member(block.path, held, array_name),
        children=tuple(_children(block)),
        mounts=(block.mount,) if block.mount else (),
        busy=_is_busy(block.path),
    )


def _children(block: Block) -> Iterator[Child]:
    """What is directly on top of a disk, and on its partitions, each once."""
    for child in block.children:
        below = [inner for inner in child.children if child.kind == "part"]
        if below:
            yield from _children(child)
        yield Child(child.path, child.kind, () if below else child.mounts)


def _member(node: str, held: Content, array_name: str) -> Optional[Member]:
    """The array that a disk is a member of; where there is no mdadm, only its name, and never ours."""
    names = [each.label.split(":")[-1] for each in held.signatures if each.kind == RAID_MEMBER]
    if not names:
        return None
    said = ask("mdadm", "--examine", "--export", node)
    if said is None and array_name in names:
        raise RackllamaError(f"mdadm does not tell of the array on {node}", "install the package mdadm")
    return parse_examine(said) if said else Member(names[0], uuid="", devices=0)


def _array(wanted: WantedVolume, disks: Sequence[Disk], blocks: Sequence[Block]) -> Optional[Array]:
    """The array of our name that stands on these disks."""
    for disk, block in zip(disks, blocks):
        if disk.member and disk.member.name == wanted.array_name:
            for child in block.children:
                if child.kind.startswith(ARRAYS):
                    held = content(child.path) if child.size else Content()
                    mounts = (child.mount,) if child.mount else ()
                    return Array(child.path, held, mounts, tuple(_children(child)), active=child.size > 0)
    return None


def _node_of(number: str, blocks: Sequence[Block]) -> str:
    for top in blocks:
        for block in top.everything:
            with contextlib.suppress(OSError):
                if number_of(block.path) == number:
                    return block.path
    return f"another file system ({number})"


def _has_entries(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _is_busy(node: str) -> bool:
    """Whether the kernel has lent a device to a mount, an array or a swap, in whichever namespace."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise RackllamaError(
            f"{node} cannot be read ({error.strerror})", "look into the kernel's log: journalctl -k"
        ) from error
    return False


def _is_zero(descriptor: int, offset: int, length: int) -> bool:
    step = 1 << 20
    for start in range(offset, offset + length, step):
        data = os.pread(descriptor, min(step, offset + length - start), start)
        if data.count(0) != len(data):
            return False
    return True


def _is_unfinished_xfs(path: Path) -> bool:
    with path.open("rb", buffering=0) as device:
        return device.read(XFS_IN_PROGRESS + 1)[-1] != 0
