"""Package managers as the driver's surgery needs them: what is offered, and one transaction at a time."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Mapping, Protocol, Sequence

from ..errors import RackllamaError
from ..files import read_text
from . import locks
from .archive import APT_SOURCE, NAME
from .packages import PackageChange, is_drivers, parse_offered, stands_beside

LOCK_SECONDS = 300
LAST_LINES = 12
VERSIONLOCK_PLUGIN = "python3-dnf-plugin-versionlock"


class PackageManager(Protocol):
    """A package manager; all that fails is a RackllamaError with what it said."""

    def refresh(self, of_nvidia: bool = False) -> None:
        """Learn what the archives offer; or NVIDIA's alone, where a failure is no mere warning."""

    def offered(self, names: Sequence[str]) -> Dict[str, List[str]]:
        """The versions that the archives offer: of these packages, and of all that are named like the driver's."""

    def download(self, change: PackageChange) -> None:
        """Fetch and check what the change installs, and change nothing."""

    def change(self, change: PackageChange) -> None:
        """Install and remove in one transaction."""

    def finish(self) -> None:
        """Finish a transaction that was cut off."""

    def lock_files(self, version: str, exact: Mapping[str, str]) -> Dict[Path, str]:
        """The files that keep the driver at a version, of which the archives have these packages."""

    def hold(self, names: Sequence[str], held: bool) -> None:
        """Hold packages, or let them go."""


class Apt:
    """apt, of Debian and Ubuntu."""

    def refresh(self, of_nvidia: bool = False) -> None:
        """See `PackageManager`."""
        only = ("-o", f"Dir::Etc::SourceList={APT_SOURCE}", "-o", "Dir::Etc::SourceParts=-")
        strict = ("-o", "APT::Get::List-Cleanup=0", "-o", "APT::Update::Error-Mode=any")
        _run("apt-get", *((*only, *strict) if of_nvidia else ()), "update")

    def offered(self, names: Sequence[str]) -> Dict[str, List[str]]:
        """See `PackageManager`."""
        known = [name for name in _run("apt-cache", "pkgnames").split() if is_drivers(name) or stands_beside(name)]
        return parse_offered(_run("apt-cache", "madison", *sorted({*names, *known})))

    def download(self, change: PackageChange) -> None:
        """See `PackageManager`."""
        self._install(change, "--download-only")

    def change(self, change: PackageChange) -> None:
        """See `PackageManager`."""
        self._install(change)

    def finish(self) -> None:
        """See `PackageManager`."""
        _run("dpkg", "--configure", "-a", "--force-confdef", "--force-confold")

    def lock_files(self, version: str, exact: Mapping[str, str]) -> Dict[Path, str]:  # noqa: ARG002
        """See `PackageManager`."""
        return locks.apt_files(version)

    def hold(self, names: Sequence[str], held: bool) -> None:
        """See `PackageManager`."""
        if names:
            _run("apt-mark", "hold" if held else "unhold", *names)

    def _install(self, change: PackageChange, *options: str) -> None:
        packages = [
            *(f"{name}={version}" for name, version in change.install.items()),
            *change.others,
            *(f"{name}-" for name in change.remove),
        ]
        if packages:
            _run("apt-get", *APT_OPTIONS, *options, "install", *packages)


class Dnf:
    """dnf, of RHEL and its kin. Never run on one: see docs/tested-on.md."""

    def refresh(self, of_nvidia: bool = False) -> None:
        """See `PackageManager`."""
        _run("dnf", "--quiet", *(("--disablerepo=*", f"--enablerepo={NAME}") if of_nvidia else ()), "makecache")

    def offered(self, names: Sequence[str]) -> Dict[str, List[str]]:
        """See `PackageManager`."""
        query = ("--showduplicates", "--queryformat", "%{name} | %{evr} | %{repoid}\n")
        return parse_offered(_run("dnf", "--quiet", "repoquery", *query, *names, *DNF_GLOBS))

    def download(self, change: PackageChange) -> None:
        """See `PackageManager`."""
        if subprocess.run(["dnf", "--quiet", "versionlock", "list"], capture_output=True, check=False).returncode:
            _run("dnf", "--assumeyes", "install", VERSIONLOCK_PLUGIN)  # without it the locks are read by nobody
        self._install(change, "--downloadonly")

    def change(self, change: PackageChange) -> None:
        """See `PackageManager`."""
        self._install(change)
        if change.remove:
            _run("dnf", "--assumeyes", "remove", "--noautoremove", *change.remove)

    def finish(self) -> None:
        """Nothing: rpm's database is whole at any time, and the next transaction goes on."""

    def lock_files(self, version: str, exact: Mapping[str, str]) -> Dict[Path, str]:
        """See `PackageManager`."""
        return {locks.VERSIONLOCK: locks.versionlock(read_text(locks.VERSIONLOCK) or "", version, exact)}

    def hold(self, names: Sequence[str], held: bool) -> None:
        """Nothing: the version lock holds."""

    def _install(self, change: PackageChange, *options: str) -> None:
        packages = [*(f"{name}-{version}" for name, version in change.install.items()), *change.others]
        if packages:
            _run(
                "dnf",
                "--assumeyes",
                "--setopt=install_weak_deps=False",
                "--allowerasing",
                *options,
                "install",
                *packages,
            )


APT_OPTIONS = (
    *("--yes", "--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages"),
    *("-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
)
DNF_GLOBS = ("nvidia-*", "libnvidia-*", "kmod-nvidia-*", "xorg-x11-nvidia*", "libnvsdm*", "cuda-drivers*")
# Nobody is there to be asked; and needrestart is not to restart services while their driver is being replaced.
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "LC_ALL": "C.UTF-8"}


def manager(naming: str) -> PackageManager:
    """The package manager of those who name packages so."""
    return Dnf() if naming == "rhel" else Apt()


def naming_here() -> str:
    """Whose package manager this host has."""
    return "debian" if shutil.which("apt-get") else "rhel"


def _run(*command: str) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
    )
    if done.returncode:
        said = " | ".join(line.strip() for line in (done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:])
        raise RackllamaError(f"{' '.join(command[:1])} failed: {said}", f"see on the host: {' '.join(command)}")
    return done.stdout
