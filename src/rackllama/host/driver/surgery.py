"""Bring a host's driver to one version, so that it can be taken back, and so that the next boot has a driver.

Order: the packages are locked to the version, and all is fetched and checked; what uses the GPUs is stopped; they are
changed in one transaction; the module is there for the running kernel and for the next boot's, signed where it must be;
only then is nouveau shut out. Where a step fails, the packages, files and holds of before come back.
"""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Iterator, List, Mapping, Sequence, Tuple

from .. import systemd
from ..errors import RackllamaError
from ..files import write_atomically, write_json
from . import config_files, kernel_module
from .archive import SOURCES
from .locks import NOUVEAU, NOUVEAU_OFF
from .managers import PackageManager, manager
from .packages import PINNING, SUBNET_MANAGER, TOOLKIT, PackageChange, all_of_version, package_change, pinning_package
from .state import (
    RECORD,
    UNDER_WAY,
    HostState,
    headers_package,
    held_now,
    installed_beside,
    installed_kernels,
    installed_packages,
    kernel_order,
)
from .wanted import WantedDriver, is_needed, naming, unwanted_names, wanted_names


@dataclass(frozen=True)
class Surgery:
    """What is to be done: pure data, made by `plan`.

    `is_held` says that all packages of the driver are held afterwards; `hold` and `release` are what differs from that.
    """

    version: str
    packages: PackageChange
    files: Mapping[Path, str] = field(default_factory=dict)
    is_held: bool = False
    hold: Tuple[str, ...] = ()
    release: Tuple[str, ...] = ()
    kernels: Tuple[str, ...] = ()
    replaces_modules: bool = False
    must_be_signed: bool = False
    stop: Tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.packages or self.files or self.hold or self.release or self.kernels)

    def words(self) -> List[str]:
        """The steps for people."""
        return [
            *(f"write {path}" for path in sorted(self.files)),
            *(f"stop {unit}" for unit in self.stop),
            *(f"install {name} {version}" for name, version in self.packages.install.items()),
            *(f"install {name}" for name in self.packages.others),
            *(f"remove {name}" for name in self.packages.remove),
            *(f"build the module of {self.version} for kernel {kernel}" for kernel in self.kernels),
            *(f"let go {name}" for name in self.release),
            *(f"hold {name}" for name in self.hold),
        ]


def plan_here(state: HostState, wanted: WantedDriver, check_mode: bool) -> Surgery:
    """`plan` for this host, with the files that lock it. In check mode an archive that is no source yet has all."""
    packager, version = manager(naming(state)), wanted.exact_version
    names = (*wanted_names(state, wanted), pinning_package(version))
    if not is_needed(state, wanted):
        if not state.is_ours:
            return Surgery(version, PackageChange({}))
        here = {**state.packages, **dict.fromkeys(state.beside, "")}
        offered = {name: [there] for name, there in here.items()}
    elif check_mode and not any(path.exists() for path in SOURCES):
        offered = {name: [version] for name in (*names, *state.packages)}
    else:
        if not check_mode:
            packager.refresh()
            packager.refresh(of_nvidia=True)
        offered = packager.offered(names)
    surgery = plan(state, wanted, offered)
    return replace(
        surgery, files=config_files.different(packager.lock_files(version, all_of_version(offered, version)))
    )


def plan(state: HostState, wanted: WantedDriver, offered: Mapping[str, Sequence[str]]) -> Surgery:
    """What is to be done, given what the archives offer. Pure. Raises RackllamaError where they lack the version."""
    version, names = wanted.exact_version, wanted_names(state, wanted)
    change = package_change(version, names, state.packages, offered, unwanted_names(state, wanted))
    pinning = [name for name in (pinning_package(version),) if offered.get(name)]
    others = [
        *(headers_package(state.distribution, kernel) for kernel in state.kernels if kernel not in state.with_headers),
        *([TOOLKIT] if wanted.container_toolkit and TOOLKIT not in state.beside else []),
        *([SUBNET_MANAGER] if state.has_hidden_switches and SUBNET_MANAGER not in state.beside else []),
        *(name for name in state.following_headers if name in state.obtainable and name not in state.beside),
        *(name for name in pinning if name not in state.beside),
    ]
    pinned_otherwise = [name for name in state.beside if name.startswith(PINNING) and name not in pinning]
    change = replace(change, others=tuple(others), remove=(*change.remove, *pinned_otherwise))
    held = () if pinning else tuple(sorted(change.exact))
    modules = {names[0], *unwanted_names(state, wanted)}
    replaced = bool(modules & {*change.install, *change.remove})
    lacking = [kernel for kernel in state.kernels if replaced or state.module_versions.get(kernel) != version]
    return Surgery(
        version,
        change,
        is_held=not pinning,
        hold=tuple(name for name in held if name not in state.held_by_us),
        release=tuple(name for name in state.held_by_us if name not in held),
        kernels=tuple(lacking),
        replaces_modules=replaced,
        must_be_signed=bool(state.secure_boot),
        stop=state.our_users if change else (),
    )


