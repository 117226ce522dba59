"""Versioned installations: `/opt/<name>/<version>/`, and the links `current` and `previous` beside them.

A release is unpacked beside what runs and renamed into place when it is whole; `current` then moves in one step. The
version before it is kept behind `previous`, so that a rollback is a link. Layout of `/opt/<name>`:

    0.32.15/                 a whole release, with the record .release.json of what it was made from
    0.33.0/
    current -> 0.33.0
    previous -> 0.32.15
    .fetch/                  downloads under way
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tarfile
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Callable, Dict, Iterator, List, Mapping, Optional
from urllib.parse import urlsplit

from ..errors import RackllamaError
from ..fetch import fetch
from ..files import link_atomically, read_json, sync_directory, write_json

RECORD = ".release.json"
FETCH = ".fetch"


@dataclass(frozen=True)
class WantedRelease:
    """One archive and where it belongs. `size` is the archive's in bytes; `strip` counts leading folders to drop.

    The archive comes from `url`, or is a tar given as `content` in base64.
    """

    name: str
    version: str
    url: Optional[str]
    sha256: str
    size: Optional[int] = None
    strip: int = 0
    root: Path = Path("/opt")
    content: Optional[str] = None

    @property
    def home(self) -> Path:
        """The folder of all versions."""
        return self.root / self.name


@dataclass(frozen=True)
class InstalledReleases:
    """What is there: the sha256 that each whole version was made from, and what the two links point to."""

    versions: Mapping[str, str]
    current: Optional[str] = None
    previous: Optional[str] = None


@dataclass(frozen=True)
class Step:
    """One thing to do: `unpack`, `activate` or `prune` a version."""

    action: str
    version: str


def installed_releases(home: Path) -> InstalledReleases:
    """Read what is installed under `home`, however it got there; a version that is damaged does not count as whole."""
    if not home.is_dir():
        return InstalledReleases({})
    versions = {}
    for folder in home.iterdir():
        record = None if folder.is_symlink() or folder.name.startswith(".") else read_json(folder / RECORD)
        if record and _is_whole(folder, record):
            versions[folder.name] = record["sha256"]
    return InstalledReleases(versions, _target(home / "current"), _target(home / "previous"))


def plan(wanted: WantedRelease, installed: InstalledReleases, activate: bool = True) -> List[Step]:
    """The steps from `installed` to `wanted`; empty where nothing is to do. Pure.

    Without `activate` the version is only put beside the others, so that whatever else it needs can be made ready.
    """
    steps = []
    if installed.versions.get(wanted.version) != wanted.sha256:
        steps.append(Step("unpack", wanted.version))
    if not activate:
        return steps
    previous = installed.previous
    if installed.current != wanted.version:
        steps.append(Step("activate", wanted.version))
        previous = installed.current if installed.current in installed.versions else previous
    kept = {wanted.version, previous}
    steps.extend(Step("prune", version) for version in sorted(installed.versions) if version not in kept)
    return steps


def carry_out(
    wanted: WantedRelease,
    installed: InstalledReleases,
    steps: List[Step],
    install: Optional[Callable[[], None]] = None,
) -> None:
    """Do the steps. A failure in any of them leaves `current` and what it points to as they were.

    `install` puts the version there where it is not unpacked from an archive.
    """
    for step in steps:
        if step.action == "unpack":
            (install or (lambda: _install(wanted)))()
        elif step.action == "activate":
            if installed.current in installed.versions:
                link_atomically(wanted.home / "previous", str(installed.current))
            link_atomically(wanted.home / "current", wanted.version)
        else:
            shutil.rmtree(wanted.home / step.version)


def remove(home: Path) -> None:
    """Remove every version."""
    shutil.rmtree(home)


def _target(link: Path) -> Optional[str]:
    return link.readlink().name if link.is_symlink() else None  # readlink: Python 3.9


def sizes(folder: Path) -> Dict[str, int]:
    """The size of each file below a folder, by its path within it."""
    return {
        str((Path(parent) / name).relative_to(folder)): (Path(parent) / name).lstat().st_size
        for parent, _, names in os.walk(folder)
        for name in names
    }


def tree_digest(folder: Path) -> str:
    """What changes with the name or the size of any file below a folder: a short record of a large one."""
    listed = hashlib.sha256()
    for name, size in sorted(sizes(folder).items()):
        listed.update(os.fsencode(name) + b"\0%d\n" % size)  # a name may be of any bytes, and no text
    return listed.hexdigest()


def _is_whole(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a version is as its record says: its files' sizes, what has to be there behind links, and whole trees."""
    try:
        unchanged = all((folder / name).lstat().st_size == size for name, size in record["files"].items())
    except FileNotFoundError:
        return False
    there = all((folder / name).exists() for name in record.get("needs", ()))
    return unchanged and there and all(tree_digest(folder / n) == d for n, d in record.get("trees", {}).items())


