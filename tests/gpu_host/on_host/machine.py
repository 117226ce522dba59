#!/usr/bin/python3
"""Plays a GPU server within a lab host: `machine.py boot` at every boot, `machine.py show` after a change of scenario.

What a container shares with the machine below it is covered by mounts: the PCI bus, the loaded modules and the id of
the boot. Limits: the running kernel's release is the real one's, also after a reboot into a newer kernel; nothing is
behind the devices; and nothing reacts to what is written to /sys.
"""

import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

sys.path.insert(0, "/opt/stand-in")
import played

NVIDIA = "0x10de"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def cover(place: Path, name: str) -> Path:
    """A folder in memory in the place of one of the kernel's."""
    folder = played.RUN / name
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(folder), str(place)], check=True)
    return folder


def new_boot_id() -> None:
    """A boot is told by its id, which is the real machine's in a container."""
    path = played.RUN / "boot_id"
    path.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    path.chmod(0o444)
    subprocess.run(["mount", "--bind", str(path), str(BOOT_ID)], check=True)


def show_devices() -> None:
    """Fill the PCI bus."""
    for folder in played.PCI.iterdir():
        shutil.rmtree(folder)
    scenario = played.scenario()
    for device, kind in [
        *((gpu, "0x030200") for gpu in scenario["gpus"]),
        *((switch, "0x068000") for switch in scenario["switches"]),
    ]:
        folder = played.PCI / device["address"]
        folder.mkdir()
        values = {"vendor": NVIDIA, "device": device["device"], "class": kind, "numa_node": str(device["numa_node"])}
        for name, value in values.items():
            (folder / name).write_text(f"{value}\n", encoding="ascii")
    loaded = [name for name in ("nvidia", "nouveau") if (played.LOADED / name).exists()]
    played.bind(loaded[0] if loaded else None)


def show_kernels() -> None:
    """What the packages of kernels leave on a host, without the kernels."""
    wanted = {os.uname().release, *played.scenario()["kernels"]}
    for image in Path("/boot").glob("vmlinuz-*"):
        release = image.name.removeprefix("vmlinuz-")
        if release not in wanted:
            image.unlink()
            shutil.rmtree(Path("/lib/modules", release), ignore_errors=True)
    for release in sorted(wanted):
        Path("/boot", f"vmlinuz-{release}").write_text("stand-in for a kernel\n", encoding="ascii")
        modules = Path("/lib/modules", release)
        (modules / "kernel").mkdir(parents=True, exist_ok=True)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            (modules / name).touch()
        if not (modules / "modules.dep").exists():
            subprocess.run(["depmod", release], check=True)


def blacklisted() -> set[str]:
    """The modules that are not loaded by themselves, as the real modprobe reads its configuration."""
    command = ["modprobe", "--showconfig"]
    told = subprocess.run(command, executable=played.KMOD, capture_output=True, text=True, check=True).stdout
    return {name.replace("-", "_") for name in re.findall(r"^blacklist (\S+)", told, re.MULTILINE)}


def load_as_udev_does() -> None:
    """Load what fits the devices, is there, and is not blacklisted. A failure leaves the machine booting."""
    scenario, kept_out = played.scenario(), blacklisted()
    fitting = [*(["nouveau"] if scenario["nouveau"] else []), "nvidia"]
    for module in fitting:
        if scenario["gpus"] and module not in kept_out:
            subprocess.run(["/sbin/modprobe", module], check=False)


def boot() -> None:
    """Everything that is to be there before anything else starts."""
    played.RUN.mkdir(exist_ok=True)
    new_boot_id()
    cover(played.PCI, "pci")
    cover(played.LOADED, "modules")
    show()
    load_as_udev_does()


def show() -> None:
    """What the scenario says, now."""
    show_devices()
    show_kernels()


if __name__ == "__main__":
    {"boot": boot, "show": show}[sys.argv[1]]()
