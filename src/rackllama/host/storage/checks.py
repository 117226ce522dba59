"""Checks of the volume for models: whether it will suffice, before it is there, and whether it is the declared one."""

import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from ..report import Check
from ..services.preflight import room_check
from . import state, swap, volume
from .declaration import WantedVolume, wanted_volume

ROOT = "/"


def room_checks(models_dir: str, needed: int, declared: Mapping[str, Any]) -> List[Check]:
    """Whether models and swap have room: on what is there, or on the volume that is still to be made.

    `declared` are the options of the volume, with `swap_gib` and `swap_path`.
    """
    wanted = wanted_volume({"mount_dir": "/srv/models", "filesystem": "xfs", "label": "rackllama", **declared})
    swap_path, swap_bytes = str(declared.get("swap_path") or ""), 0
    if swap_path and declared.get("swap_gib"):
        swap_bytes = swap.room_needed(float(declared["swap_gib"]), swap_path)
    if swap_bytes and _place(wanted, swap_path) == _place(wanted, models_dir):
        return [_room(wanted, models_dir, needed + swap_bytes)]
    checks = [_room(wanted, models_dir, needed)]
    return checks + ([_room(wanted, str(Path(swap_path).parent), swap_bytes)] if swap_bytes else [])


def volume_checks() -> List[Check]:
    """Whether the volume that was declared on this host is mounted, and is the declared one."""
    wanted = volume.declared()
    if wanted is None or not wanted.is_declared:
        return []
    found = mounted(wanted.mount_dir)
    name = f"volume at {wanted.mount_dir}"
    remedy = "see on the host: systemctl status rackllama-volume.service; converge again: playbooks/site.yml"
    ought = f"{wanted.filesystem} {wanted.label}, on disks of its own"
    if found is None:
        return [Check(name, False, ought, "not mounted", remedy)]
    told = f"{found['kind']} {found['label']} of {found['size'] / 2**30:.1f} GiB"
    at_root = state.mounted_at(ROOT) == state.mounted_at(wanted.mount_dir)
    same = (found["kind"], found["label"]) == (wanted.filesystem, wanted.label)
    return [Check(name, same and not at_root, ought, f"{told}{', the root disk' if at_root else ''}", remedy)]


def mounted(folder: str) -> Optional[Dict[str, Any]]:
    """Kind, label and size in bytes of the file system mounted at a folder; None where nothing is."""
    number = state.mounted_at(folder)
    if not number:
        return None
    for top in state.blocks_here():
        for block in top.everything:
            if Path(block.path).exists() and state.number_of(block.path) == number:
                signatures = state.content(block.path).signatures
                kind, label = (signatures[0].kind, signatures[0].label) if signatures else ("", "")
                return {"kind": kind, "label": label, "size": shutil.disk_usage(folder).total}
    return {"kind": "another file system", "label": "", "size": shutil.disk_usage(folder).total}


def _is_to_be_made(wanted: WantedVolume, path: str) -> bool:
    return wanted.is_declared and wanted.holds(path) and not state.mounted_at(wanted.mount_dir)


def _place(wanted: WantedVolume, path: str) -> str:
    """What tells on which file system a path is, or will be."""
    if _is_to_be_made(wanted, path):
        return wanted.mount_dir
    existing = next(parent for parent in (Path(path), *Path(path).parents) if parent.exists())
    return str(existing.stat().st_dev)


def _room(wanted: WantedVolume, path: str, needed: int) -> Check:
    if not _is_to_be_made(wanted, path):
        return room_check(Path(path), needed)
    size = state.bytes_to_be(wanted)
    return Check(
        f"room at {path}",
        size >= needed,
        f"{needed / 2**30:.1f} GiB",
        f"a volume of {size / 2**30:.1f} GiB, which is still to be made",
        "name more or larger disks in storage_disks, or declare fewer models",
    )
