"""What a plan is made for: a host's GPUs, memory, disks and network, from names, an instance type or a real host."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, Unpack

from rackllama.catalog.hardware import (
    CatalogueGpu,
    Instance,
    Kind,
    Price,
    find_gpu,
    find_instance,
    find_product,
    parse_gpus,
    read_gpus,
    read_instances,
)
from rackllama.host.errors import RackllamaError
from rackllama.landing.amounts import AMOUNT, byte_count

__all__ = [
    "Disk",
    "Gpu",
    "Hardware",
    "Price",
    "available_instances",
    "from_description",
    "from_instance",
    "from_names",
    "module_bandwidth_gbs",
    "parse_ram_bandwidth",
    "parse_rate",
    "parse_size",
]

MIB = 2**20
CHANNEL_BYTES = 8  # that a channel of DDR memory moves at once
MEMORY = re.compile(r"(?P<count>\d{1,3})\s*x\s*(?:LP)?DDR\d\w?-(?P<rate>\d{3,5})", re.IGNORECASE)
RATE = re.compile(
    r"(?P<number>\d+(?:\.\d+)?) ?(?P<prefix>[KMGT])(?P<binary>i)?(?P<unit>bit(?:/s)?|[bB](?:/s|ps))", re.ASCII
)
PREFIXES = {"K": 1, "M": 2, "G": 3, "T": 4}
MOST = 10**18
# Name -> what it may be, and the least.
HOST_AMOUNTS = {
    "ram_mib": (int, 1),
    "ram_bandwidth_gbs": (int | float, 1e-3),
    "numa_nodes": (int, 0),
    "network_mbs": (int | float, 1e-3),
}
GPU_AMOUNTS = {
    "memory_mib": (int, 1),
    "mig_memory_mib": (int, 1),
    "usable_mib": (int, 0),
    "reserved_mib": (int, 0),
    "free_mib": (int, 0),
    "bandwidth_gbs": (int | float, 1e-3),
}
DISK_AMOUNTS = {"free_bytes": (int, 0), "read_mbs": (int | float, 1e-3), "write_mbs": (int | float, 1e-3)}
SAME_MEMORY = 0.1  # drivers and ECC move the total of one kind of GPU by less


@dataclass(frozen=True)
class Gpu:
    """A device that a model's layers go to: a GPU, or one of the parts that a GPU is split into by MIG.

    `memory_mib` is the total as the driver tells it (unified memory: of the host); `usable_mib` what a program is shown
    of it, None where nobody told; `free_mib` what is free now, of a real host only. Bandwidth in 10^9 bytes a second.
    """

    name: str
    memory_mib: int
    bandwidth_gbs: float | None = None
    compute_capability: str | None = None
    kind: Kind = "cuda"
    link: str | None = None
    free_mib: int | None = None
    usable_mib: int | None = None

    @property
    def shown_mib(self) -> int:
        """What a program is shown of its memory, as far as anybody told."""
        return self.memory_mib if self.usable_mib is None else self.usable_mib


@dataclass(frozen=True)
class Disk:
    """Where models may land: free bytes, and megabytes (10^6) a second, None where they were not measured."""

    path: str
    free_bytes: int
    read_mbs: float | None = None
    write_mbs: float | None = None


@dataclass(frozen=True)
class Hardware:
    """One host. What is not known is None: bandwidths in 10^9 bytes a second, the network in 10^6 bytes a second.

    `ram_bandwidth_gbs` is theoretical, of all memory channels of all NUMA nodes together. With `is_unified` the
    memory of its one GPU is its RAM, and not to be counted twice.
    """

    name: str
    gpus: tuple[Gpu, ...] = ()
    ram_mib: int | None = None
    ram_bandwidth_gbs: float | None = None
    numa_nodes: int = 1
    disks: tuple[Disk, ...] = ()
    network_mbs: float | None = None
    is_unified: bool = False
    price: Price | None = None

    def as_data(self) -> dict[str, Any]:
        """Plain data, for JSON: the fields, in the shape of a host's own description."""
        return asdict(self) | {"price": self.price and asdict(self.price) | {"date": self.price.date.isoformat()}}


