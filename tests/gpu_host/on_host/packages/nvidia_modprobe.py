#!/usr/bin/python3
"""A stand-in for nvidia-modprobe: loads the modules, and makes device nodes, which are those of /dev/null."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

NULL = os.makedev(1, 3)


def node(name: str) -> None:
    """Make a node unless it is there."""
    path = Path("/dev", name)
    if not path.exists():
        os.mknod(path, 0o666 | stat.S_IFCHR, NULL)
        path.chmod(0o666)


def main() -> None:
    """Understands -u and any number of -c=N, -c N and -cN."""
    arguments = " ".join(sys.argv[1:])
    unified = re.search(r"(^| )(-u|--unified-memory)\b", arguments)
    if subprocess.run(["/sbin/modprobe", "nvidia-uvm" if unified else "nvidia"], check=False).returncode:
        raise SystemExit(1)
    minors = re.findall(r"(?:-c|--create-nvidia-device-file)[ =]?(\d+)", arguments)
    for name in [*(["nvidia-uvm", "nvidia-uvm-tools"] if unified else []), *(f"nvidia{minor}" for minor in minors)]:
        node(name)
    if minors:
        node("nvidiactl")


if __name__ == "__main__":
    main()
