"""The files that mount the volume at each boot, as texts.

A mount unit of our own and no line in /etc/fstab: a file that is all ours is replaced in one step and taken away whole,
where fstab is also edited by people and images. `nofail` keeps it off the way of the boot, and what needs the models
asks for the mount by RequiresMountsFor.
"""

import string
from pathlib import Path
from typing import Dict, Optional

from ..files import MARK as WORDS
from ..files import json_text
from ..services.unit import UNITS
from .declaration import DECLARATION, WantedVolume

MARK = f"# {WORDS}\n"
READY_UNIT = "rackllama-volume.service"
DEVICE_SECONDS = 120  # from the start of the boot; the unit that makes it ready has its say before
RULES = Path("/etc/udev/rules.d/90-rackllama-volume.rules")
BY_LABEL = "/dev/disk/by-label"
UNESCAPED = frozenset(string.ascii_letters + string.digits + ":_.")


def escaped(path: str) -> str:
    """A path as systemd writes it in the name of a unit."""
    text = path.strip("/")
    letters = ("-" if letter == "/" else letter if letter in UNESCAPED else _hex(letter) for letter in text)
    name = "".join(letters)
    return _hex(".") + name[1:] if name.startswith(".") else name


def mount_unit(volume: WantedVolume) -> str:
    """The name of the unit that mounts it."""
    return f"{escaped(volume.mount_dir)}.mount"


def files(volume: WantedVolume, python: str) -> Dict[Path, Optional[str]]:
    """Each file that the volume needs, with its text; None for one that must not be there."""
    device = f"{escaped(f'{BY_LABEL}/{volume.label}')}.device.d"
    return {
        DECLARATION: json_text({**volume.as_data(), "python": python}),
        UNITS / mount_unit(volume): _mount(volume),
        UNITS / READY_UNIT: _ready(volume, python),
        UNITS / device / "90-rackllama.conf": f"{MARK}[Unit]\nJobRunningTimeoutSec={DEVICE_SECONDS}\n",
        RULES: _rules(volume) if volume.read_ahead_kib else None,
    }


def _mount(volume: WantedVolume) -> str:
    return _unit(
        "[Unit]",
        "Description=Models",
        f"Wants={READY_UNIT}",
        f"After={READY_UNIT}",
        "",
        "[Mount]",
        f"What={BY_LABEL}/{volume.label}",
        f"Where={volume.mount_dir}",
        f"Type={volume.filesystem}",
        "Options=noatime,nofail",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    )


def _ready(volume: WantedVolume, python: str) -> str:
    return _unit(
        "[Unit]",
        "Description=Make the volume for models ready to be mounted",
        f"Before={mount_unit(volume)}",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        f"ExecStart={python} -I /opt/rackllama/current/rackllama-host.pyz models-volume",
        "TimeoutStartSec=15min",
        "NoNewPrivileges=yes",
        "ProtectHome=yes",
        "RestrictAddressFamilies=AF_UNIX AF_NETLINK",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    )


def _rules(volume: WantedVolume) -> str:
    match = 'ACTION=="add|change", SUBSYSTEM=="block", ENV{ID_FS_USAGE}=="filesystem", '
    label = f'ENV{{ID_FS_LABEL}}=="{volume.label}", '
    return f'{MARK}{match}{label}ATTR{{queue/read_ahead_kb}}="{volume.read_ahead_kib}"\n'


def _unit(*lines: str) -> str:
    return MARK + "".join(f"{line}\n" for line in lines)


def _hex(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in letter.encode())