class HostAmounts(TypedDict, total=False):
    """What else may be told of a host by its owner; texts with units, as `24xDDR5-4800`, `10Gbit/s`, `3TB`, `6GB/s`."""

    ram_bandwidth: str | None
    numa_nodes: int
    network: str | None
    disk: str | None
    disk_read: str | None
    disk_write: str | None


def from_names(gpus: str, ram: str | None = None, **amounts: Unpack[HostAmounts]) -> Hardware:
    """Hardware that may not exist yet: `8xL20` (or `none`), `2TiB` of memory, and more `amounts` where they are known.

    Raises RackllamaError where an amount is nonsense or 0, a GPU unknown, or unified memory has no size.
    """
    found = parse_gpus(gpus)
    ram_mib = None if ram is None else parse_size(ram) // MIB
    unified = next((gpu for gpu in found if gpu.kind == "metal"), None)
    if unified and len(found) > 1:
        raise RackllamaError(f"no host has {gpus}", f"plan one {unified.name}, or GPUs of NVIDIA")
    if unified and ram_mib is None:
        raise RackllamaError(f"the memory of {unified.name} is that of its host", "say how much: --ram 192GiB")
    numa_nodes = amounts.get("numa_nodes", 1)
    if numa_nodes < 1:
        raise RackllamaError(f"no host has {numa_nodes} NUMA nodes", "give 1 or more")
    disk = amounts.get("disk")
    read, write = _rate(amounts.get("disk_read")), _rate(amounts.get("disk_write"))
    return Hardware(
        name=gpus.strip(),
        gpus=tuple(_of_catalogue(gpu, ram_mib) for gpu in found),
        ram_mib=ram_mib,
        ram_bandwidth_gbs=_ram_bandwidth(amounts.get("ram_bandwidth"), unified),
        numa_nodes=numa_nodes,
        disks=(Disk("disk", parse_size(disk), read, write),) if disk else (),
        network_mbs=_rate(amounts.get("network")),
        is_unified=unified is not None,
    )


def from_instance(instance: str | Instance) -> Hardware:
    """An instance type, by name or as the catalogue has it; its local disks as one, as role `storage` joins them.

    The memory of its GPUs is what their driver shows, not the provider's round number. Raises RackllamaError where
    there is none of this name.
    """
    found = find_instance(instance) if isinstance(instance, str) else instance
    stripe = f"{found.disks} local disk{'s' * (found.disks > 1)}"
    return Hardware(
        name=found.name,
        gpus=(_of_catalogue(find_gpu(found.gpu)),) * found.gpus,
        ram_mib=found.ram_gib * 1024,
        ram_bandwidth_gbs=found.ram_bandwidth_gbs,
        disks=(Disk(stripe, found.disks * found.disk_gb * 10**9),) if found.disks else (),
        network_mbs=found.landing_gbit * 1000 / 8,
        price=found.price,
    )


def available_instances() -> tuple[Hardware, ...]:
    """All instance types of the catalogue; the price is None of those whose price nobody told."""
    return tuple(from_instance(instance) for instance in read_instances().values())


def from_description(described: Mapping[str, Any], name: str = "") -> Hardware:
    """A real host, from what `rackllama.host.hardware.description.describe` tells of it.

    Each part of a GPU that MIG splits is a device of its own. A GPU that the catalogue has not keeps what the driver
    tells, without a bandwidth. Raises RackllamaError where nobody tells the memory of a GPU, and for what is no number.
    """
    _check_numbers(described)
    driver, network = described.get("driver") or {}, described.get("network_mbs")
    gpus = tuple(device for gpu in described["gpus"] for device in _devices(gpu, driver))
    return Hardware(
        name=name or described.get("name") or "host",
        gpus=gpus,
        ram_mib=described.get("ram_mib"),
        ram_bandwidth_gbs=described.get("ram_bandwidth_gbs") or module_bandwidth_gbs(described.get("memory_modules")),
        numa_nodes=described.get("numa_nodes") or 1,
        disks=tuple(_disk(disk) for disk in described.get("disks") or ()),
        network_mbs=None if network is None else float(network),
        is_unified=any(gpu.kind == "metal" for gpu in gpus),
    )