def _install(wanted: WantedRelease) -> None:
    """Fetch, check and unpack the archive, then move it into place whole."""
    archive = wanted.home / FETCH / PurePosixPath(urlsplit(wanted.url or f"{wanted.name}.tar").path).name
    partial = wanted.home / FETCH / wanted.version
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    if wanted.url:
        fetch(wanted.url, archive, wanted.sha256, wanted.size)
    else:
        _write_checked(archive, b64decode(str(wanted.content)), wanted.sha256)
    try:
        files = _unpack(archive, partial, wanted.strip)
        write_json(partial / RECORD, {"url": wanted.url, "sha256": wanted.sha256, "files": files})
    except OSError as error:
        raise RackllamaError(
            f"{archive.name} could not be unpacked into {partial} ({error.strerror or error})",
            "free space there, or repair the file system, and run again",
        ) from error
    finally:
        archive.unlink()
        if not (partial / RECORD).exists():
            shutil.rmtree(partial, ignore_errors=True)
    put_in_place(partial, wanted.home / wanted.version)
    shutil.rmtree(wanted.home / FETCH)


def _write_checked(archive: Path, content: bytes, sha256: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise RackllamaError(f"the given archive has sha256 {found}, and not {sha256}", "converge again")
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(content)


def put_in_place(partial: Path, final: Path) -> None:
    """Rename the new folder to its name; a damaged one of that name is moved aside first."""
    if final.exists():
        aside = partial.with_name(f"{partial.name}.replaced")
        shutil.rmtree(aside, ignore_errors=True)
        final.replace(aside)
    partial.replace(final)
    sync_directory(final.parent)


def _unpack(archive: Path, into: Path, strip: int) -> Dict[str, int]:
    """Unpack a tar archive and give the size of each file in it, by its path."""
    into.mkdir(parents=True)
    files: Dict[str, int] = {}
    try:
        with _tar(archive) as tar:
            for member in tar:
                path = _safe_path(member, strip)
                if path is None:
                    continue
                if not (into / path).parent.resolve().is_relative_to(into.resolve()):
                    raise _leads_outside(member)
                _unpack_member(tar, member, into / path)
                if not member.isdir():
                    files[str(path)] = (into / path).lstat().st_size
    except (tarfile.TarError, EOFError) as error:
        raise RackllamaError(
            f"{archive.name} is not a whole tar archive ({error})",
            "the locked file itself is broken: lock another version",
        ) from error
    return files


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        path.symlink_to(member.linkname)
    else:
        source = tar.extractfile(member)
        if source is None:
            raise RackllamaError(f"{member.name} in the archive is no file", "lock another version")
        with source, path.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        path.chmod(0o755 if member.mode & 0o111 else 0o644)


def _safe_path(member: tarfile.TarInfo, strip: int) -> Optional[PurePosixPath]:
    """Where a member goes below the release's folder; None for what `strip` drops. Refuses whatever leads outside."""
    parts = [part for part in PurePosixPath(member.name).parts if part != "."]
    inside = not member.name.startswith("/") and ".." not in parts
    if member.issym():
        depth = len(parts) - strip - 1
        target = PurePosixPath(member.linkname)
        inside = inside and not target.is_absolute() and list(target.parts).count("..") <= depth
    if not inside or not (member.isreg() or member.isdir() or member.issym()):
        raise _leads_outside(member)
    kept = parts[strip:]
    return PurePosixPath(*kept) if kept else None


def _leads_outside(member: tarfile.TarInfo) -> RackllamaError:
    return RackllamaError(
        f"the archive holds {member.name!r}, which would be put outside its own folder or is no plain file",
        "do not install it: report it to upstream",
    )


@contextlib.contextmanager
def _tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive of any usual compression; zstd goes through the host's `zstd`, new to Python in 3.14."""
    if not archive.name.endswith(".zst"):
        with tarfile.open(archive, "r:*") as tar:
            yield tar
        return
    if not shutil.which("zstd"):
        raise RackllamaError("zstd is not installed", "install the package zstd on the host")
    with subprocess.Popen(["zstd", "-dcq", str(archive)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as zstd:
        stream: Optional[IO[bytes]] = zstd.stdout
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            yield tar
        _, complaint = zstd.communicate()
    if zstd.returncode != 0:
        raise tarfile.ReadError(complaint.decode(errors="replace").strip())
