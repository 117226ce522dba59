"""What a host looks like to whoever is to change its driver. It only looks: nothing is loaded, written or started."""

import platform
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from .. import systemd
from ..files import read_text
from ..hardware import machine, pci
from ..hardware.pci import PciDevice

SECURE_BOOT = Path("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
RUNFILE_UNINSTALLER = Path("/usr/bin/nvidia-uninstall")
SIGNING_KEYS = (
    Path("/var/lib/shim-signed/mok/MOK.der"),
    Path("/var/lib/dkms/mok.pub"),
)  # Ubuntu's, others'
RETIRED_KEY = "7fa2af80"  # signed NVIDIA's archives until 2022
NVIDIA_ARCHIVE = "developer.download.nvidia.com"
OF_THE_DRIVER = re.compile(r"^(lib)?nvidia|^cuda-drivers|^kmod-nvidia|^xserver-xorg-video-nvidia|^libnvsdm")
ROOMS = ("/boot", "/usr", "/var")
UPGRADES = ("apt-daily-upgrade.service", "dnf-automatic-install.service", "unattended-upgrades-run.service")


@dataclass(frozen=True)
class HostState:
    """A host as it is: see `read_state` for where each comes from. What cannot be told is None; room is in MiB."""

    distribution: str
    version: str
    machine: str
    in_container: bool
    gpus: Tuple[PciDevice, ...]
    kernel: str
    installed_kernels: Tuple[str, ...] = ()
    with_headers: Tuple[str, ...] = ()
    compiler: Optional[str] = "cc"
    secure_boot: Optional[bool] = None
    signing_key_enrolled: Optional[bool] = None
    nouveau_loaded: bool = False
    loaded_version: Optional[str] = None
    module_version: Optional[str] = None
    installed_by_runfile: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    held: Tuple[str, ...] = ()
    users: Tuple[str, ...] = ()
    room_mib: Mapping[str, int] = field(default_factory=dict)
    packages_interrupted: bool = False
    upgrades_running: Tuple[str, ...] = ()
    sources: Tuple[str, ...] = ()
    trusts_retired_key: bool = False

    @property
    def newest_kernel(self) -> str:
        """The kernel that the next boot starts, as boot loaders order them."""
        return max(self.installed_kernels, key=kernel_order, default=self.kernel)


def kernel_order(release: str) -> List[Tuple[int, str]]:
    """Orders releases of kernels: numbers as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|[a-z]+", release)]


def read_state() -> HostState:
    """Look at this host."""
    told = os_release(read_text(Path("/etc/os-release")) or "")
    kernels = installed_kernels()
    return HostState(
        distribution=told.get("ID", ""),
        version=told.get("VERSION_ID", ""),
        machine=platform.machine(),
        in_container=machine.ask("systemd-detect-virt", "--container") is not None,
        gpus=tuple(pci.gpus(pci.read_devices())),
        kernel=platform.release(),
        installed_kernels=kernels,
        with_headers=tuple(kernel for kernel in {*kernels, platform.release()} if has_headers(kernel)),
        compiler=shutil.which("cc") or shutil.which("gcc"),
        secure_boot=secure_boot(SECURE_BOOT),
        signing_key_enrolled=_signing_key_enrolled(),
        nouveau_loaded=Path("/sys/module/nouveau").exists(),
        loaded_version=(read_text(Path("/sys/module/nvidia/version")) or "").strip() or None,
        module_version=(machine.ask("modinfo", "--field", "version", "nvidia") or "").strip() or None,
        installed_by_runfile=RUNFILE_UNINSTALLER.exists() and not _has_owner(RUNFILE_UNINSTALLER),
        packages=driver_packages(_package_list()),
        held=held_packages(machine.ask("apt-mark", "showhold") or machine.ask("dnf", "versionlock", "list") or ""),
        users=device_users(),
        room_mib={path: shutil.disk_usage(path).free >> 20 for path in ROOMS if Path(path).is_dir()},
        packages_interrupted=any(Path("/var/lib/dpkg/updates").glob("[0-9]*")),
        upgrades_running=tuple(unit for unit in UPGRADES if _is_working(unit)),
        sources=package_sources(Path("/etc")),
        trusts_retired_key=any(RETIRED_KEY in path.name.lower() for path in Path("/etc").glob("apt/trusted.gpg.d/*")),
    )


def os_release(text: str) -> Dict[str, str]:
    """The pairs of /etc/os-release."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: value.strip("\"'") for name, _, value in pairs}


