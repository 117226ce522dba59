"""GPUs as the driver knows them, from `nvidia-smi -q -x`, of drivers 515 to 595."""

import re
import subprocess
from dataclasses import dataclass, field, replace
from typing import Dict, Mapping, Optional, Tuple
from xml.etree import ElementTree

from ..errors import RackllamaError

SECONDS = 60  # a GPU in trouble takes its time
ABSENT = ("", "N/A", "[N/A]", "None", "[Not Supported]")
CAUSES = (
    (
        "Driver/library version mismatch",
        "the driver's packages were changed while it was loaded: reboot, or stop what uses GPUs and load it anew",
    ),
    ("No devices were found", "the driver runs and finds no GPU: see `dmesg | grep -i nvrm`"),
    ("couldn't communicate with the NVIDIA driver", "the kernel module is not loaded: see `dmesg` and `dkms status`"),
    ("library 'libnvidia-ml.so'", "the driver's libraries are not installed: converge again"),
    ("is lost", "a GPU has fallen off the bus (Xid 79): power the host off and on, and look at its slot and power"),
)


@dataclass(frozen=True)
class Gpu:
    """One GPU; what its driver or board does not tell is None. Memory in MiB, temperatures in degrees Celsius.

    `slowdown_celsius` is where it slows down; newer boards tell a margin instead, which is left out. `recovery_action`
    is what the driver asks for, as `Reset`, and None where all is well. Of the memory, the driver keeps `reserved_mib`
    for itself (older ones do not tell it), and `free_mib` was free when it was asked.
    """

    address: str
    device: int
    name: str
    uuid: str
    memory_mib: int
    architecture: Optional[str] = None
    compute_capability: Optional[str] = None
    ecc: Optional[bool] = None
    mig: Optional[bool] = None
    mig_memory_mib: Tuple[int, ...] = ()
    fabric_state: Optional[str] = None
    fabric_status: Optional[str] = None
    row_remap_pending: Optional[bool] = None
    row_remap_failed: Optional[bool] = None
    recovery_action: Optional[str] = None
    slowdown_celsius: Optional[int] = None
    power_limit_watts: Optional[float] = None
    reserved_mib: Optional[int] = None
    free_mib: Optional[int] = None


@dataclass(frozen=True)
class Smi:
    """What the driver tells: its version, the highest CUDA version it serves, and its GPUs."""

    driver: str
    cuda: str
    gpus: Tuple[Gpu, ...] = ()
    links: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)


def ask() -> Smi:
    """Ask the driver. Raises RackllamaError, with cause and remedy, where it does not answer."""
    found = parse(_run("-q", "-x"))
    capabilities = parse_capabilities(_run("--query-gpu=pci.bus_id,compute_cap", "--format=csv,noheader"))
    gpus = tuple(replace(gpu, compute_capability=capabilities.get(gpu.address)) for gpu in found.gpus)
    links = parse_links(_run("topo", "-m")) if len(gpus) > 1 else {}
    return Smi(found.driver, found.cuda, gpus, links)


def parse(xml: str) -> Smi:
    """What `nvidia-smi -q -x` printed. Raises RackllamaError where that is none of it."""
    try:
        log = ElementTree.fromstring(xml)  # noqa: S314 - a program of root's on this host wrote it
        gpus = tuple(_gpu(element) for element in log.findall("gpu"))
    except (ElementTree.ParseError, ValueError, TypeError) as error:
        raise RackllamaError(f"nvidia-smi prints what is no report of it ({error})", "see: nvidia-smi -q -x") from error
    return Smi(_text(log, "driver_version") or "", _text(log, "cuda_version") or "", gpus)


def parse_capabilities(csv: str) -> Dict[str, str]:
    """Compute capabilities by PCI address, as `--query-gpu=pci.bus_id,compute_cap` prints them."""
    rows = [[cell.strip() for cell in line.split(",")] for line in csv.splitlines() if "," in line]
    return {pci_address(address): capability for address, capability in rows if capability not in ABSENT}


