"""What a host looks like to whoever is to change its driver. It only looks: nothing is loaded, written or started."""

import platform
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from .. import systemd
from ..files import read_json, read_text
from ..hardware import machine, pci
from ..hardware.boards import HIDDEN_SWITCHES
from ..hardware.pci import PciDevice
from ..services.unit import SERVICES
from . import kernel_module
from .packages import driver_version, following_headers, is_drivers, parse_offered, stands_beside

SECURE_BOOT = Path("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
RUNFILE_UNINSTALLER = Path("/usr/bin/nvidia-uninstall")
SIGNING_KEYS = (
    Path("/var/lib/shim-signed/mok/MOK.der"),
    Path("/var/lib/dkms/mok.pub"),
)  # Ubuntu's, others'
RETIRED_KEY = "7fa2af80"  # signed NVIDIA's archives until 2022
NVIDIA_ARCHIVE = "developer.download.nvidia.com"
INSTALLED = ("i", "F", "U", "H", "W", "T", "t")  # dpkg: installed, or begun and not ended
# apt would write its caches anew where they are old.
NO_CACHE_FILES = ("-o", "Dir::Cache::PkgCache=", "-o", "Dir::Cache::SrcPkgCache=")
RPM_NAME = "%{name}-%{version}-%{release}.%{arch}"
HALF_DONE = ("U", "F", "H")
DEBIAN_AND_ITS_KIN = ("debian", "ubuntu")
ROOMS = ("/boot", "/usr", "/var")
RECORD = Path("/etc/rackllama/driver.json")
UNDER_WAY = Path("/var/lib/rackllama/driver/under-way")  # there while packages are changed
OF_THE_DRIVER_ITSELF = ("nvidia-persistenced", "nvidia-fabricmanager", "nvidia-dcgm", "nvidia-powerd")
UPGRADES = ("apt-daily-upgrade.service", "dnf-automatic-install.service", "unattended-upgrades-run.service")


@dataclass(frozen=True)
class GpuUser:
    """A process that has a GPU open. `is_ours` where a service that rackllama or the driver brings runs it."""

    name: str
    pid: int
    unit: str = ""
    is_ours: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.pid})"


@dataclass(frozen=True)
class HostState:
    """A host as it is: see `read_state` for where each comes from. What cannot be told is None; room is in MiB.

    `obtainable` are what the host's archives have of the packages that building modules needs. `following_headers`
    are the packages that bring those of each new kernel. `packages` are
    those that move with the driver, by version, and `beside` those that go with it; `is_ours` where rackllama has
    installed them, and `was_cut_off` where it was stopped in the middle of that. `held` are held by others.
    """

    distribution: str
    version: str
    machine: str
    in_container: bool
    gpus: Tuple[PciDevice, ...]
    kernel: str
    has_fabric: bool = False
    installed_kernels: Tuple[str, ...] = ()
    with_headers: Tuple[str, ...] = ()
    compiler: Optional[str] = "cc"
    has_dkms: bool = True
    obtainable: Tuple[str, ...] = ()
    following_headers: Tuple[str, ...] = ()
    secure_boot: Optional[bool] = None
    signing_key_enrolled: Optional[bool] = None
    nouveau_loaded: bool = False
    loaded_version: Optional[str] = None
    module_versions: Mapping[str, Optional[str]] = field(default_factory=dict)
    installed_by_runfile: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    beside: Tuple[str, ...] = ()
    is_ours: bool = False
    held: Tuple[str, ...] = ()
    held_by_us: Tuple[str, ...] = ()
    users: Tuple[GpuUser, ...] = ()
    room_mib: Mapping[str, int] = field(default_factory=dict)
    packages_interrupted: bool = False
    was_cut_off: bool = False
    upgrades_running: Tuple[str, ...] = ()
    sources: Tuple[str, ...] = ()
    trusts_retired_key: bool = False

    @property
    def newest_kernel(self) -> str:
        """The kernel that the next boot starts, as boot loaders order them."""
        return max(self.installed_kernels, key=kernel_order, default=self.kernel)

    @property
    def our_users(self) -> Tuple[str, ...]:
        """The units of ours that have a GPU open."""
        return tuple(sorted({user.unit for user in self.users if user.is_ours}))

    @property
    def naming(self) -> str:
        """Whose package manager it has: `debian` or `rhel`."""
        return "debian" if self.distribution in DEBIAN_AND_ITS_KIN else "rhel"

    @property
    def has_hidden_switches(self) -> bool:
        """Whether it has NVSwitches that the PCI bus does not show."""
        return any(gpu.device in HIDDEN_SWITCHES for gpu in self.gpus)

    @property
    def kernels(self) -> Tuple[str, ...]:
        """The kernels that need a module: the running one and the next boot's."""
        return tuple(dict.fromkeys((self.kernel, self.newest_kernel)))

    @property
    def module_version(self) -> Optional[str]:
        """The version of the module that the running kernel would load."""
        return self.module_versions.get(self.kernel)

    def has_driver(self, version: str) -> bool:
        """Whether the driver of this version runs, and will after a boot, and nothing is there of another version."""
        modules = [self.module_versions.get(kernel) for kernel in self.kernels]
        others = {driver_version(told) for told in self.packages.values()} - {version}
        return self.loaded_version == version and set(modules) == {version} and not others