def finish_what_was_cut_off(state: HostState) -> None:
    """Bring the package database to where it can be worked with again, after a change of ours that was cut off.

    Raises RackllamaError where that fails.
    """
    manager(naming(state)).finish()
    UNDER_WAY.unlink(missing_ok=True)


def carry_out(surgery: Surgery, state: HostState) -> None:
    """Do it. Raises RackllamaError, after the host was brought back, with how it stands and how to go on."""
    files, packager = config_files.texts((*surgery.files, NOUVEAU, RECORD)), manager(naming(state))
    with taken_back_on_failure(lambda: _take_back(state, files, surgery, packager)):
        config_files.write(surgery.files)
        packager.download(surgery.packages)
        for unit in surgery.stop:
            systemd.run("systemctl", "stop", unit)
        write_atomically(UNDER_WAY, f"{surgery.version}\n")
        with kernel_module.log_kept():  # packages of DKMS build as they are installed
            packager.change(surgery.packages)
        newest = max(installed_kernels(), key=kernel_order, default=state.kernel)  # a package may have brought it
        kernels = dict.fromkeys([*surgery.kernels, *([] if newest in state.kernels else [newest])])
        kernel_module.build(list(kernels), surgery.version, surgery.must_be_signed)
        held = sorted(installed_packages()) if surgery.is_held else []  # with all that came as a dependency
        write_json(RECORD, {"version": surgery.version, "held": held})
        packager.hold(state.held_by_us, held=False)
        packager.hold(held, held=True)
        if surgery.kernels or config_files.different({NOUVEAU: NOUVEAU_OFF}):
            shut_nouveau_out()
    UNDER_WAY.unlink(missing_ok=True)


def reboot_is_needed(state: HostState, version: str, replaces_modules: bool = False) -> bool:
    """Whether what is installed now comes only by a boot. Pure."""
    loaded_otherwise = state.loaded_version is not None and (replaces_modules or state.loaded_version != version)
    return loaded_otherwise or any(gpu.driver == "nouveau" for gpu in state.gpus)


def load(version: str) -> None:
    """Load the module where none is loaded. Raises RackllamaError where the kernel does not take it."""
    try:
        systemd.run("modprobe", kernel_module.MODULE)
    except RackllamaError as error:
        raise RackllamaError(
            f"the module of {version} is there, and the kernel does not take it: {error.message}",
            "see why: dmesg | grep -i -e nvrm -e nvidia",
        ) from error


def shut_nouveau_out() -> None:
    """Keep nouveau off the GPUs, from the initramfs of every kernel as well; a container boots without one."""
    config_files.write({NOUVEAU: NOUVEAU_OFF})
    _make_initramfs()


def _make_initramfs() -> None:
    if shutil.which("update-initramfs"):
        systemd.run("update-initramfs", "-u", "-k", "all")
    elif shutil.which("dracut"):
        systemd.run("dracut", "--regenerate-all", "--force")


@contextmanager
def taken_back_on_failure(take_back: Callable[[], str]) -> Iterator[None]:
    """Where what is done within fails, take it back, and tell how the host stands then, as `take_back` says."""
    try:
        yield
    except (RackllamaError, OSError) as error:
        stands = take_back()
        told = error if isinstance(error, RackllamaError) else RackllamaError(str(error), "mend it, and converge again")
        raise RackllamaError(f"{told.message}. {stands}", told.remedy) from error


def _take_back(state: HostState, files: Mapping[Path, str], surgery: Surgery, packager: PackageManager) -> str:
    """Bring files, packages and holds back as `state` has them; says how the host stands."""
    now = {**installed_packages(), **dict.fromkeys(installed_beside(), "")}
    before = {**state.packages, **dict.fromkeys(state.beside, "")}
    different = {name: version for name, version in state.packages.items() if now.get(name) != version}
    change = PackageChange(
        state.packages,
        different,
        tuple(name for name in now if name not in before),
        tuple(name for name in state.beside if name not in now),
    )
    try:
        boots_otherwise = bool(config_files.different({NOUVEAU: files[NOUVEAU]}))
        config_files.write(files)
        packager.hold([name for name in held_now() if name not in (*state.held, *state.held_by_us)], held=False)
        if change:
            packager.change(change)
        packager.hold(state.held_by_us, held=True)
        kernel_module.build(
            [kernel for kernel in surgery.kernels if state.module_versions.get(kernel) and state.module_version],
            state.module_version or "",
            must_be_signed=False,
        )
        if boots_otherwise:
            _make_initramfs()
    except (RackllamaError, OSError) as error:
        why = error.message if isinstance(error, RackllamaError) else str(error)
        return f"It could not be taken back, and the next boot may have no driver: {why}"
    finally:
        for unit in surgery.stop:
            systemd.run("systemctl", "start", unit, check=False)
    UNDER_WAY.unlink(missing_ok=True)
    if not change:
        return "No package was changed"
    return (
        "The packages of before are back, and the next boot has their driver" if different else "What was new is gone"
    )
