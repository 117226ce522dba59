"""What the stand-ins on a played GPU machine share: which machine is played, and what its kernel has loaded."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

HOME = Path("/opt/stand-in")
SCENARIO = HOME / "scenario.json"
PCI = Path("/sys/bus/pci/devices")
LOADED = Path("/sys/module")
RUN = Path("/run/stand-in")
FABRIC_MANAGER = RUN / "fabric-manager.pid"
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
KMOD = "/bin/kmod"  # the real modprobe and rmmod, by the name that it is given


def scenario() -> dict[str, Any]:
    """The machine that is played: gpus, switches, recording, nouveau, and faults."""
    read: dict[str, Any] = json.loads(SCENARIO.read_text(encoding="utf-8"))
    return read


def loaded_version() -> str | None:
    """The version of the driver that is loaded; None where none is."""
    path = LOADED / "nvidia" / "version"
    return path.read_text(encoding="ascii").strip() if path.exists() else None


def library_version() -> str | None:
    """The version of the driver's library, by the name of the file that its link leads to."""
    return LIBRARY.resolve().name.removeprefix("libnvidia-ml.so.") if LIBRARY.exists() else None


def fabric_manager_runs() -> bool:
    """Whether the stand-in for the fabric manager is running."""
    return FABRIC_MANAGER.exists() and Path("/proc", FABRIC_MANAGER.read_text(encoding="ascii").strip()).exists()


def modinfo(module: str, field: str) -> str | None:
    """A field of a module of the running kernel, by the real modinfo; None where there is no such module."""
    done = subprocess.run(["modinfo", "--field", field, module], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def bind(driver: str | None) -> None:
    """Show the GPUs as bound to that driver, or to none."""
    for gpu in scenario()["gpus"]:
        link = PCI / gpu["address"] / "driver"
        link.unlink(missing_ok=True)
        if driver:
            folder = RUN / "drivers" / driver
            folder.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder)


def users() -> set[str]:
    """The programs that hold a device of a GPU."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(str(link.readlink()).startswith("/dev/nvidia") for link in folder.iterdir()):
                found.add((folder.parent / "comm").read_text(encoding="utf-8").strip())
        except OSError:
            continue
    return found


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """As the kernel loads modules: one after the other."""
    RUN.mkdir(exist_ok=True)
    with (RUN / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def end(message: str, code: int) -> NoReturn:
    """End with a message and an exit code."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
    os._exit(code)
