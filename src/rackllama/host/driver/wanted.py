"""Which driver a host is to have, and whether it has it. Pure."""

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from ..errors import RackllamaError
from ..hardware.boards import OPEN_ONLY, PROPRIETARY_ONLY, board
from ..hardware.pci import PciDevice
from . import branches
from .branches import DEFAULT_BRANCH, RUNFILE_VERSION, Branch, archive
from .packages import OPEN, PROPRIETARY, fabric_packages, kernel_module_package, wanted_packages
from .state import HostState

PACKAGES, RUNFILE = "packages", "runfile"


@dataclass(frozen=True)
class WantedDriver:
    """A branch, from NVIDIA's packages or its runfile, with the open or the proprietary kernel modules, or what fits.

    `version` is one of it, by default the branch's own; the runfile
    has a branch and a version of its own. `may_reboot` says whether the host may be rebooted, and
    `container_toolkit` whether its containers use the GPUs.
    """

    branch: str = DEFAULT_BRANCH
    version: str = ""
    source: str = PACKAGES
    modules: Optional[str] = None
    may_reboot: bool = True
    container_toolkit: bool = False

    @property
    def of(self) -> Branch:
        """The branch. Raises as `branches.branch`."""
        return branches.branch(branches.branch_of(RUNFILE_VERSION) if self.source == RUNFILE else self.branch)

    @property
    def exact_version(self) -> str:
        """The version; of the runfile there is one. Raises RackllamaError where it is of another branch."""
        version = self.version or (RUNFILE_VERSION if self.source == RUNFILE else self.of.version)
        if branches.branch_of(version) != self.of.name:
            raise RackllamaError(
                f"{version} is no version of branch {self.of.name}",
                f"set nvidia_driver_branch to {branches.branch_of(version)}, or take another version",
            )
        return version


def is_needed(state: HostState, wanted: WantedDriver) -> bool:
    """Whether the driver of a host is to be changed at all. Raises as `WantedDriver.exact_version`."""
    version = wanted.exact_version
    return bool(state.gpus) and not (state.has_driver(version) and is_complete(state, wanted))


def is_complete(state: HostState, wanted: WantedDriver) -> bool:
    """Whether nothing is missing of a driver whose packages rackllama has installed; one of others is left alone."""
    if not state.is_ours or wanted.source == RUNFILE:
        return True
    there = set(state.packages)
    return there >= set(wanted_names(state, wanted)) and not there & set(unwanted_names(state, wanted))


def wanted_names(state: HostState, wanted: WantedDriver) -> Tuple[str, ...]:
    """The packages that are asked for on this host. Raises RackllamaError where there is no archive for it."""
    modules = _modules(state, wanted)
    return wanted_packages(naming(state), wanted.exact_version, modules, state.has_fabric, state.has_hidden_switches)


def unwanted_names(state: HostState, wanted: WantedDriver) -> Tuple[str, ...]:
    """What must not be there: the other kind of modules, and a fabric manager without an NVSwitch."""
    names, other = naming(state), PROPRIETARY if _modules(state, wanted) == OPEN else OPEN
    fabric = () if state.has_fabric else fabric_packages(names, wanted.of.name)
    return (kernel_module_package(names, wanted.of.name, other), *fabric)


def kernel_modules(gpus: Sequence[PciDevice]) -> Optional[str]:
    """The kind of kernel modules that drives all GPUs, the open ones where they do; None where no kind does."""
    known = [found for found in (board(gpu.device) for gpu in gpus) if found]
    generations = {found.generation for found in known}
    if generations & set(PROPRIETARY_ONLY):
        return None if generations & set(OPEN_ONLY) else PROPRIETARY
    return OPEN if known else None


def naming(state: HostState) -> str:
    """How packages are named for this host. Raises RackllamaError where there is no archive for it."""
    found = archive(state.distribution, state.version)
    if found is None:
        raise RackllamaError(
            f"no package archive of NVIDIA's holds the driver for {state.distribution} {state.version}",
            "install from the runfile (nvidia_driver_source: runfile)",
        )
    return found.naming


def _modules(state: HostState, wanted: WantedDriver) -> str:
    return wanted.modules or kernel_modules(state.gpus) or OPEN
