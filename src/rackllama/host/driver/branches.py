"""NVIDIA's driver branches, and where each is to be had: data, each with its source.

Ends of life: NVIDIA, "Supported Drivers and CUDA Toolkit Versions", docs.nvidia.com/datacenter/tesla/drivers (its
edition of 580 says August 2028, that of 615 June 2028: the earlier one stands here). Boards that 570 does not drive:
awslabs/amazon-eks-ami, nvidia-open-supported-devices-570.txt beside -580.txt. Archives: the folders of NVIDIA's package
repository; NVIDIA/cuda-repo-management issue 38 tells that the one of Debian 13 begins with 590. Versions: the tags of
NVIDIA/open-gpu-kernel-modules, of which those stand here that have a pinning package. Keys: the fingerprints that
several public Dockerfiles and roles check; that of RHEL 10 was found nowhere.
"""

from dataclasses import dataclass
from datetime import date
from typing import Dict, Optional, Tuple

from ..errors import RackllamaError

DEFAULT_BRANCH = "580"
RUNFILE_VERSION = "570.86.10"  # as shipped with CUDA 12.8.0; artefacts.lock has the file
SINCE_580 = (0x2BB1, 0x2BB4, 0x2BB5, 0x3182, 0x31C2)  # RTX PRO 6000, B300, GB300
UPSTREAM = "https://developer.download.nvidia.com/compute/cuda/repos"
LIKE_RHEL = ("rhel", "rocky", "almalinux", "ol", "centos")
MACHINES = {"x86_64": "x86_64", "aarch64": "sbsa"}  # as NVIDIA names the folders; its arm64 and aarch64 are for Jetson


@dataclass(frozen=True)
class Branch:
    """A branch: the version that is installed by default, until when it is supported, the PCI ids that it lacks."""

    name: str
    version: str
    ends: date
    lacks: Tuple[int, ...] = ()


@dataclass(frozen=True)
class Archive:
    """One of NVIDIA's package archives: its folder, its key's file and fingerprint, who names its packages how."""

    folder: str
    naming: str
    key_file: str
    fingerprint: Optional[str]


BRANCHES: Dict[str, Branch] = {
    branch.name: branch
    for branch in (
        Branch("570", "570.211.01", date(2026, 2, 28), SINCE_580),
        Branch("580", "580.126.20", date(2028, 6, 30)),
    )
}
_KEY_OF_2022 = "EB693B3035CD5710E231E123A4B469963BF863CC"
ARCHIVES: Dict[Tuple[str, str], Archive] = {
    ("debian", "12"): Archive("debian12", "debian", "3bf863cc.pub", _KEY_OF_2022),
    ("ubuntu", "22.04"): Archive("ubuntu2204", "ubuntu", "3bf863cc.pub", _KEY_OF_2022),
    ("ubuntu", "24.04"): Archive("ubuntu2404", "ubuntu", "3bf863cc.pub", _KEY_OF_2022),
    ("rhel", "9"): Archive("rhel9", "rhel", "D42D0685.pub", "610C7B14E068A878070DA4E99CD0A493D42D0685"),
    ("rhel", "10"): Archive("rhel10", "rhel", "CDF6BA43.pub", None),
}


def branch(name: str) -> Branch:
    """The branch of that name. Raises RackllamaError where it is not one of those known here."""
    if name not in BRANCHES:
        raise RackllamaError(f"{name} is no branch that is known here", f"choose {' or '.join(BRANCHES)}")
    return BRANCHES[name]


def branch_of(version: str) -> str:
    """The name of the branch that a version belongs to: `580` of `580.126.20`."""
    return version.partition(".")[0]


def archive(distribution: str, version: str) -> Optional[Archive]:
    """NVIDIA's package archive for a distribution; None where none holds these branches."""
    if distribution in LIKE_RHEL:
        return ARCHIVES.get(("rhel", version.partition(".")[0]))
    return ARCHIVES.get((distribution, version))
