"""What is on the PCI bus, as the kernel shows it, with or without a driver."""

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence

from ..files import read_text
from .boards import HIDDEN_SWITCHES, NVIDIA, NVSWITCHES

DEVICES = Path("/sys/bus/pci/devices")
DISPLAY_CLASSES = (0x0300, 0x0302)  # VGA and 3D controllers; a GPU's audio device is another one
BRIDGE_CLASS = 0x0680


@dataclass(frozen=True)
class PciDevice:
    """One function of one device: address as `0000:06:00.0`, ids, class and subclass, the driver bound to it."""

    address: str
    vendor: int
    device: int
    kind: int
    driver: Optional[str] = None
    numa_node: Optional[int] = None


def read_devices(root: Path = DEVICES) -> List[PciDevice]:
    """All devices, in the order of their addresses; none where there is no PCI bus."""
    return [_device(folder) for folder in sorted(root.iterdir())] if root.is_dir() else []


def gpus(devices: Sequence[PciDevice]) -> List[PciDevice]:
    """Those that are GPUs of NVIDIA."""
    return [device for device in devices if device.vendor == NVIDIA and device.kind in DISPLAY_CLASSES]


def nvswitches(devices: Sequence[PciDevice]) -> List[PciDevice]:
    """Those that are NVSwitches."""
    return [
        device
        for device in devices
        if device.vendor == NVIDIA and device.kind == BRIDGE_CLASS and device.device in NVSWITCHES
    ]


def has_nvswitch(devices: Sequence[PciDevice]) -> bool:
    """Whether the GPUs are joined by NVSwitches, which need the fabric manager; some are told only by their GPUs."""
    return bool(nvswitches(devices)) or any(gpu.device in HIDDEN_SWITCHES for gpu in gpus(devices))


def _device(folder: Path) -> PciDevice:
    driver, node = folder / "driver", _number(folder / "numa_node", 10)
    return PciDevice(
        folder.name,
        _number(folder / "vendor", 16),
        _number(folder / "device", 16),
        _number(folder / "class", 16) >> 8,
        driver.resolve().name if driver.exists() else None,
        node if node >= 0 else None,
    )


def _number(path: Path, base: int) -> int:
    return int((read_text(path) or "-1").strip(), base)