def _check_numbers(described: Mapping[str, Any]) -> None:
    """Every amount is unknown, or a number that can be."""
    places = [("the host", described, HOST_AMOUNTS)]
    places += [(f"GPU {number}", gpu, GPU_AMOUNTS) for number, gpu in enumerate(described["gpus"])]
    places += [(f"disk {disk.get('path')}", disk, DISK_AMOUNTS) for disk in described.get("disks") or ()]
    for place, told, amounts in places:
        for name, (types, least) in amounts.items():
            values = told.get(name)
            for value in values if isinstance(values, list | tuple) else [values]:
                if value is None:
                    continue
                if isinstance(value, bool) or not isinstance(value, types) or not least <= value < MOST:
                    raise RackllamaError(
                        f"{name} of {place} is told as {value!r}", f"give a number, at least {least}, or null"
                    )
    kinds = {gpu.get("kind") or "cuda" for gpu in described["gpus"]}
    if kinds - {"cuda", "metal"} or ("metal" in kinds and len(described["gpus"]) > 1):
        raise RackllamaError(
            f"nothing is known of hosts with GPUs of the kinds {', '.join(sorted(kinds))}",
            "plan GPUs of NVIDIA, of kind cuda, or one of Apple's, of kind metal",
        )


def module_bandwidth_gbs(modules: Mapping[str, Any] | None) -> float | None:
    """What memory modules (`count`, `rate_mts`) give at most: one channel each, so too much where two share one.

    None where the firmware does not tell them, or their rates differ.
    """
    if not modules or not modules.get("rate_mts"):
        return None
    count, rate_mts = int(modules["count"]), int(modules["rate_mts"])
    return count * rate_mts * CHANNEL_BYTES / 1000


def parse_size(text: str) -> int:
    """Bytes, of an amount with its unit: `384GiB`, `2TiB`, `500GB`. Raises RackllamaError where it is none, or 0."""
    remedy = "give an amount with its unit, as 384GiB, 2TiB or 500GB"
    found = AMOUNT.fullmatch(text.strip())
    if not found or not found["unit"]:
        raise RackllamaError(f"{text!r} is no amount of memory or disk", remedy)
    size = byte_count(text)
    if size < MIB:
        raise RackllamaError(f"{text!r} is too little for anything", remedy)
    return size


def parse_rate(text: str) -> float:
    """Megabytes (10^6) a second: `10Gbit/s`, `10Gbps`, `1.2GB/s`. Raises RackllamaError where it is no rate, or 0."""
    found = RATE.fullmatch(text.strip())
    if not found or not float(found["number"]):
        raise RackllamaError(f"{text!r} is no rate", "give a rate with its unit, as 10Gbit/s or 3.5GB/s")
    base = 1024.0 if found["binary"] else 1000.0
    return (
        float(found["number"]) * base ** PREFIXES[found["prefix"]] / 1e6 / (1 if found["unit"].startswith("B") else 8)
    )


def parse_ram_bandwidth(text: str) -> float:
    """10^9 bytes a second, of a rate (`460.8GB/s`) or of the filled memory channels (`12xDDR5-4800`).

    Raises RackllamaError where it is neither.
    """
    channels = MEMORY.fullmatch(text.strip())
    if channels and int(channels["count"]):
        return int(channels["count"]) * int(channels["rate"]) * CHANNEL_BYTES / 1000
    try:
        return parse_rate(text) / 1000
    except RackllamaError:
        raise RackllamaError(
            f"{text!r} is no bandwidth of memory", "give its channels, as 12xDDR5-4800, or a rate, as 460.8GB/s"
        ) from None


