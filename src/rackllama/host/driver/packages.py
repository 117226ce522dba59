"""What NVIDIA's archives call the packages of a driver, and which of them a host is to have at which version. Pure.

Names: NVIDIA's driver installation guide (version locking, compute-only installation), NVIDIA/gpu-driver-container and
awslabs/amazon-eks-ami. They differ by distribution, and since branch 580 the companions have lost their suffix.
"""

import re
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..errors import RackllamaError
from .branches import branch_of

COLUMNS = ("name", "version", "source")
OPEN, PROPRIETARY = "open", "proprietary"
COMPANIONS_WITHOUT_SUFFIX = 580
DRIVER_NAME = re.compile(
    r"(lib|firmware-)?nvidia|cuda-drivers|kmod-nvidia|xserver-xorg-video-nvidia|xorg-x11-nvidia|libnvsdm"
    r"|libcuda(1|debugger1)$|libnv(cuvid|optix)|lib(egl|gl|gles|glx|vulkan)\S*nvidia"
)
PINNING = "nvidia-driver-pinning"
TOOLKIT = "nvidia-container-toolkit"
SUBNET_MANAGER = "nvlsm"  # of NVSwitches that the PCI bus does not show
FOLLOWING_HEADERS = re.compile(r"linux-headers-[a-z]|kernel-devel-matched")
# Named like the driver's, with versions of their own; some distributions have older settings for desktops.
APART = re.compile(r"(lib)?nvidia-container|nvidia-driver-pinning|nvidia-(cuda|gds|fs|settings|prime)")
DRIVER_VERSION = re.compile(r"(?:\d+:)?([3-9]\d\d\.\d+(?:\.\d+)?)(?=[-~+]|$)")


@dataclass(frozen=True)
class PackageChange:
    """What leads from the packages of a host to those of one version.

    `exact` is all that the host has in the end, by its version; of that `install` is what is missing or differs.
    `others` are wanted in whatever version there is.
    """

    exact: Mapping[str, str]
    install: Mapping[str, str] = field(default_factory=dict)
    remove: Tuple[str, ...] = ()
    others: Tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.install or self.remove or self.others)


def stands_beside(name: str) -> bool:
    """Whether a package goes with a driver and has a version of its own."""
    return name.startswith(PINNING) or name in (TOOLKIT, SUBNET_MANAGER) or bool(FOLLOWING_HEADERS.match(name))


def following_headers(name: str, newest_kernel: str) -> Optional[str]:
    """The package that brings each new kernel's headers, beside the package that brings the kernels; None of others.

    That of RHEL is asked for by the version of the newest kernel there is, as a newer one would bring its kernel along.
    """
    if name == "kernel-core":
        return f"kernel-devel-matched-{newest_kernel.rpartition('.')[0]}"
    return name.replace("image", "headers", 1) if re.match(r"linux-image-[a-z]", name) else None


def is_drivers(name: str) -> bool:
    """Whether a package moves with the driver."""
    return bool(DRIVER_NAME.match(name)) and not APART.match(name)


def driver_version(package_version: str) -> Optional[str]:
    """The driver's own version in that of a package: `580.126.20` of `3:580.126.20-1.el9`."""
    found = DRIVER_VERSION.match(package_version)
    return found[1] if found else None


def wanted_packages(naming: str, version: str, modules: str, fabric: bool, hidden_switches: bool) -> Tuple[str, ...]:
    """The names that are asked for, their dependencies apart: driver without desktop, and the fabric's companions."""
    branch = branch_of(version)
    tools: Tuple[str, ...] = ("nvidia-driver-cuda", "nvidia-persistenced")
    if naming == "ubuntu":
        tools = tuple(f"{name}-{branch}" for name in ("libnvidia-compute", "nvidia-utils", "nvidia-compute-utils"))
    companions = fabric_packages(naming, branch) if fabric else ()
    hidden = (_suffixed("libnvsdm", branch),) if hidden_switches else ()
    return (kernel_module_package(naming, branch, modules), *tools, "nvidia-modprobe", *companions, *hidden)


def kernel_module_package(naming: str, branch: str, modules: str) -> str:
    """The package from whose source the kernel modules are built."""
    if naming == "ubuntu":
        return f"nvidia-dkms-{branch}-open" if modules == OPEN else f"nvidia-dkms-{branch}"
    if naming == "debian":
        return "nvidia-kernel-open-dkms" if modules == OPEN else "nvidia-kernel-dkms"
    return "kmod-nvidia-open-dkms" if modules == OPEN else "kmod-nvidia-latest-dkms"


def fabric_packages(naming: str, branch: str) -> Tuple[str, ...]:
    """What NVSwitches need; it must have exactly the driver's version."""
    manager = "nvidia-fabricmanager"
    if naming == "rhel" and int(branch) < COMPANIONS_WITHOUT_SUFFIX:
        return ("nvidia-fabric-manager", _suffixed("libnvidia-nscq", branch))
    return (_suffixed(manager, branch), _suffixed("libnvidia-nscq", branch))


def pinning_package(version: str) -> str:
    """The package that pins a version, which not every version has."""
    return f"{PINNING}-{version}"


def package_change(
    version: str,
    wanted: Sequence[str],
    installed: Mapping[str, str],
    offered: Mapping[str, Sequence[str]],
    without: Sequence[str] = (),
) -> PackageChange:
    """What leads to `wanted` and all that is installed of the driver being of one version.

    `offered` are the versions that the archive has of each package. What is installed and not to be had in this version
    is removed, and so is whatever of it stands in `without`. Raises RackllamaError where the archive lacks one that is
    wanted.
    """
    names = [*wanted, *sorted(name for name in installed if name not in wanted and name not in without)]
    found = {name: _of_version(offered.get(name, ()), version) for name in names}
    for name in wanted:
        if found[name] is None:
            raise RackllamaError(f"the archive has no {name} of version {version}", _choice(offered.get(name, ())))
    exact = {name: told for name, told in found.items() if told}
    return PackageChange(
        exact,
        {name: told for name, told in exact.items() if installed.get(name) != told},
        tuple(name for name in installed if name not in exact),
    )


def parse_offered(table: str) -> Dict[str, List[str]]:
    """Versions by package, as they come, of `name | version | source` lines: `apt-cache madison` prints such."""
    found: Dict[str, List[str]] = {}
    for name, version, _ in (line.split("|") for line in table.splitlines() if line.count("|") == len(COLUMNS) - 1):
        found.setdefault(name.strip(), []).append(version.strip())
    return found


def all_of_version(offered: Mapping[str, Sequence[str]], version: str) -> Dict[str, str]:
    """All that the archives have of a version of the driver."""
    found = {name: _of_version(versions, version) for name, versions in offered.items() if is_drivers(name)}
    return {name: told for name, told in found.items() if told}


def _of_version(offered: Sequence[str], version: str) -> Optional[str]:
    """What the archive calls a version: revisions differ from package to package, and so does the epoch."""
    return next((told for told in offered if driver_version(told) == version), None)


def _choice(offered: Sequence[str]) -> str:
    versions = sorted({found for found in map(driver_version, offered) if found}, key=_order)
    if not versions:
        return "look at the archive: it has no version of it (nvidia_driver_archive_url)"
    return f"choose one that it has (nvidia_driver_version): {', '.join(versions)}"


def _order(version: str) -> List[int]:
    return [int(part) for part in version.split(".")]


def _suffixed(name: str, branch: str) -> str:
    return name if int(branch) >= COMPANIONS_WITHOUT_SUFFIX else f"{name}-{branch}"
