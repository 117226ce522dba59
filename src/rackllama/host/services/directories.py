"""Directories that a service can really reach: owned by it, with every parent open to it.

A models folder on a second disk below a parent of mode 0700 looks right to root and is unreadable to the service; that
is told here, by name, instead of as "no models" later.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, List, Optional

from ..errors import RackllamaError


@dataclass(frozen=True)
class Access:
    """Who owns a directory and what its mode allows."""

    path: Path
    uid: int
    gid: int
    mode: int


def access(path: Path) -> Optional[Access]:
    """Owner and mode of a directory, or None where it does not exist."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        raise RackllamaError(f"{path} is there and no directory", "move it away, or give the path that a link leads to")
    return Access(path, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


def first_closed_parent(parents: Iterable[Access], uid: int, gids: Iterable[int]) -> Optional[Path]:
    """The first of `parents` that a user of this uid and these gids cannot pass through, or None. Pure."""
    groups = set(gids)
    for parent in parents:
        if parent.uid == uid:
            passable = parent.mode & stat.S_IXUSR
        elif parent.gid in groups:
            passable = parent.mode & stat.S_IXGRP
        else:
            passable = parent.mode & stat.S_IXOTH
        if not passable:
            return parent.path
    return None


def require_open_parents(path: Path, user: str) -> None:
    """Raise RackllamaError naming the first existing parent of `path` that `user` cannot pass through."""
    entry = pwd.getpwnam(user)
    parents: List[Access] = [found for found in map(access, reversed(path.resolve().parents)) if found]
    closed = first_closed_parent(parents, entry.pw_uid, os.getgrouplist(user, entry.pw_gid))
    if closed is not None:
        raise RackllamaError(
            f"the user {user} cannot reach {path}: {closed} is closed to it", f"run on the host: chmod o+x {closed}"
        )


def owner_of(user: str, may_be_missing: bool = False) -> str:
    """`uid:gid` of a user; the name itself where it may be missing, as in check mode on a fresh host."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        if may_be_missing:
            return user
        raise RackllamaError(f"there is no user {user}", "create it before its directories") from None
    return f"{entry.pw_uid}:{entry.pw_gid}"


def settle(path: Path, user: str, mode: int) -> None:
    """Make the directory with this owner and mode. New parents are open to all; existing ones stay as they are."""
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir()
            parent.chmod(0o755)
    uid, gid = map(int, owner_of(user).split(":"))
    path.mkdir(exist_ok=True)
    # By a descriptor that follows no link: the folder above may be the service's, and root must not be led astray.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
