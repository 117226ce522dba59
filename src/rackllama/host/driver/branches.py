"""NVIDIA's driver branches, and where each is to be had: data, each with its source.

Ends of life: NVIDIA, "Supported Drivers and CUDA Toolkit Versions", docs.nvidia.com/datacenter/tesla/drivers (its
edition of 580 says August 2028, that of 615 June 2028: the earlier one stands here). Boards that 570 does not drive:
awslabs/amazon-eks-ami, nvidia-open-supported-devices-570.txt beside -580.txt. Archives: the folders of NVIDIA's package
repository; NVIDIA/cuda-repo-management issue 38 tells that the one of Debian 13 begins with 590.
"""

from dataclasses import dataclass
from datetime import date
from typing import Dict, Optional, Tuple

DEFAULT_BRANCH = "580"
SINCE_580 = (0x2BB1, 0x2BB4, 0x2BB5, 0x3182, 0x31C2)  # RTX PRO 6000, B300, GB300
ARCHIVES = {
    ("debian", "12"): "debian12",
    ("ubuntu", "22.04"): "ubuntu2204",
    ("ubuntu", "24.04"): "ubuntu2404",
    ("rhel", "9"): "rhel9",
    ("rhel", "10"): "rhel10",
}
LIKE_RHEL = ("rhel", "rocky", "almalinux", "ol", "centos")
MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Branch:
    """A branch: until when it is supported, and the PCI ids of boards that came too late for it."""

    name: str
    ends: date
    lacks: Tuple[int, ...] = ()


BRANCHES: Dict[str, Branch] = {
    branch.name: branch for branch in (Branch("570", date(2026, 2, 28), SINCE_580), Branch("580", date(2028, 6, 30)))
}


def archive(distribution: str, version: str) -> Optional[str]:
    """The folder of NVIDIA's package archive for a distribution; None where none holds these branches."""
    if distribution in LIKE_RHEL:
        return ARCHIVES.get(("rhel", version.partition(".")[0]))
    return ARCHIVES.get((distribution, version))
