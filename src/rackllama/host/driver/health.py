"""Whether the GPUs of a host work as they ought to: what a converge asserts at its end, and `verify` at any time.

Which Xid errors mean that a GPU is to be looked at: NVIDIA's catalogue, as leptonai/gpud has it. Those that a program
causes by itself (13, 31, 43, 45), and those that are over with that program (92, 94), are left out.
"""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from .. import systemd
from ..files import read_json
from ..hardware import machine, pci
from ..hardware.description import Driver, ask_driver
from ..hardware.nvidia_smi import Gpu, Smi
from ..report import Check
from .kernel_module import module_version
from .packages import driver_version
from .state import RECORD, installed_kernels, installed_packages, kernel_order

FABRIC_MANAGER = "nvidia-fabricmanager.service"
NODES_UNIT = "rackllama-gpu-nodes.service"
XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
XIDS = (46, 48, 62, 64, 74, 79, 95, 119, 120, 136, 140, 143, *range(144, 151), *range(155, 159), 167, 171, 172)
POLL_SECONDS = 2.0
CONVERGE = "converge again: playbooks/gpu.yml"


@dataclass(frozen=True)
class GpuState:
    """A host's GPUs as they are; `modules` are the module's versions by the next boot's kernel, `nodes` the
    minor numbers of device nodes by name."""

    on_the_bus: int
    driver: Driver
    has_fabric: bool = False
    fabric_manager: Optional[str] = None
    fabric_manager_runs: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, Optional[str]] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)
    xids: Tuple[Tuple[str, int], ...] = ()


def read_state() -> GpuState:
    """Look at this host."""
    devices = pci.read_devices()
    kernels = sorted(installed_kernels(), key=kernel_order)
    return GpuState(
        on_the_bus=len(pci.gpus(devices)),
        driver=ask_driver() if pci.gpus(devices) else Driver(),
        has_fabric=pci.has_nvswitch(devices),
        fabric_manager=fabric_manager_version(machine.ask("nv-fabricmanager", "--version")),
        fabric_manager_runs=systemd.unit_state(FABRIC_MANAGER).active,
        packages=installed_packages(),
        modules={kernel: module_version(kernel) for kernel in kernels[-1:]},
        nodes={path.name: os.minor(path.stat().st_rdev) for path in Path("/dev").glob("nvidia*") if not path.is_dir()},
        xids=xids(machine.ask("journalctl", "--dmesg", "--boot", "--output=cat", "--no-pager") or ""),
    )


def checks(state: GpuState, version: Optional[str], power_limit_watts: float = 0) -> List[Check]:
    """All checks; with `version`, that the driver is this one. Of a host without GPUs, that there are none. Pure."""
    if not state.on_the_bus:
        return [Check("gpus", True, "any", "none on the PCI bus")]
    smi = state.driver.smi
    if smi is None:
        return [Check("gpu driver", False, "an answer", state.driver.problem, state.driver.remedy)]
    return [
        _count(state, smi),
        _version(smi, version),
        _packages(state, smi),
        _next_boot(state, smi),
        *(_fabric(state, smi) if state.has_fabric else []),
        _memory(smi.gpus),
        _recovery(smi.gpus),
        _xids(state),
        _nodes(state, smi),
        *([_power(smi.gpus, power_limit_watts)] if power_limit_watts else []),
    ]


def settled_checks(version: str = "", power_limit_watts: float = 0, seconds: float = 0) -> List[Check]:
    """`checks` of this host, looked at until all are well or so long has passed: a fabric takes a while to come up.

    Without `version`, the driver has to be the one that was installed last.
    """
    deadline = time.monotonic() + seconds
    wanted = version or (read_json(RECORD) or {}).get("version")
    while True:
        found = checks(read_state(), wanted, power_limit_watts)
        if all(check.ok for check in found) or time.monotonic() > deadline:
            return found
        time.sleep(POLL_SECONDS)


def fabric_manager_version(told: Optional[str]) -> Optional[str]:
    """The version in what `nv-fabricmanager --version` prints: `Fabric Manager version is : 580.126.20`."""
    found = re.search(r"\d{3}\.\d+(\.\d+)?", told or "")
    return found[0] if found else None


def xids(kernel_log: str) -> Tuple[Tuple[str, int], ...]:
    """GPUs by address with the errors of theirs that count, each once."""
    found = ((address, int(number)) for address, number in XID.findall(kernel_log))
    return tuple(dict.fromkeys((address, number) for address, number in found if number in XIDS))


def _count(state: GpuState, smi: Smi) -> Check:
    return Check(
        "gpus",
        len(smi.gpus) == state.on_the_bus,
        f"the driver has all {state.on_the_bus} that are on the PCI bus",
        f"{len(smi.gpus)} of {state.on_the_bus}",
        "see why the driver does not take it (dmesg | grep -i nvrm); power the host off and on, reseat the board",
    )


