"""What the catalogue knows of GPUs and of instance types that can be rented: figures with their sources and dates."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from rackllama.host.errors import RackllamaError

DATA = Path(__file__).with_name("data")
MOST_GPUS = 1024
NO_GPUS = "none"
WRITE_GPUS = f"write a count and a name of the catalogue, as 8xL20 or 2xH100-80GB,1xL40S, or {NO_GPUS}"
COUNTED = re.compile(r"(?P<count>\d+)\s*[x×*]\s*(?P<name>.+)", re.IGNORECASE | re.ASCII)  # noqa: RUF001 - as people paste it
PRICE_FIELDS = {"usd_per_hour", "region", "price_note", "ram_bandwidth_gbs"}
FILLERS = re.compile(r"NVIDIA|GEFORCE|TESLA|QUADRO|APPLE|GENERATION|GRAPHICS|[^A-Z0-9]")

Kind = Literal["cuda", "metal"]


@dataclass(frozen=True)
class Source:
    """Where a figure is from, and of which day: the source's own day, or the day of reading where it says so."""

    source: str
    date: date


@dataclass(frozen=True)
class CatalogueGpu:
    """A GPU. Memory in MiB, bandwidth in 10^9 bytes a second; what nobody told is None. `sources` are by field.

    `memory_mib` is the total as nvidia-smi prints it, and `usable_mib` what a CUDA program is shown of it. Both are
    None of a `metal` GPU, whose memory is the host's; `usable_share` of that is for the GPU as the system comes.
    `products` are its names as drivers tell them, `pci_ids` device ids that tell it from others of the same name.
    """

    name: str
    generation: str
    sources: Mapping[str, Source]
    kind: Kind = "cuda"
    memory_mib: int | None = None
    usable_mib: int | None = None
    usable_share: float | None = None
    bandwidth_gbs: float | None = None
    compute_capability: str | None = None
    link: str | None = None
    products: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    pci_ids: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Price:
    """US dollars an hour on demand in a region, where the figure is from, and of which day."""

    usd_per_hour: float
    region: str
    source: str
    date: date


@dataclass(frozen=True)
class Instance:
    """An instance type: `gpus` of the catalogue's `gpu`, memory in GiB, local disks in 10^9 bytes, network in Gbit/s.

    `gpu_memory_mib` is the provider's figure. `landing_gbit` is what one network card gives for long. `price` is None
    where none is known, and `price_note` then says why. `sources` are by field.
    """

    name: str
    gpu: str
    gpus: int
    gpu_memory_mib: int
    vcpus: int
    ram_gib: int
    disks: int
    disk_gb: int
    network_gbit: float
    landing_gbit: float
    usage: tuple[str, ...]
    price: Price | None
    price_note: str = ""
    ram_bandwidth_gbs: float | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)


@cache
def read_gpus(path: Path = DATA / "gpus.yaml") -> Mapping[str, CatalogueGpu]:
    """The known GPUs by name, in the order of the file."""
    document = read_document(path)
    sources = _sources(document)
    return {name: _gpu(name, told, sources) for name, told in document["gpus"].items()}


@cache
def read_instances(path: Path = DATA / "instances.yaml") -> Mapping[str, Instance]:
    """The known instance types by name, in the order of the file."""
    document = read_document(path)
    sources = _sources(document)
    return {
        name: _instance(name, {**document["shared"], **told}, sources) for name, told in document["instances"].items()
    }


