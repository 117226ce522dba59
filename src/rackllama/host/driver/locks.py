"""What keeps a driver's packages where they are, whoever upgrades the host: texts of files. Pure."""

import re
from pathlib import Path
from typing import Dict, Mapping

from ..files import MARK

PREFERENCES = Path("/etc/apt/preferences.d/rackllama-nvidia-driver")
UPGRADES = Path("/etc/apt/apt.conf.d/52rackllama-nvidia-driver")
VERSIONLOCK = Path("/etc/dnf/plugins/versionlock.list")
NOUVEAU = Path("/etc/modprobe.d/rackllama-nouveau.conf")

# Above 1000, so that apt goes down as well where what is installed is newer.
PRIORITY = 1001
NAMES = (
    *("nvidia-*", "libnvidia-*", "firmware-nvidia-*", "libcuda1", "libcudadebugger1", "libnv*"),
    *("lib*-nvidia*", "cuda-drivers*", "xserver-xorg-video-nvidia*"),
)
BEGIN, END = "# rackllama: the GPU driver", "# rackllama: end"
NOUVEAU_OFF = f"# {MARK}\nblacklist nouveau\noptions nouveau modeset=0\n"
NO_UNATTENDED_UPGRADES = f"""// {MARK}
// Regular expressions, matched at the beginning of a package's name. A driver that is upgraded under a running engine
// answers no more until the host is rebooted.
Unattended-Upgrade::Package-Blacklist {{
  "nvidia-";
  "libnvidia-";
  "firmware-nvidia-";
  "libcuda";
  "libnvsdm";
  "cuda-drivers";
  "xserver-xorg-video-nvidia";
}};
"""


def preferences(version: str) -> str:
    """Preferences of apt that want all of the driver in one version, and leave alone what has no such version."""
    return f"Explanation: {MARK}\nPackage: {' '.join(NAMES)}\nPin: version {version}-*\nPin-Priority: {PRIORITY}\n"


def versionlock(listed: str, version: str, exact: Mapping[str, str]) -> str:
    """The list of dnf's versionlock with ours in it, and what others have locked as it is.

    What is locked of the same version stays: packages that are not installed are not to come in another one.
    """
    ours = re.search(rf"{re.escape(BEGIN)}\n(.*?){re.escape(END)}\n", listed, flags=re.DOTALL)
    others = listed.replace(ours[0], "") if ours else listed
    kept = [line for line in ours[1].splitlines() if f":{version}-" in line] if ours else []
    wanted = {*kept, *(f"{name}-{_with_epoch(told)}.*" for name, told in exact.items())}
    return "\n".join([others.rstrip("\n"), BEGIN, *sorted(wanted), END, ""]).lstrip("\n") if wanted else others


def apt_files(version: str) -> Dict[Path, str]:
    """What apt is to find, beside NVIDIA's own pinning package as well: of that, priority 1000 does not go down."""
    return {UPGRADES: NO_UNATTENDED_UPGRADES, PREFERENCES: preferences(version)}


def _with_epoch(version: str) -> str:
    return version if ":" in version else f"0:{version}"