def _version(smi: Smi, version: Optional[str]) -> Check:
    ok = version in (None, smi.driver)
    return Check("gpu driver", ok, f"{version} to run", smi.driver, f"reboot; if it stays so, {CONVERGE}")


def _packages(state: GpuState, smi: Smi) -> Check:
    """What is installed beside the driver that runs: libraries of another version answer no program."""
    found = {name: driver_version(told) for name, told in state.packages.items()}
    others = [f"{name} {version}" for name, version in sorted(found.items()) if version != smi.driver]
    return Check(
        "gpu driver's packages",
        not others,
        f"all of {smi.driver}, which runs",
        ", ".join(others) or "all of the running driver's version",
        f"{CONVERGE}; if they were upgraded on purpose, reboot",
    )


def _next_boot(state: GpuState, smi: Smi) -> Check:
    without = [
        f"{kernel} has {version or 'none'}" for kernel, version in state.modules.items() if version != smi.driver
    ]
    return Check(
        "next boot",
        not without,
        f"a module of {smi.driver} for the newest kernel",
        ", ".join(without) or "there",
        "install that kernel's headers and run: dkms autoinstall -k KERNEL",
    )


def _fabric(state: GpuState, smi: Smi) -> List[Check]:
    manager = state.fabric_manager
    broken = [
        f"{gpu.address} {gpu.fabric_state} {gpu.fabric_status or ''}".strip()
        for gpu in smi.gpus
        if gpu.fabric_state not in (None, "Completed") or gpu.fabric_status not in (None, "Success")
    ]
    return [
        Check(
            "fabric manager",
            manager == smi.driver and state.fabric_manager_runs,
            f"{smi.driver}, running",
            f"{manager or 'none'}, {'running' if state.fabric_manager_runs else 'not running'}",
            f"{CONVERGE}; of another version, CUDA fails with error 802 (system not yet initialized)",
        ),
        Check(
            "fabric",
            not broken,
            "complete for every GPU",
            ", ".join(broken) or "complete",
            f"see: journalctl -u {FABRIC_MANAGER}, and /var/log/fabricmanager.log",
        ),
    ]


def _memory(gpus: Sequence[Gpu]) -> Check:
    broken = [f"{gpu.address} failed to remap a row" for gpu in gpus if gpu.row_remap_failed]
    pending = [f"{gpu.address} waits to remap a row" for gpu in gpus if gpu.row_remap_pending]
    remedy = "replace the board" if broken else "reset the GPU (nvidia-smi --gpu-reset), or reboot"
    return Check(
        "gpu memory", not broken + pending, "no damaged row", ", ".join(broken + pending) or "no damaged row", remedy
    )


def _recovery(gpus: Sequence[Gpu]) -> Check:
    asked = [f"{gpu.address}: {gpu.recovery_action}" for gpu in gpus if gpu.recovery_action]
    return Check("gpu recovery", not asked, "nothing asked for", ", ".join(asked) or "nothing", "do what it asks for")


def _xids(state: GpuState) -> Check:
    found = ", ".join(f"Xid {number} of {address}" for address, number in state.xids)
    return Check(
        "gpu errors", not found, "none since the boot", found or "none", "see NVIDIA's list of Xid errors, and dmesg"
    )


def _nodes(state: GpuState, smi: Smi) -> Check:
    wanted = ["nvidia-uvm", "nvidiactl", *(f"nvidia{number}" for number in range(len(smi.gpus)))]
    lacking = [f"/dev/{name}" for name in wanted if name not in state.nodes]
    if state.nodes.get("nvidia-uvm", 0) != 0:  # nvidia-modprobe makes such a one where it is told another GPU's number
        lacking.append("/dev/nvidia-uvm with the minor number 0")
    return Check(
        "gpu devices",
        not lacking,
        "device nodes, which a sandboxed engine cannot make",
        f"no {', '.join(lacking)}" if lacking else "there",
        f"start {NODES_UNIT}, and then the engines; see: journalctl -u {NODES_UNIT}",
    )


def _power(gpus: Sequence[Gpu], watts: float) -> Check:
    others: Dict[str, Optional[float]] = {
        gpu.address: gpu.power_limit_watts for gpu in gpus if gpu.power_limit_watts != watts
    }
    found = ", ".join(f"{address} {limit or 'unknown'}" for address, limit in others.items())
    return Check(
        "gpu power limit",
        not others,
        f"{watts:g} W",
        found or f"{watts:g} W",
        "see: nvidia-smi -q -d POWER, for its range",
    )