def find_gpu(name: str, gpus: Mapping[str, CatalogueGpu] | None = None) -> CatalogueGpu:
    """The GPU that is called so, in whatever case and spacing: `rtx 4090`, `H100 80GB`, or as its driver names it.

    Raises RackllamaError where several are called so (as `A100`: 40 or 80 GB), or none, with those that come close.
    """
    known = read_gpus() if gpus is None else gpus
    exact = [gpu for gpu in known.values() if _key(name) in _keys(gpu)]
    # "A100" begins A100-40GB and A100-80GB; "L40" is no part of L40S, but another GPU.
    found = exact or [gpu for gpu in known.values() if _key(name) and _key(name) in _beginnings(gpu)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RackllamaError(
            f"{name!r} may be {' or '.join(gpu.name for gpu in found)}", "give the whole name, as one of these"
        )
    raise RackllamaError(
        f"the catalogue has no GPU {name!r}{_near(name, known)}",
        f"use one of: {', '.join(known)}; see docs/hardware.md",
    )


def find_product(
    product: str | None, pci_id: str | None, memory_mib: int | None, gpus: Mapping[str, CatalogueGpu] | None = None
) -> CatalogueGpu | None:
    """The GPU with this PCI device id (`2331`), or that a driver names so; None where the catalogue has it not.

    Of several with one product name, that with the nearest memory; None where that is not told.
    """
    known = (read_gpus() if gpus is None else gpus).values()
    by_id = [gpu for gpu in known if pci_id and pci_id in gpu.pci_ids]
    found = by_id or [gpu for gpu in known if product and product in gpu.products]
    if len(found) > 1 and memory_mib is not None:
        return min(found, key=lambda gpu: abs((gpu.memory_mib or 0) - memory_mib))
    return found[0] if len(found) == 1 else None


def parse_gpus(text: str, gpus: Mapping[str, CatalogueGpu] | None = None) -> tuple[CatalogueGpu, ...]:
    """GPUs of one host as people write them: `8xL20`, `2xH100-80GB,1xL40S`, `RTX4090`; `none` for a host without.

    Raises RackllamaError where that is nonsense, or names what the catalogue has not.
    """
    if text.strip().lower() == NO_GPUS:
        return ()
    return tuple(gpu for part in text.split(",") for gpu in _counted(part.strip(), gpus))


def find_instance(name: str, instances: Mapping[str, Instance] | None = None) -> Instance:
    """The instance type of this name. Raises RackllamaError with those that come close where there is none."""
    known = read_instances() if instances is None else instances
    found = known.get(name.strip().lower())
    if found is None:
        raise RackllamaError(
            f"the catalogue has no instance type {name!r}{_near(name, known)}",
            f"use one of: {', '.join(known)}; see docs/hardware.md",
        )
    return found


def read_document(path: Path) -> Any:
    """What a YAML file of the catalogue says."""
    # A plan would wait longer for PyYAML's own loader than for anything else that it reads.
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def _counted(part: str, gpus: Mapping[str, CatalogueGpu] | None) -> list[CatalogueGpu]:
    counted = COUNTED.fullmatch(part)
    name, count = (counted["name"], int(counted["count"])) if counted else (part, 1)
    if not re.search(r"[A-Za-z]|\d{4}", name):  # "4090" is a name, and "0" or "8" is none
        raise RackllamaError(f"{part!r} names no GPU", WRITE_GPUS)
    if not 1 <= count <= MOST_GPUS:
        raise RackllamaError(f"{part!r} counts {count} GPUs", f"give 1 to {MOST_GPUS} of them, or {NO_GPUS}")
    return [find_gpu(name, gpus)] * count


def _key(name: str) -> str:
    """What is left of a name without case, spacing and maker."""
    return FILLERS.sub("", name.upper())


def _keys(gpu: CatalogueGpu) -> set[str]:
    keys = {_key(name) for name in (gpu.name, *gpu.aliases, *gpu.products)}
    return keys | {_without_series(key) for key in keys}


def _beginnings(gpu: CatalogueGpu) -> set[str]:
    parts = gpu.name.split("-")
    keys = {_key("".join(parts[:count])) for count in range(1, len(parts))}
    return keys | {_without_series(key) for key in keys}


def _without_series(key: str) -> str:
    """`4090` of `RTX4090`, as many people say it."""
    return re.sub(r"^[RG]TX(?=A?\d{4})", "", key)


def _near(name: str, known: Iterable[str]) -> str:
    by_key = {_key(accepted): accepted for accepted in known}
    near = difflib.get_close_matches(_key(name), by_key, n=3)
    return f" (did you mean {' or '.join(by_key[key] for key in near)}?)" if near else ""


def _sources(document: Mapping[str, Any]) -> dict[str, Source]:
    return {name: Source(**told) for name, told in document["sources"].items()}


def _gpu(name: str, told: Mapping[str, Any], sources: Mapping[str, Source]) -> CatalogueGpu:
    lists = {key: tuple(told.get(key, ())) for key in ("products", "aliases", "pci_ids")}
    named = {key: sources[source] for key, source in told["sources"].items()}
    return CatalogueGpu(**{**told, **lists, "name": name, "sources": named})


def _instance(name: str, told: Mapping[str, Any], sources: Mapping[str, Source]) -> Instance:
    usd, source = told["usd_per_hour"], sources["prices"]
    return Instance(
        name=name,
        gpu=told["gpu"],
        gpus=told["gpus"],
        gpu_memory_mib=told["gpu_memory_mib"],
        vcpus=told["vcpus"],
        ram_gib=told["ram_gib"],
        disks=told["instance_store"]["count"],
        disk_gb=told["instance_store"]["size_gb"],
        network_gbit=told["network_gbit"],
        landing_gbit=told["landing_gbit"],
        usage=tuple(told["usage"]),
        price=None if usd is None else Price(usd, told["region"], source.source, source.date),
        price_note=told["price_note"],
        ram_bandwidth_gbs=told["ram_bandwidth_gbs"],
        sources={"usd_per_hour": source} | dict.fromkeys(told.keys() - PRICE_FIELDS, sources["specifications"]),
    )