def kernel_order(release: str) -> List[Tuple[int, str]]:
    """Orders releases of kernels: numbers as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|[a-z]+", release)]


def read_state() -> HostState:
    """Look at this host."""
    told = os_release(read_text(Path("/etc/os-release")) or "")
    kernels = installed_kernels()
    lacking = [kernel for kernel in {*kernels, platform.release()} if not has_headers(kernel)]
    distribution, record, devices = told.get("ID", ""), read_json(RECORD), pci.read_devices()
    held, ours = held_now(), (record or {}).get("held", ())
    headers = [headers_package(distribution, kernel) for kernel in lacking]
    newest = max(kernels, key=kernel_order, default=platform.release())
    listed = _package_list()
    following = tuple(filter(None, (following_headers(name, newest) for name in _installed(listed))))
    return HostState(
        distribution=distribution,
        version=told.get("VERSION_ID", ""),
        machine=platform.machine(),
        in_container=machine.ask("systemd-detect-virt", "--container") is not None,
        gpus=tuple(pci.gpus(devices)),
        has_fabric=pci.has_nvswitch(devices),
        kernel=platform.release(),
        installed_kernels=kernels,
        with_headers=tuple(kernel for kernel in {*kernels, platform.release()} if has_headers(kernel)),
        compiler=shutil.which("cc") or shutil.which("gcc"),
        has_dkms=shutil.which("dkms") is not None,
        obtainable=_obtainable(["dkms", "gcc", *headers, *following]),
        secure_boot=secure_boot(SECURE_BOOT),
        signing_key_enrolled=_signing_key_enrolled(),
        nouveau_loaded=Path("/sys/module/nouveau").exists(),
        loaded_version=(read_text(Path("/sys/module/nvidia/version")) or "").strip() or None,
        module_versions={kernel: kernel_module.module_version(kernel) for kernel in {*kernels, platform.release()}},
        installed_by_runfile=RUNFILE_UNINSTALLER.exists() and not _has_owner(RUNFILE_UNINSTALLER),
        following_headers=following,
        packages=driver_packages(listed),
        beside=packages_beside(listed),
        is_ours=record is not None,
        held=tuple(name for name in held if name not in ours),
        held_by_us=tuple(name for name in held if name in ours),
        users=device_users(services=[path.stem for path in SERVICES.glob("*.json")]),
        room_mib={path: shutil.disk_usage(path).free >> 20 for path in ROOMS if Path(path).is_dir()},
        packages_interrupted=any(Path("/var/lib/dpkg/updates").glob("[0-9]*")) or _is_half_done(listed),
        was_cut_off=UNDER_WAY.exists(),
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


def held_now() -> Tuple[str, ...]:
    """The packages of the driver that are held, by whomever."""
    return held_packages(machine.ask("apt-mark", *NO_CACHE_FILES, "showhold") or "")


def headers_package(distribution: str, kernel: str) -> str:
    """The package with the headers of a kernel."""
    return f"linux-headers-{kernel}" if distribution in DEBIAN_AND_ITS_KIN else f"kernel-devel-{kernel}"


def installed_packages() -> Dict[str, str]:
    """The packages of the driver that this host has, by their versions."""
    return driver_packages(_package_list())


def installed_beside() -> Tuple[str, ...]:
    """The packages that go with a driver and do not move with it."""
    return packages_beside(_package_list())


def packages_beside(listed: str) -> Tuple[str, ...]:
    """Those of the list of all packages that go with a driver and do not move with it."""
    return tuple(name for name in _installed(listed) if stands_beside(name))


def driver_packages(listed: str) -> Dict[str, str]:
    """Installed packages that move with the driver, by their versions, from the list of all packages."""
    return {
        name: version for name, version in _installed(listed).items() if is_drivers(name) and driver_version(version)
    }


def _installed(listed: str) -> Dict[str, str]:
    """Installed packages by version, from lines of a name, a version and, of dpkg, a status such as `ii`."""
    rows = (line.split() for line in listed.splitlines() if " " in line)
    return {name: version for name, version, *status in rows if not status or status[0][1:2] in INSTALLED}


def _is_half_done(listed: str) -> bool:
    """Whether dpkg has begun a package of the driver and not ended it."""
    rows = (line.split() for line in listed.splitlines() if " " in line)
    return any(is_drivers(name) and status[0][1:2] in HALF_DONE for name, _, *status in rows if status)


def held_packages(listed: str) -> Tuple[str, ...]:
    """Packages of the driver that are kept where they are."""
    return tuple(sorted(line.strip() for line in listed.splitlines() if is_drivers(line.strip())))


def device_users(proc: Path = Path("/proc"), services: Sequence[str] = ()) -> Tuple[GpuUser, ...]:
    """Processes that have a GPU open; those of `services`, and of the driver's own, are ours."""
    found = []
    for folder in proc.glob("[0-9]*/fd"):
        try:
            open_files = [str(link.readlink()) for link in folder.iterdir()]
        except OSError:
            continue  # it has ended meanwhile
        if any(re.match(r"/dev/nvidia(\d|-uvm$)", path) for path in open_files):
            name = (read_text(folder.parent / "comm") or "?").strip()
            unit = _unit(read_text(folder.parent / "cgroup") or "")
            ours = unit.partition(".service")[0] in (*services, *OF_THE_DRIVER_ITSELF)
            found.append(GpuUser(name, int(folder.parent.name), unit, ours))
    return tuple(sorted(found, key=lambda user: user.pid))