def installed_kernels(root: Path = Path("/")) -> Tuple[str, ...]:
    """The kernels that the host may boot: those with modules and an image."""
    modules = root / "lib/modules"
    names = sorted(folder.name for folder in modules.iterdir()) if modules.is_dir() else []
    return tuple(
        name for name in names if (root / f"boot/vmlinuz-{name}").exists() or (modules / name / "vmlinuz").exists()
    )


def has_headers(kernel: str, root: Path = Path("/")) -> bool:
    """Whether a module can be built for a kernel: the link to its headers leads somewhere."""
    return (root / "lib/modules" / kernel / "build/Makefile").exists()


def secure_boot(variable: Path) -> Optional[bool]:
    """Whether the firmware boots signed kernels only; None where it has no such thing.

    The variable holds four bytes of attributes and then its value.
    """
    try:
        return variable.read_bytes()[4:5] == b"\x01"
    except OSError:
        return None


def driver_packages(listed: str) -> Dict[str, str]:
    """Installed packages of the driver by their versions, from lines of a name, a version and, of dpkg, a status."""
    rows = (line.split() for line in listed.splitlines() if " " in line)
    return {name: version for name, version, *status in rows if OF_THE_DRIVER.match(name) and status in ([], ["ii"])}


def held_packages(listed: str) -> Tuple[str, ...]:
    """Packages of the driver that somebody keeps where they are."""
    return tuple(sorted(line.strip() for line in listed.splitlines() if OF_THE_DRIVER.match(line.strip())))


def device_users(proc: Path = Path("/proc")) -> Tuple[str, ...]:
    """Processes that have a GPU open, as `ollama (812)`."""
    found = {}
    for folder in proc.glob("[0-9]*/fd"):
        try:
            open_files = [str(link.readlink()) for link in folder.iterdir()]
        except OSError:
            continue  # it has ended meanwhile
        if any(re.match(r"/dev/nvidia(\d|-uvm$)", path) for path in open_files):
            name = (read_text(folder.parent / "comm") or "?").strip()
            found[int(folder.parent.name)] = f"{name} ({folder.parent.name})"
    return tuple(found[pid] for pid in sorted(found))


def package_sources(etc: Path) -> Tuple[str, ...]:
    """Files that name NVIDIA's archive as a source of packages."""
    files = [*etc.glob("apt/sources.list"), *etc.glob("apt/sources.list.d/*"), *etc.glob("yum.repos.d/*.repo")]
    return tuple(sorted(str(path) for path in files if path.is_file() and NVIDIA_ARCHIVE in (read_text(path) or "")))


def _is_working(unit: str) -> bool:
    state = machine.ask("systemctl", "show", unit, "--property", "ActiveState", "--value") or ""
    return state.strip() == "activating"


def _package_list() -> str:
    return (
        machine.ask("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Abbrev}\n")
        or machine.ask("rpm", "--query", "--all", "--queryformat", "%{NAME} %{EVR}\n")
        or ""
    )


def _has_owner(path: Path) -> bool:
    return any(machine.ask(*question, str(path)) for question in (("dpkg", "--search"), ("rpm", "--query", "--file")))


def _signing_key_enrolled() -> Optional[bool]:
    key = next((path for path in SIGNING_KEYS if path.exists()), None)
    if key is None or not shutil.which("mokutil"):
        return None
    return "is already enrolled" in systemd.run("mokutil", "--test-key", str(key), check=False).stdout
