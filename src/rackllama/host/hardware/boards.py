"""NVIDIA's boards by the id that each has on the PCI bus, so that a GPU has a name before there is a driver.

Ids and names are those of the PCI ID Repository (2026-08-22), and NVSwitches those of NVIDIA's
open-gpu-kernel-modules (src/common/nvswitch/kernel/nvswitch.c). The names are the catalogue's.
"""

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

NVIDIA = 0x10DE
PROPRIETARY_ONLY = ("Maxwell", "Pascal", "Volta")
OPEN_ONLY = ("Grace Hopper", "Blackwell")
NVSWITCHES = (0x1AE8, *range(0x1AF0, 0x1B00), *range(0x22A0, 0x22A8))  # of A100, and of H100 and H200
HIDDEN_SWITCHES = (0x2901, 0x2909, 0x3182)  # B200 and B300 on an HGX board, whose NVSwitches the PCI bus does not show

_BOARDS: Dict[str, Dict[int, str]] = {
    "Maxwell": {0x17FD: "M40", 0x13F2: "M60"},
    "Pascal": {0x1B06: "GTX1080Ti", 0x15F8: "P100-16GB", 0x15F9: "P100-16GB", 0x1B38: "P40", 0x1BB3: "P4"},
    "Volta": {
        0x1DB1: "V100-16GB",
        0x1DB4: "V100-16GB",
        0x1DB5: "V100-32GB",
        0x1DB6: "V100-32GB",
        0x1DB8: "V100-32GB",
        0x1DF6: "V100S-32GB",
    },
    "Turing": {0x1E30: "RTX8000", 0x1EB8: "T4", 0x1F08: "RTX2060"},
    "Ampere": {
        0x20B0: "A100-40GB",
        0x20B2: "A100-80GB",
        0x20B3: "A100-64GB",
        0x20B5: "A100-80GB",
        0x20B7: "A30",
        0x20BD: "A800-40GB",
        0x20F1: "A100-40GB",
        0x20F3: "A800-80GB",
        0x20F5: "A800-80GB",
        0x2203: "RTX3090Ti",
        0x2204: "RTX3090",
        0x2230: "RTXA6000",
        0x2235: "A40",
        0x2236: "A10",
    },
    "Ada Lovelace": {
        0x2684: "RTX4090",
        0x2685: "RTX4090D",
        0x2702: "RTX4080SUPER",
        0x2704: "RTX4080",
        0x26B1: "RTX6000Ada",
        0x26B5: "L40",
        0x26B9: "L40S",
        0x26BA: "L20",
        0x27B8: "L4",
    },
    "Hopper": {
        0x2321: "H100-94GB",
        0x2322: "H800-80GB",
        0x2324: "H800-80GB",
        0x2329: "H20",
        0x232C: "H20-141GB",
        0x2330: "H100-80GB",
        0x2331: "H100-80GB",
        0x2335: "H200",
        0x2339: "H100-94GB",
        0x233B: "H200",
    },
    "Grace Hopper": {0x2342: "GH200-96GB", 0x2348: "GH200-144GB"},
    "Blackwell": {
        0x2901: "B200",
        0x2909: "B200",
        0x2941: "GB200",
        0x2B85: "RTX5090",
        0x2B87: "RTX5090D",
        0x2BB1: "RTXPRO6000",
        0x2BB4: "RTXPRO6000",
        0x2BB5: "RTXPRO6000",
        0x2C02: "RTX5080",
        0x3182: "B300",
        0x31C2: "GB300",
    },
}


@dataclass(frozen=True)
class Board:
    """A GPU's name in the catalogue, and its generation."""

    name: str
    generation: str

    @property
    def kernel_modules(self) -> Tuple[str, ...]:
        """The kinds of kernel modules that drive it, the recommended one first."""
        if self.generation in PROPRIETARY_ONLY:
            return ("proprietary",)
        return ("open",) if self.generation in OPEN_ONLY else ("open", "proprietary")


BOARDS = {device: Board(name, generation) for generation, boards in _BOARDS.items() for device, name in boards.items()}


def board(device: int) -> Optional[Board]:
    """The board with this PCI device id; None where it is not known here."""
    return BOARDS.get(device)
