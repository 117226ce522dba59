"""What must be true before a host's driver is changed: what strands hosts is looked at before anything is done."""

import re
from datetime import date
from typing import Callable, List, Mapping, Optional, Sequence

from ..hardware.boards import Board, board
from ..hardware.pci import PciDevice
from ..report import Check
from .branches import BRANCHES, MACHINES, Branch, archive
from .packages import driver_version
from .state import GpuUser, HostState, headers_package
from .wanted import RUNFILE, WantedDriver, is_needed, kernel_modules

NEEDED_MIB = {"/boot": 200, "/usr": 4096, "/var": 2048}
TO_COME = "comes from the host's archives"
IF_UNKNOWN = "where the host knows no archives yet: apt-get update, or dnf makecache"
# Versions of distributions' own packages: Debian's …~deb12u1, Ubuntu's …0ubuntu0.24.04.1.
OF_DEBIAN = ("nvidia-smi", "nvidia-alternative", "nvidia-open-kernel-dkms", "nvidia-open-kernel-support")
OF_DISTRIBUTION = re.compile(r"~?deb\d+u\d|ubuntu0\.\d\d\.\d\d")


def checks(state: HostState, wanted: WantedDriver, today: date) -> List[Check]:
    """All checks of a host whose driver is to be changed; of another one, why not. Pure. Raises as `is_needed`."""
    if not state.gpus:
        return [Check("gpus", True, "any", "none on the PCI bus: there is nothing to install")]
    if not is_needed(state, wanted):
        return [_gpus(state), Check("driver", True, wanted.exact_version, f"{wanted.exact_version} runs: it stays")]
    looks: Sequence[Callable[[HostState, WantedDriver], Check]] = (
        _kernel_of_its_own,
        _machine,
        _archive,
        _boards,
        _generations,
        _modules,
        _passthrough,
        _compiler,
        _dkms,
        _headers_of_running_kernel,
        _headers_of_newest_kernel,
        _secure_boot,
        _nouveau,
        _other_source,
        _fabric_manager,
        _distribution_packages,
        _one_version,
        _loaded_version,
        _held,
        _interrupted,
        _upgrades,
        _sources,
        _retired_key,
        _users,
    )
    rooms = [_room(path, needed, state.room_mib) for path, needed in NEEDED_MIB.items() if path in state.room_mib]
    return [_gpus(state), _branch(wanted.of, today), *(look(state, wanted) for look in looks), *rooms]


def _gpus(state: HostState) -> Check:
    names = [
        found.name if found else f"10de:{gpu.device:04x}" for gpu, found in zip(state.gpus, map(_board, state.gpus))
    ]
    counted = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return Check("gpus", True, "any", counted)


def _branch(branch: Branch, today: date) -> Check:
    """Told, and no more: one that has ended can be chosen."""
    ended = " is mended no more since" if today > branch.ends else " is mended until"
    return Check("branch", True, "any", f"{branch.name}{ended} {branch.ends.isoformat()}")


def _kernel_of_its_own(state: HostState, _: WantedDriver) -> Check:
    found = "a container" if state.in_container else "a host or a virtual machine"
    return Check(
        "kernel", not state.in_container, "a kernel of its own", found, "install the driver on the container's host"
    )


def _machine(state: HostState, _: WantedDriver) -> Check:
    remedy = "NVIDIA has a driver for x86_64 and aarch64 only"
    return Check("machine", state.machine in MACHINES, " or ".join(MACHINES), state.machine, remedy)


def _archive(state: HostState, wanted: WantedDriver) -> Check:
    there = archive(state.distribution, state.version)
    found = there.folder if there else None
    return Check(
        "archive",
        wanted.source == RUNFILE or found is not None,
        f"a package archive of NVIDIA's that holds {wanted.branch}",
        found or f"none for {state.distribution} {state.version}",
        "install from the runfile (nvidia_driver_source: runfile), or use another distribution",
    )


def _boards(state: HostState, wanted: WantedDriver) -> Check:
    unknown = sorted({_name(gpu) for gpu in state.gpus if not _board(gpu)})
    return Check(
        "boards",
        not unknown or wanted.modules is not None,
        "GPUs whose generation is known",
        f"{', '.join(unknown)} unknown" if unknown else "all known",
        "say which kernel modules they need: nvidia_driver_kernel_modules: open or proprietary",
    )


