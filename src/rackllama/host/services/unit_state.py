"""Compare the files of a service with what is on this host, and bring them there."""

import contextlib
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from .. import systemd
from ..errors import RackllamaError
from ..files import read_text, write_atomically
from ..module import difference
from .unit import DROP_IN, SECRET_MODE, SECRETS, SERVICES, UNITS, ServiceDeclaration, UnitFile, unit_files


@dataclass(frozen=True)
class FileChange:
    """One file before and after; None stands for an absent one. `mode` is that of the file to be."""

    path: Path
    before: Optional[str]
    after: Optional[str]
    mode: int = 0o644


@dataclass(frozen=True)
class UnitChange:
    """All that differs between a service's files here and the wanted ones."""

    unit: str
    files: Tuple[FileChange, ...]
    enable: bool = False
    disable: bool = False

    def __bool__(self) -> bool:
        return bool(self.files or self.enable or self.disable)

    @property
    def paths(self) -> List[Path]:
        """The files that differ."""
        return [change.path for change in self.files]

    def diff(self) -> List[Dict[str, str]]:
        """One entry a file for Ansible's `--diff`; secrets are shown by their digest."""
        return [
            difference(_shown(change, change.before), _shown(change, change.after), header=str(change.path))
            for change in self.files
        ]

    def carry_out(self) -> None:
        """Make it so. New unit files are verified by systemd before the first of them is in place."""
        if self.disable:
            systemd.run("systemctl", "disable", "--now", self.unit)
        _require_valid(self.unit, self.files)
        for change in self.files:
            if change.after is None:
                change.path.unlink()
                if change.path.name == DROP_IN:
                    with contextlib.suppress(OSError):  # a site's own drop-ins stay, and the folder with them
                        change.path.parent.rmdir()
            else:
                write_atomically(change.path, change.after, change.mode)
        if self.files or ("@." not in self.unit and systemd.unit_state(self.unit).needs_reload):
            systemd.run("systemctl", "daemon-reload")
        if self.enable:
            systemd.run("systemctl", "enable", self.unit)


def change(declaration: ServiceDeclaration) -> UnitChange:
    """What has to change on this host so that it has the service's files, enabled."""
    different = tuple(
        FileChange(file.path, before, file.text, file.mode)
        for file in unit_files(declaration)
        for before in [read_text(file.path)]
        if before != file.text or not _has_mode(file)
    )
    # A template's instances are enabled by whoever starts them.
    enable = not declaration.is_template and not systemd.unit_state(declaration.unit_name).enabled
    return UnitChange(declaration.unit_name, different, enable)


def removal(name: str) -> UnitChange:
    """What has to change on this host so that nothing of the service is left."""
    unit = f"{name}.service"
    paths = [SERVICES / f"{name}.json", SECRETS / f"{name}.env", UNITS / f"{unit}.d" / DROP_IN, UNITS / unit]
    present = tuple(FileChange(path, read_text(path), None) for path in paths if path.exists())
    if "@." in unit:  # a template's instances are stopped by whoever started them
        return UnitChange(unit, present)
    state = systemd.unit_state(unit)
    return UnitChange(unit, present, disable=state.enabled or state.active)


def _has_mode(file: UnitFile) -> bool:
    return file.path.stat().st_mode & 0o777 == file.mode


def _shown(change: FileChange, text: Optional[str]) -> List[str]:
    if text is None:
        return []
    if change.mode == SECRET_MODE:
        return [f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}…"]
    return text.splitlines()


def _require_valid(unit: str, files: Tuple[FileChange, ...]) -> None:
    """Let systemd read the new unit and drop-in from a folder of their own, where nothing can start them."""
    texts = {change.path: change.after for change in files}
    stub, drop_in = UNITS / unit, UNITS / f"{unit}.d" / DROP_IN
    merged = {path: texts.get(path, read_text(path)) for path in (stub, drop_in)}
    if None in merged.values() or not files:
        return
    folder = Path(tempfile.mkdtemp(prefix="rackllama-verify-"))
    try:
        (folder / f"{unit}.d").mkdir()
        (folder / unit).write_text(str(merged[stub]), encoding="utf-8")
        (folder / f"{unit}.d" / DROP_IN).write_text(str(merged[drop_in]), encoding="utf-8")
        complaints = systemd.verify_units([folder / unit])
    finally:
        shutil.rmtree(folder)
    if complaints:
        raise RackllamaError(
            f"systemd does not accept {unit}: {'; '.join(complaints).replace(str(folder) + '/', '')}",
            "correct the directive in the role's service_unit; the files on the host are as they were",
        )
