"""The driver from the runfile of CUDA, for distributions of which NVIDIA has no package archive.

The file holds NVIDIA's own installer of the driver. That is taken out and started by itself, as its options are known
for every version, and kept, so that the driver of before can be installed again where a step fails.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

from .. import systemd
from ..errors import RackllamaError
from ..fetch import fetch, require_free_space
from ..files import write_json
from . import kernel_module
from .managers import manager
from .packages import PackageChange
from .state import RECORD, RUNFILE_UNINSTALLER, HostState, headers_package
from .surgery import shut_nouveau_out, taken_back_on_failure
from .wanted import WantedDriver, kernel_modules

INSTALLER_LOG = Path("/var/log/nvidia-installer.log")
KEPT = Path("/var/lib/rackllama/driver")
SCRATCH = Path("/var/tmp")  # noqa: S108 - a folder of its own is made in it
UNPACKED_FACTOR = 3  # the file, what it unpacks to, and room for the installer
TOOLS = {"debian": ("dkms", "gcc", "make", "libc6-dev"), "rhel": ("dkms", "gcc", "make", "glibc-devel")}


@dataclass(frozen=True)
class Runfile:
    """The runfile as the lock has it; its size is in bytes."""

    url: str
    sha256: str
    size: Optional[int] = None

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Installation:
    """What is to be done; nothing where the driver is there. Pure data."""

    version: str
    kind: str
    tools: Tuple[str, ...] = ()
    kernels: Tuple[str, ...] = ()
    stop: Tuple[str, ...] = ()
    must_be_signed: bool = False

    def __bool__(self) -> bool:
        return bool(self.kernels)

    def words(self) -> List[str]:
        """The steps for people."""
        return [
            *(f"stop {unit}" for unit in self.stop),
            *(f"install {name}" for name in self.tools),
            *([f"install {self.version} from the runfile, with the {self.kind} modules"] if self else []),
            *(f"build the module of {self.version} for kernel {kernel}" for kernel in self.kernels),
        ]


def plan(state: HostState, wanted: WantedDriver) -> Installation:
    """What is to be done. Pure."""
    version, kind = wanted.exact_version, wanted.modules or kernel_modules(state.gpus) or "open"
    if state.has_driver(version):
        return Installation(version, kind)
    headers = [headers_package(state.distribution, kernel) for kernel in state.kernels]
    lacking = [name for kernel, name in zip(state.kernels, headers) if kernel not in state.with_headers]
    return Installation(
        version,
        kind,
        tools=(*TOOLS[state.naming], *lacking, *(name for name in state.following_headers if name in state.obtainable)),
        kernels=state.kernels,
        stop=state.our_users,
        must_be_signed=bool(state.secure_boot),
    )


def carry_out(installation: Installation, state: HostState, runfile: Runfile) -> None:
    """Do it. Raises RackllamaError, with how the host stands, after the driver of before was installed again."""
    installer = _installer(installation.version, runfile)
    manager(state.naming).change(PackageChange({}, others=installation.tools))
    with taken_back_on_failure(lambda: _take_back(state, installation)):
        for unit in installation.stop:
            systemd.run("systemctl", "stop", unit)
        _install(installer, installation.kind)
        kernel_module.build(installation.kernels, installation.version, installation.must_be_signed)
        shut_nouveau_out()
    write_json(RECORD, {"version": installation.version, "held": []})


def _installer(version: str, runfile: Runfile) -> Path:
    """The driver's own installer out of the runfile, which is fetched where it is not kept yet."""
    kept = KEPT / f"NVIDIA-{version}.run"
    if kept.exists():
        return kept
    KEPT.mkdir(mode=0o755, parents=True, exist_ok=True)
    if runfile.size:
        require_free_space(SCRATCH, UNPACKED_FACTOR * runfile.size)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        file, unpacked = Path(scratch) / runfile.name, Path(scratch) / "unpacked"
        fetch(runfile.url, file, runfile.sha256, runfile.size)
        systemd.run("sh", str(file), "--silent", f"--extract={unpacked}")
        found = sorted(unpacked.glob("NVIDIA-Linux-*.run"))
        if not found or version not in found[0].name:
            there = ", ".join(path.name for path in found) or "none"
            raise RackllamaError(
                f"{runfile.name} has no installer of driver {version} in it: {there}", "look at artefacts.lock"
            )
        partial = kept.with_suffix(".part")
        shutil.copyfile(found[0], partial)
        partial.replace(kept)
    return kept


def _install(installer: Path, kind: str) -> None:
    options = ("--silent", "--ui=none", f"--kernel-module-type={kind}", "--dkms", "--skip-module-load", "--no-drm")
    systemd.run("sh", str(installer), *options, "--no-nouveau-check", "--no-check-for-alternate-installs")


def _take_back(state: HostState, installation: Installation) -> str:
    """Have the driver of before again, and what used it; says how the host stands, and where the installer's log is."""
    try:
        return f"{_driver_of_before(state)} (see {INSTALLER_LOG})"
    finally:
        for unit in installation.stop:
            systemd.run("systemctl", "start", unit, check=False)


def _driver_of_before(state: HostState) -> str:
    former = KEPT / f"NVIDIA-{state.loaded_version}.run"
    if state.loaded_version and former.exists():
        try:
            _install(former, kernel_modules(state.gpus) or "open")
        except RackllamaError as error:
            return f"The driver {state.loaded_version} of before could not be installed again: {error.message}"
        return f"The driver {state.loaded_version} of before is back"
    if state.loaded_version is None and RUNFILE_UNINSTALLER.exists():
        systemd.run(str(RUNFILE_UNINSTALLER), "--silent", check=False)
        return "Nothing was left of it"
    return "What was there before is to be installed by hand" if state.loaded_version else "There is no driver"