def _generations(state: HostState, wanted: WantedDriver) -> Check:
    late = sorted(
        {found.name for gpu in state.gpus if gpu.device in wanted.of.lacks for found in [_board(gpu)] if found}
    )
    newer = next(
        (branch.name for branch in BRANCHES.values() if int(branch.name) > int(wanted.of.name)), "a newer branch"
    )
    found = f"{', '.join(late)}, which came after it" if late else "all driven by it"
    return Check("generations", not late, f"GPUs that {wanted.of.name} drives", found, f"choose {newer}")


def _modules(state: HostState, wanted: WantedDriver) -> Check:
    fitting, known = kernel_modules(state.gpus), [found for found in map(_board, state.gpus) if found]
    chosen = wanted.modules or fitting
    good = all(chosen in found.kernel_modules for found in known)  # what is unknown has a check of its own
    generations = ", ".join(sorted({found.generation for found in known})) or "unknown generations"
    return Check(
        "kernel modules",
        good,
        "one kind that drives all GPUs",
        f"{chosen or 'none'} for {generations}",
        f"leave nvidia_driver_kernel_modules out, for the {fitting} ones"
        if fitting
        else "Blackwell and what is older than Turing cannot be driven in one host: take one of them out",
    )


def _passthrough(state: HostState, _: WantedDriver) -> Check:
    taken = [gpu.address for gpu in state.gpus if gpu.driver == "vfio-pci"]
    return Check(
        "passthrough",
        not taken,
        "GPUs that are this host's",
        f"{', '.join(taken)} kept for virtual machines" if taken else "none is kept for virtual machines",
        "take vfio-pci off them (/etc/modprobe.d, the kernel's command line), or install in the machine they go to",
    )


def _compiler(state: HostState, _: WantedDriver) -> Check:
    found = state.compiler or (TO_COME if "gcc" in state.obtainable else "none")
    return Check("compiler", found != "none", "a C compiler for the modules", found, f"install gcc; {IF_UNKNOWN}")


def _dkms(state: HostState, _: WantedDriver) -> Check:
    found = "there" if state.has_dkms else TO_COME if "dkms" in state.obtainable else "none"
    remedy = f"on RHEL and its kin enable EPEL and CRB; {IF_UNKNOWN}"
    return Check("dkms", found != "none", "DKMS, which builds the modules", found, remedy)


def _headers_of_running_kernel(state: HostState, _: WantedDriver) -> Check:
    return _headers("headers of the running kernel", state.kernel, state)


def _headers_of_newest_kernel(state: HostState, _: WantedDriver) -> Check:
    name, kernel = "headers of the next kernel", state.newest_kernel
    if kernel == state.kernel:
        return Check(name, True, f"those of {kernel}", "it is the running one")
    return _headers(name, kernel, state)


def _headers(name: str, kernel: str, state: HostState) -> Check:
    package = headers_package(state.distribution, kernel)
    found = "there" if kernel in state.with_headers else TO_COME if package in state.obtainable else "missing"
    remedy = f"install {package}; if it is in no archive any more, upgrade the kernel and reboot first; {IF_UNKNOWN}"
    return Check(name, found != "missing", f"those of {kernel}", found, remedy)


def _secure_boot(state: HostState, _: WantedDriver) -> Check:
    signed = state.signing_key_enrolled
    found = "off" if not state.secure_boot else f"on, and the key for modules is {'' if signed else 'not '}enrolled"
    return Check(
        "secure boot",
        not state.secure_boot or signed is True,
        "off, or with an enrolled key to sign modules with",
        found,
        "enrol the key at the console (mokutil --import, and a reboot), or switch Secure Boot off in the firmware",
    )


def _nouveau(state: HostState, wanted: WantedDriver) -> Check:
    drives = [gpu.address for gpu in state.gpus if gpu.driver == "nouveau"]
    loaded = "loaded, and drives nothing" if state.nouveau_loaded else "not loaded"
    return Check(
        "nouveau",
        not drives or wanted.may_reboot,
        "driving no GPU, or a reboot that ends it",
        f"drives {', '.join(drives)}" if drives else loaded,
        "allow the reboot (nvidia_driver_reboot: true), as nouveau cannot be taken off a screen",
    )


def _other_source(state: HostState, wanted: WantedDriver) -> Check:
    if wanted.source == RUNFILE:
        packaged = sorted(state.packages)
        found, remedy = ", ".join(packaged) or "none", f"remove them first: {', '.join(packaged)}"
        return Check("other installation", not packaged, "no packages of the driver", found, remedy)
    return Check(
        "other installation",
        not state.installed_by_runfile,
        "no driver that a runfile installed",
        "one by a runfile" if state.installed_by_runfile else "none",
        "remove it first: nvidia-uninstall --silent",
    )


