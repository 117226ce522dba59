"""Files that are either whole or absent, whatever happens while they are written."""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, Iterator, Optional, Tuple

CHUNK_BYTES = 1 << 20
MARK = "Written by rackllama; changes are lost at the next converge."  # for files that people may open
LARGEST_RECORD_BYTES = 16 << 20


def read_text(path: Path) -> Optional[str]:
    """The text of a file, or None where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def read_record(path: Path) -> Optional[str]:
    """The text of a small file that a service may have written; None where it is no plain file, too large or no text.

    For root, who must neither hang at a pipe nor read without end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(LARGEST_RECORD_BYTES + 1)
    try:
        return data.decode() if len(data) <= LARGEST_RECORD_BYTES else None
    except UnicodeDecodeError:
        return None


def read_json(path: Path) -> Optional[Any]:
    """The document in a JSON file, or None where there is none or it is damaged: both mean "not recorded"."""
    text = read_record(path)
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def write_atomically(path: Path, text: str, mode: int = 0o644, group: Optional[int] = None) -> None:
    """Replace `path` by `text` in one durable step; a crash leaves the old file or the new one, never a part.

    It belongs to the group of that id, where one is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            if group is not None:
                os.fchown(file.fileno(), -1, group)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
    sync_directory(path.parent)


def write_json(path: Path, document: Any, mode: int = 0o644) -> None:
    """Write a JSON document as `write_atomically` does, with sorted keys, so that equal documents are equal files."""
    write_atomically(path, json_text(document), mode)


def json_text(document: Any) -> str:
    """The one text of a JSON document."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def link_atomically(link: Path, target: str) -> None:
    """Make `link` point to `target`, replacing what it pointed to in one durable step."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_directory(link.parent)


def name_atomically(file: Path, name: Path, temporary: Path) -> None:
    """Give a file another name, by a hard link and in the place of what has it, in one durable step.

    `temporary` is a name to use meanwhile, on the same file system. Raises OSError.
    """
    temporary.unlink(missing_ok=True)
    os.link(file, temporary)
    temporary.replace(name)
    sync_directory(name.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> "Tuple[hashlib._Hash, int]":
    """The sha256 of a file, to be updated further or read, and the file's size in bytes."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            hasher.update(chunk)
        return hasher, file.tell()


def digest(document: Any) -> str:
    """The sha256 of a JSON document, in hexadecimal."""
    return hashlib.sha256(json_text(document).encode()).hexdigest()


@contextlib.contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """As root, do what happens in a folder of somebody else's as that one: no link there can lead root astray then."""
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)