def _unit(cgroup: str) -> str:
    """The service that a process belongs to, from its /proc/PID/cgroup; empty where none."""
    found = re.search(r"/([^/\n]+\.service)(/|$)", cgroup, re.MULTILINE)
    return found[1] if found else ""


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


def _obtainable(names: Sequence[str]) -> Tuple[str, ...]:
    """Those of these packages that the host's archives have, as far as it knows without asking them."""
    if shutil.which("apt-cache"):
        listed = machine.ask("apt-cache", *NO_CACHE_FILES, "madison", *names) or ""
        return tuple(sorted(parse_offered(listed)))
    listed = (
        machine.ask(
            "dnf",
            "--cacheonly",
            "--quiet",
            "repoquery",
            "--queryformat",
            "%{name}-%{version}-%{release}.%{arch} %{name}\n",
            *names,
        )
        or ""
    )
    return tuple(sorted({word for word in listed.split() if word in names}))


def _has_owner(path: Path) -> bool:
    return any(machine.ask(*question, str(path)) for question in (("dpkg", "--search"), ("rpm", "--query", "--file")))


def _signing_key_enrolled() -> Optional[bool]:
    key = next((path for path in SIGNING_KEYS if path.exists()), None)
    if key is None or not shutil.which("mokutil"):
        return None
    return "is already enrolled" in systemd.run("mokutil", "--test-key", str(key), check=False).stdout