def _fabric_manager(state: HostState, wanted: WantedDriver) -> Check:
    lacking = wanted.source == RUNFILE and state.has_fabric
    return Check(
        "fabric manager",
        not lacking,
        "one of the driver's version, where NVSwitches join the GPUs",
        "the runfile has none" if lacking else "comes with the packages" if state.has_fabric else "none is needed",
        "use a distribution for which NVIDIA has packages: Debian 12, Ubuntu 22.04 or 24.04, RHEL 9 or 10",
    )


def _distribution_packages(state: HostState, wanted: WantedDriver) -> Check:
    own = sorted(
        name for name, version in state.packages.items() if name in OF_DEBIAN or OF_DISTRIBUTION.search(version)
    )
    return Check(
        "distribution's driver",
        wanted.source == RUNFILE or not own,
        "none of the distribution's own packages",
        ", ".join(own) or "none",
        f"remove them first, as they clash with NVIDIA's: {' '.join(own)}",
    )


def _one_version(state: HostState, _: WantedDriver) -> Check:
    """Those that rackllama has installed are brought together by the change itself."""
    versions = sorted({found for found in map(driver_version, state.packages.values()) if found})
    return Check(
        "one version",
        len(versions) <= 1 or state.is_ours or state.was_cut_off,
        "packages of the driver of one version",
        ", ".join(versions) or "none installed",
        "bring them together first (apt or dnf: downgrade or upgrade those that differ)",
    )


def _loaded_version(state: HostState, wanted: WantedDriver) -> Check:
    loaded = state.loaded_version
    return Check(
        "loaded driver",
        wanted.may_reboot or loaded in (None, wanted.exact_version),
        "none or the wanted one, or a reboot that loads it",
        f"{loaded or 'none'} is loaded",
        "allow the reboot (nvidia_driver_reboot: true): beside another driver, new libraries answer no program",
    )


def _held(state: HostState, _: WantedDriver) -> Check:
    return Check(
        "held packages",
        not state.held,
        "none that somebody else holds",
        ", ".join(state.held) or "none",
        "see why, and let them go: apt-mark unhold, or dnf versionlock delete",
    )


def _interrupted(state: HostState, _: WantedDriver) -> Check:
    """What rackllama itself was stopped in the middle of is finished by the change."""
    ours = ", by a change of rackllama's, which is finished first" if state.was_cut_off else ""
    found = f"interrupted{ours}" if state.packages_interrupted else "whole"
    whole = state.was_cut_off or not state.packages_interrupted
    return Check("package database", whole, "whole", found, "run: dpkg --configure -a")


def _upgrades(state: HostState, _: WantedDriver) -> Check:
    running = ", ".join(state.upgrades_running)
    return Check("upgrades under way", not running, "none", running or "none", "wait until it has ended")


def _sources(state: HostState, _: WantedDriver) -> Check:
    ours = [path for path in state.sources if "rackllama" not in path]
    return Check(
        "other sources",
        not ours,
        "NVIDIA's archive named by rackllama alone",
        ", ".join(ours) or "none",
        f"remove {' '.join(ours)}, which would bring other versions beside the pinned ones",
    )


def _retired_key(state: HostState, _: WantedDriver) -> Check:
    return Check(
        "retired key",
        not state.trusts_retired_key,
        "not trusted",
        "trusted" if state.trusts_retired_key else "not trusted",
        "remove 7fa2af80 from /etc/apt/trusted.gpg.d: NVIDIA replaced it in 2022",
    )


def _users(state: HostState, _: WantedDriver) -> Check:
    others: List[GpuUser] = [user for user in state.users if not user.is_ours]
    ours = state.our_users
    found = ", ".join(map(str, others)) or (f"by {', '.join(ours)}: stopped before" if ours else "by nobody")
    return Check("gpu in use", not others, "by nobody, or by services of rackllama", found, "stop these")


def _room(path: str, needed_mib: int, room_mib: Mapping[str, int]) -> Check:
    remedy = "remove old kernels" if path == "/boot" else f"free space on the file system of {path}"
    return Check(f"room at {path}", room_mib[path] >= needed_mib, f"{needed_mib} MiB", f"{room_mib[path]} MiB", remedy)


def _board(gpu: PciDevice) -> Optional[Board]:
    return board(gpu.device)


def _name(gpu: PciDevice) -> str:
    found = _board(gpu)
    return found.name if found else f"10de:{gpu.device:04x}"