def _of_catalogue(gpu: CatalogueGpu, ram_mib: int | None = None) -> Gpu:
    memory = ram_mib if gpu.kind == "metal" else gpu.memory_mib
    if memory is None:
        raise RackllamaError(f"nobody told the memory of {gpu.name}", "add it to the catalogue: docs/hardware.md")
    return Gpu(
        name=gpu.name,
        memory_mib=memory,
        bandwidth_gbs=gpu.bandwidth_gbs,
        compute_capability=gpu.compute_capability,
        kind=gpu.kind,
        link=gpu.link,
        usable_mib=int(memory * gpu.usable_share) if gpu.usable_share else gpu.usable_mib,
    )


def _ram_bandwidth(text: str | None, unified: CatalogueGpu | None) -> float | None:
    if text is not None:
        return parse_ram_bandwidth(text)
    return unified.bandwidth_gbs if unified else None


def _devices(told: Mapping[str, Any], driver: Mapping[str, Any]) -> list[Gpu]:
    known = _known(told)
    name = known.name if known else told.get("name") or f"GPU {told.get('device', '')}".strip()
    memory = told.get("memory_mib") or (known.memory_mib if known else None)
    if memory is None:
        raise RackllamaError(
            f"nobody tells the memory of {name}: {driver.get('problem') or 'there is no driver'}",
            driver.get("remedy") or "install the driver: playbooks/site.yml",
        )
    whole = Gpu(
        name=name,
        memory_mib=memory,
        bandwidth_gbs=told.get("bandwidth_gbs") or (known.bandwidth_gbs if known else None),
        compute_capability=told.get("compute_capability") or (known.compute_capability if known else None),
        kind=told.get("kind") or "cuda",
        link=told.get("link"),
        free_mib=told.get("free_mib"),
        usable_mib=_usable(told, known),
    )
    return [_part(whole, part) for part in told.get("mig_memory_mib") or ()] if told.get("mig") else [whole]


def _known(told: Mapping[str, Any]) -> CatalogueGpu | None:
    """What the catalogue has of it; nothing where its memory is another one, as of an RTX 3060 with 8 GB."""
    memory, device = told.get("memory_mib"), told.get("device") or ""
    known = find_product(told.get("product"), device.partition(":")[2], memory) or read_gpus().get(
        told.get("name") or ""
    )
    if known is None or memory is None or known.memory_mib is None:
        return known
    return known if abs(memory - known.memory_mib) <= known.memory_mib * SAME_MEMORY else None


def _usable(told: Mapping[str, Any], known: CatalogueGpu | None) -> int | None:
    """What the driver leaves of the total: what it tells itself, or else what the catalogue knows of the same total."""
    if told.get("usable_mib") is not None:
        return int(told["usable_mib"])
    if told.get("reserved_mib") is not None:
        return int(told["memory_mib"] - told["reserved_mib"])
    return known.usable_mib if known and told.get("memory_mib") in (None, known.memory_mib) else None


def _part(whole: Gpu, memory_mib: int) -> Gpu:
    """A part of a GPU: of its bandwidth it has the share that it has of its memory, as MIG deals both in slices."""
    share = memory_mib / whole.memory_mib
    bandwidth = None if whole.bandwidth_gbs is None else round(whole.bandwidth_gbs * share, 1)
    return Gpu(
        name=f"{whole.name} MIG {round(memory_mib / 1024)}GB",
        memory_mib=memory_mib,
        bandwidth_gbs=bandwidth,
        compute_capability=whole.compute_capability,
        kind=whole.kind,
        link=whole.link,
    )


def _disk(told: Mapping[str, Any]) -> Disk:
    return Disk(told["path"], told["free_bytes"], told.get("read_mbs"), told.get("write_mbs"))


def _rate(text: str | None) -> float | None:
    return None if text is None else parse_rate(text)
