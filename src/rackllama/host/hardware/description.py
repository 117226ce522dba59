"""The host's hardware in one shape, with a driver and without: what the plan and the roles go by."""

import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..errors import RackllamaError
from ..files import read_text
from . import machine, nvidia_smi, pci
from .boards import board
from .machine import Disk
from .nvidia_smi import Gpu, Smi
from .pci import PciDevice


@dataclass(frozen=True)
class Driver:
    """What the driver told, or why it did not."""

    smi: Optional[Smi] = None
    problem: str = ""
    remedy: str = ""


def describe(measure: bool = False) -> Dict[str, Any]:
    """Look at this host. With `measure` disks are read for some seconds each, to tell their rate. Changes nothing."""
    devices = pci.read_devices()
    driver = ask_driver() if pci.gpus(devices) else Driver()
    memory = machine.ask("dmidecode", "--type", "17")
    modules = machine.memory_modules(memory) if memory else None
    return {
        "gpus": gpu_descriptions(devices, driver.smi),
        "driver": driver_description(driver),
        "nvswitches": len(pci.nvswitches(devices)),
        "needs_fabric_manager": pci.has_nvswitch(devices),
        "ram_mib": machine.ram_mib(read_text(Path("/proc/meminfo")) or ""),
        "memory_modules": asdict(modules) if modules else None,
        "numa_nodes": machine.numa_nodes(),
        "disks": [_disk(disk, measure) for disk in machine.disks(machine.ask(*machine.LSBLK) or machine.NO_DISKS)],
        "network_mbs": machine.network_mbs(),
    }


def ask_driver() -> Driver:
    """What the driver tells now."""
    try:
        return Driver(nvidia_smi.ask())
    except RackllamaError as error:
        return Driver(None, error.message, error.remedy)


def gpu_descriptions(devices: Sequence[PciDevice], smi: Optional[Smi]) -> List[Dict[str, Any]]:
    """All GPUs on the bus in the order of their addresses; what only the driver knows is None without it. Pure."""
    told = {gpu.address: gpu for gpu in smi.gpus} if smi else {}
    links = dict(zip((gpu.address for gpu in smi.gpus), smi.links.values())) if smi else {}
    return [_gpu(device, told.get(device.address), links.get(device.address, ())) for device in pci.gpus(devices)]


def driver_description(driver: Driver) -> Dict[str, Any]:
    """The driver as plain data: versions, or what is wrong with it."""
    smi = driver.smi
    return {
        "version": smi.driver if smi else None,
        "cuda": smi.cuda if smi else None,
        "problem": driver.problem or None,
        "remedy": driver.remedy or None,
    }


def _gpu(device: PciDevice, told: Optional[Gpu], links: Sequence[str]) -> Dict[str, Any]:
    known = board(device.device)
    seen: Dict[str, Any] = asdict(told) if told else dict.fromkeys(field.name for field in fields(Gpu))
    product, architecture = seen.pop("name"), seen.pop("architecture")
    return {
        **seen,
        "address": device.address,
        "device": f"10de:{device.device:04x}",
        "name": known.name if known else product,
        "product": product,
        "generation": known.generation if known else architecture,
        "kernel_modules": list(known.kernel_modules) if known else [],
        "bound_to": device.driver,
        "numa_node": device.numa_node,
        "link": link_of(links),
        "mig_memory_mib": list(seen["mig_memory_mib"] or ()),
    }


def link_of(links: Sequence[str]) -> Optional[str]:
    """How a GPU reaches the others: by `nvlink` where that leads to all of them, else `pcie`; None of a single one."""
    if not links:
        return None
    return "nvlink" if all(link.startswith("NV") for link in links) else "pcie"


def _disk(disk: Disk, measure: bool) -> Dict[str, Any]:
    rate, problem = _read_rate(disk.path) if measure else (None, None)
    return {
        **asdict(disk),
        "used_by": list(disk.used_by),
        "mounts": list(disk.mounts),
        "free_bytes": sum(shutil.disk_usage(mount).free for mount in disk.mounts),
        "read_mbs": rate,
        "problem": problem,
    }


def _read_rate(path: str) -> Tuple[Optional[int], Optional[str]]:
    """Megabytes a second, or why there are none."""
    try:
        return round(machine.read_mbs(Path(path))), None
    except RackllamaError as error:
        return None, error.message