def parse_links(table: str) -> Dict[str, Tuple[str, ...]]:
    """For each GPU (`GPU0` …) how it reaches the others, as `topo -m` prints it: `NV18`, `PIX`, `PHB`, `SYS` …"""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", table)
    rows = [line.split() for line in plain.splitlines() if re.match(r"GPU\d+\s", line)]
    count = sum(1 for row in rows if row[1:2])
    return {row[0]: tuple(link for link in row[1 : count + 1] if link != "X") for row in rows if "X" in row}


def failure(said: str, code: int) -> RackllamaError:
    """What it means that nvidia-smi ended with this code and these words."""
    line = said.strip().splitlines()[0] if said.strip() else f"it ended with exit code {code}"
    remedy = next((remedy for words, remedy in CAUSES if words in said), "see: nvidia-smi, and `dmesg | grep -i nvrm`")
    return RackllamaError(f"the NVIDIA driver does not answer: {line}", remedy)


def pci_address(told: str) -> str:
    """An address as the kernel writes it: nvidia-smi writes `00000000:1E:00.0` for `0000:1e:00.0`."""
    domain, _, rest = told.strip().lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def _gpu(element: ElementTree.Element) -> Gpu:
    ids = _text(element, "pci/pci_device_id") or "0"
    return Gpu(
        address=pci_address(element.get("id") or ""),
        device=int(ids[:4], 16),  # the device's id, and then the vendor's
        name=_text(element, "product_name") or "",
        uuid=_text(element, "uuid") or "",
        memory_mib=_mib(_text(element, "fb_memory_usage/total")),
        architecture=_text(element, "product_architecture"),
        ecc=_is(element, "ecc_mode/current_ecc", "Enabled"),
        mig=_is(element, "mig_mode/current_mig", "Enabled"),
        mig_memory_mib=tuple(
            _mib(_text(device, "fb_memory_usage/total")) for device in element.findall("mig_devices/mig_device")
        ),
        fabric_state=_text(element, "fabric/state"),
        fabric_status=_text(element, "fabric/status"),
        row_remap_pending=_is(element, "remapped_rows/remapped_row_pending", "Yes"),
        row_remap_failed=_is(element, "remapped_rows/remapped_row_failure", "Yes"),
        recovery_action=_text(element, "gpu_recovery_action"),
        slowdown_celsius=_whole(_text(element, "temperature/gpu_temp_slow_threshold")),
        power_limit_watts=_number(
            _text(element, "gpu_power_readings/current_power_limit") or _text(element, "power_readings/power_limit")
        ),
        reserved_mib=_whole(_text(element, "fb_memory_usage/reserved")),
        free_mib=_whole(_text(element, "fb_memory_usage/free")),
    )


def _run(*arguments: str) -> str:
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        raise RackllamaError("there is no nvidia-smi", "install the driver: playbooks/site.yml") from None
    except subprocess.TimeoutExpired:
        raise RackllamaError(
            f"nvidia-smi does not answer within {SECONDS} s", "a GPU hangs: see `dmesg | grep -i xid`, and reboot"
        ) from None
    if done.returncode:
        raise failure(done.stdout + done.stderr, done.returncode)
    return done.stdout


def _text(element: ElementTree.Element, path: str) -> Optional[str]:
    found = (element.findtext(path) or "").strip()
    return None if found in ABSENT else found


def _is(element: ElementTree.Element, path: str, word: str) -> Optional[bool]:
    found = _text(element, path)
    return None if found is None else found == word


def _number(told: Optional[str]) -> Optional[float]:
    return float(told.split()[0]) if told else None


def _whole(told: Optional[str]) -> Optional[int]:
    number = _number(told)
    return None if number is None else int(number)


def _mib(told: Optional[str]) -> int:
    """Mebibytes, of `81559 MiB`."""
    number, _, unit = (told or "").partition(" ")
    if unit != "MiB":
        raise ValueError(f"{told!r} is no amount of memory")
    return int(number)
