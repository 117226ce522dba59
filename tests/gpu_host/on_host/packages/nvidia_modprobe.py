#!/usr/bin/python3
"""A stand-in for nvidia-modprobe: loads the modules, and makes device nodes, which are those of /dev/null.

As the real one, it makes with -u the two nodes of unified memory alone: -c is the minor of the first of them then.
"""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

NULL = os.makedev(1, 3)
UVM_MAJOR = 237


def node(name: str, device: int = NULL) -> None:
    """Make a node unless it is there; another one of that name goes."""
    path = Path("/dev", name)
    if path.exists() and path.stat().st_rdev != device:
        path.unlink()
    if not path.exists():
        os.mknod(path, 0o666 | stat.S_IFCHR, device)
        path.chmod(0o666)


def main() -> None:
    """Understands -u and any number of -c=N, -c N and -cN."""
    arguments = " ".join(sys.argv[1:])
    unified = re.search(r"(^| )(-u|--unified-memory)\b", arguments)
    if subprocess.run(["/sbin/modprobe", "nvidia-uvm" if unified else "nvidia"], check=False).returncode:
        raise SystemExit(1)
    minors = re.findall(r"(?:-c|--create-nvidia-device-file)[ =]?(\d+)", arguments)
    for minor in map(int, minors):
        if unified:
            node("nvidia-uvm", os.makedev(UVM_MAJOR, minor))
            node("nvidia-uvm-tools", os.makedev(UVM_MAJOR, minor + 1))
        else:
            node(f"nvidia{minor}")
            node("nvidiactl")


if __name__ == "__main__":
    main()
