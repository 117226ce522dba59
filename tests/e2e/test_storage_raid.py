"""RAID 0 on a real md, with udev and boots: in a virtual machine without acceleration, as containers have neither.

Its root file system is a Debian 12 made by mmdebstrap, its disks are NVMe ones of QEMU. Each boot runs one script,
which comes on a disk of its own, and what that says is read from the serial console.
"""

import json
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rackllama.lab.image import machine_recipe, mmdebstrap_argv
from rackllama.lab.machine import LAB_PACKAGES, as_root, ensure_packages, run
from rackllama.landing.program import host_program

pytestmark = pytest.mark.slow

PACKAGES = ("linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "dbus", "kmod", "python3")
PACKAGES += ("mdadm", "xfsprogs", "e2fsprogs", "ca-certificates")
ROOT_BYTES, DISK_BYTES, SCRIPT_BYTES = 2 << 30, 400 << 20, 1 << 20
BOOT_SECONDS = 600
PROGRAM = "/opt/rackllama/current/rackllama-host.pyz"
SCRIPT_UNIT = """[Unit]
Description=The script of this boot
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
ExecStart=/bin/sh -c 'tr -d "\\\\0" </dev/vdb | sh; systemctl poweroff'
[Install]
WantedBy=multi-user.target
"""
ENGINE_UNIT = """[Unit]
RequiresMountsFor=/srv/models/ollama
[Service]
User=ollama
ExecStart=/bin/sleep infinity
WorkingDirectory=/srv/models/ollama
ReadWritePaths=/srv/models/ollama
ProtectSystem=strict
[Install]
WantedBy=multi-user.target
"""
MODELS = "/srv/models/ollama"
DISKS = [f"/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_S{number}" for number in (1, 2)]
WANTED = {
    "disks": DISKS,
    "mount_dir": "/srv/models",
    "filesystem": "xfs",
    "label": "rackllama",
    "read_ahead_kib": 2048,
    "rebuilt_at_boot": True,
    "directories": [{"path": "/srv/models/ollama", "owner": "ollama"}],
}
# What the module does, without Ansible.
CHANGE = f"""python3 - <<'END'
import json, sys
sys.path.insert(0, "{PROGRAM}")
from rackllama_host.storage import declaration, volume
change = volume.change(declaration.wanted_volume(json.loads('''{json.dumps(WANTED)}''')), "/usr/bin/python3")
print(json.dumps(change.words))
change.carry_out()
END
"""
SWAP = f"""python3 - <<'END'
import sys
sys.path.insert(0, "{PROGRAM}")
from rackllama_host.storage import swap
for gib in (0.0625, 0.0625, 0.125):
    change = swap.change(gib, "/var/lib/rackllama/swapfile")
    print(change.steps)
    change.carry_out()
END
"""
AT_WORK = "systemctl list-jobs --no-legend | grep -qE 'srv-models|rackllama|engine|by.*label'"
SETTLED = f"while {AT_WORK}; do sleep 1; done"
STATE = {
    "units": "systemctl is-active rackllama-volume.service srv-models.mount engine.service",
    "mount": "findmnt --noheadings --output SOURCE,FSTYPE,LABEL /srv/models",
    "files": "find /srv/models | sort",
    "read_ahead": "blockdev --getra $(findmnt --noheadings --output SOURCE /srv/models)",
    "swap": "tail -n +2 /proc/swaps",
    "array": f"mdadm --examine --export {DISKS[0]}",
    "lsblk": "lsblk --output NAME,PATH,TYPE,SIZE,MODEL,SERIAL,LABEL,MOUNTPOINT",
    "journal": "journalctl -b -u rackllama-volume -u srv-models.mount --output cat --no-pager",
}


@dataclass(frozen=True)
class Machine:
    """A virtual machine that is booted again and again, with disks that come and go."""

    folder: Path

    def boot(self, disks: tuple[int, ...] = (1, 2), **parts: str) -> dict[str, str]:
        """Boot with these disks, run the parts of a script and those of STATE, and tell what each said."""
        asked = {**parts, **STATE}
        script = f"{SETTLED}\n" + "".join(
            f"echo '<<<{name}'; {{ {part}\n}} 2>&1; echo '>>>'\n" for name, part in asked.items()
        )
        (self.folder / "script").write_bytes(script.encode().ljust(SCRIPT_BYTES, b"\0"))
        results = self.folder / "results"
        drives = [f"file={self.folder / name},format=raw,if=virtio" for name in ("root.img", "script")]
        drives += [f"file={self.disk(number)},format=raw,if=none,id=d{number}" for number in disks]
        devices = [f"nvme,serial=S{number},drive=d{number}" for number in disks]
        argv = [
            *[
                "qemu-system-x86_64",
                "-M",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                "1024",
                "-no-reboot",
                "-net",
                "none",
            ],
            *("-display", "none", "-monitor", "none"),
            *("-serial", f"file:{self.folder / 'console'}", "-serial", f"file:{results}"),
            *("-kernel", str(self.folder / "vmlinuz"), "-initrd", str(self.folder / "initrd")),
            *("-append", "console=ttyS0 root=/dev/vda rw quiet systemd.show_status=0 loglevel=3"),
            *(part for drive in drives for part in ("-drive", drive)),
            *(part for device in devices for part in ("-device", device)),
        ]
        subprocess.run(argv, check=True, timeout=BOOT_SECONDS, capture_output=True)
        said = results.read_text(errors="replace").replace("\r", "")
        pieces = (piece.split("\n>>>", 1)[0].split("\n", 1) for piece in said.split("<<<")[1:])
        return {piece[0]: piece[1].strip() if len(piece) > 1 else "" for piece in pieces}

    def disk(self, number: int) -> Path:
        """The file behind a disk."""
        return self.folder / f"disk{number}"

    def blank(self, number: int) -> None:
        """Make a disk new."""
        self.disk(number).unlink(missing_ok=True)
        with self.disk(number).open("wb") as file:
            file.truncate(DISK_BYTES)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that was never booted, with two blank disks."""
    ensure_packages([*LAB_PACKAGES, "qemu-system-x86", "e2fsprogs"])
    folder = tmp_path_factory.mktemp("machine")
    try:
        _make_root(folder)
        made = Machine(folder)
        for number in (1, 2):
            made.blank(number)
        yield made
    finally:
        run(as_root(["rm", "-rf", "--one-file-system", str(folder)]))


def _make_root(folder: Path) -> None:
    recipe, tree, root = machine_recipe("bookworm"), folder / "tree", folder / "root"
    apt = {path: text for path, text in recipe.files.items() if path.startswith(("/etc/apt", "/usr/local/share"))}
    unit = "/etc/systemd/system"
    files = {
        **apt,
        f"{unit}/script.service": SCRIPT_UNIT,
        f"{unit}/engine.service": ENGINE_UNIT,
        "/etc/hostname": "gpu1\n",
    }
    for path, text in files.items():
        (tree / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tree / path[1:]).write_text(text)
    release: Any = host_program()
    (folder / "program.tar").write_bytes(b64decode(release["content"]))
    hooks = (
        'chroot "$1" useradd --system ollama',
        'chroot "$1" systemctl -q mask serial-getty@ttyS0.service',
        'chroot "$1" systemctl -q enable script.service engine.service',
        f'mkdir -p "$1/opt/rackllama/current" && tar -xf {folder}/program.tar -C "$1/opt/rackllama/current"',
    )
    run(as_root(["chmod", "-R", "u=rwX,go=rX", str(tree)]))
    sources = folder / "sources.list"
    sources.write_text("".join(f"{line}\n" for line in recipe.sources), encoding="ascii")
    made = replace(recipe, packages=PACKAGES, hooks=hooks)
    run(as_root(mmdebstrap_argv(made, tree, root, sources)), what="making the machine's root")
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        shutil.copy(next((root / "boot").glob(pattern)), folder / name)
    run(as_root(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(folder / "root.img"), str(ROOT_BYTES >> 10)]))


def test_two_disks_become_a_raid_0_that_outlives_boots_and_comes_back_where_it_was_wiped(machine: Machine) -> None:
    made = machine.boot(
        swapped=SWAP, first=CHANGE, second=CHANGE, keep=f"install -d -o ollama {MODELS}; touch {MODELS}/kept"
    )
    booted = machine.boot(third=CHANGE)
    without = machine.boot(disks=(1,))
    again = machine.boot()
    for number in (1, 2):
        machine.blank(number)
    wiped = machine.boot(fourth=CHANGE)

    assert made["swapped"].split("\n") == ["['make', 'use']", "[]", "['drop', 'make', 'use']"], made
    assert "make the RAID 0 rackllama-raid0 of" in made["first"], made
    assert made["second"] == "[]", made
    assert made["mount"].split()[1:] == ["xfs", "rackllama"], made
    assert "MD_DEVICES=2" in made["array"], made

    assert booted["third"] == "[]", booted
    assert booted["units"].split() == ["active", "active", "active"], booted
    assert booted["swap"].split()[:2] == ["/var/lib/rackllama/swapfile", "file"], booted
    assert booted["read_ahead"] == "4096", booted
    assert f"{MODELS}/kept" in booted["files"], booted

    assert without["units"].split() == ["failed", "inactive", "inactive"], without
    assert without["files"] == "/srv/models", without
    assert f"{DISKS[1]} is not there" in without["journal"], without

    assert f"{MODELS}/kept" in again["files"], again

    assert "make the RAID 0 rackllama-raid0 of" in wiped["journal"], wiped
    assert wiped["units"].split() == ["active", "active", "active"], wiped
    assert wiped["fourth"] == "[]", wiped
    assert wiped["files"].split() == ["/srv/models", MODELS], wiped
