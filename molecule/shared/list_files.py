"""List every file that a converge may touch, one a line: path, owner, mode, and what a link or a file holds."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

ROOTS = ("/etc", "/opt", "/srv", "/usr/lib/systemd", "/usr/local", "/var/lib")
# What a host writes of its own accord while it runs.
RESTLESS = (
    "/var/lib/apt",
    "/var/lib/logrotate",
    "/var/lib/private",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/timers",
)


def content(path: Path, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return str(path.readlink())
    return hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""


def lines(root: str) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if not str(path).startswith(RESTLESS):
                found = path.lstat()
                yield f"{path} {found.st_uid}:{found.st_gid} {found.st_mode:o} {content(path, found.st_mode)}"


for listed in ROOTS:
    sys.stdout.writelines(f"{line}\n" for line in lines(listed))
