"""`rackllama models` and `rackllama hardware`: what the catalogue has, and what of it is locked."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rackllama.catalog.hardware import CatalogueGpu, Instance, read_gpus, read_instances
from rackllama.catalog.models import Catalogue, CatalogueEntry, read_catalogue, slug_of
from rackllama.mirror.lock import Artefact, default_lock_path, read_lock

GPU_COLUMNS = ("GPU", "MiB", "GB/s", "capability", "link", "")
INSTANCE_COLUMNS = ("instance type", "GPUs", "vCPUs", "RAM GiB", "disks GB", "Gbit/s", "USD/h")


@dataclass(frozen=True)
class Variant:
    """One variant as the lock has it: `remedy` is the command that locks it, empty where it is locked."""

    name: str
    slug: str
    locked: bool
    remedy: str


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands that list the known models, and the hardware that a plan can be made for."""
    hardware = commands.add_parser(
        "hardware",
        help="list the known GPUs and instance types",
        description="List the GPUs and the instance types of the catalogue, with prices on demand. --json tells where "
        "each figure is from, and of which day.",
    )
    hardware.add_argument("--json", action="store_true", help="print the result as JSON, with the sources")
    hardware.set_defaults(run=_run_hardware)
    models = commands.add_parser(
        "models",
        help="list the known models",
        description="List the models of the catalogue and their variants, with what a lock knows of each. What is not "
        "locked cannot land: the command that locks it stands beside it.",
    )
    models.add_argument("--lock", type=Path, metavar="PATH", help="default: artefacts.lock of the checkout")
    form = models.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the result as JSON")
    form.add_argument("--markdown", action="store_true", help="print the table of docs/models.md")
    models.set_defaults(run=_run_models)


def _run_hardware(arguments: argparse.Namespace) -> int:
    gpus, instances = read_gpus().values(), read_instances().values()
    if arguments.json:
        told = {"gpus": [asdict(gpu) for gpu in gpus], "instances": [asdict(instance) for instance in instances]}
        print(json.dumps(told, default=str))  # dates
    else:
        print(f"{table(GPU_COLUMNS, map(_gpu_row, gpus))}\n\n{table(INSTANCE_COLUMNS, map(_instance_row, instances))}")
    return 0


def _gpu_row(gpu: CatalogueGpu) -> Sequence[str]:
    memory = f"{gpu.memory_mib}" if gpu.memory_mib else "the host's"
    return gpu.name, memory, f"{gpu.bandwidth_gbs:g}", gpu.compute_capability or "", gpu.link or "", gpu.note


def _instance_row(instance: Instance) -> Sequence[str]:
    price = f"{instance.price.usd_per_hour:.2f} {instance.price.region}" if instance.price else instance.price_note
    disks, gpus = f"{instance.disks} x {instance.disk_gb}", f"{instance.gpus}x{instance.gpu}"
    return instance.name, gpus, str(instance.vcpus), str(instance.ram_gib), disks, f"{instance.landing_gbit:g}", price


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of cells under each other, below the names of their columns."""
    lines = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _run_models(arguments: argparse.Namespace) -> int:
    catalogue = read_catalogue()
    if arguments.markdown:
        print(markdown(catalogue))
        return 0
    path = arguments.lock or default_lock_path()
    lock = read_lock(path)
    if arguments.json:
        print(json.dumps({"lock": str(path), "models": [as_data(entry, lock) for entry in catalogue.values()]}))
    else:
        print(listing(catalogue, lock))
    return 0


def variants_of(entry: CatalogueEntry, lock: Mapping[str, Artefact]) -> list[Variant]:
    """The variants of a model, each with what the lock knows of it."""
    found = []
    for name in entry.variants:
        slug = slug_of(entry.name, name)
        artefact = lock.get(slug)
        if artefact is None:
            remedy = f"add {slug} to the lock"
        else:
            remedy = "" if artefact.is_locked else f"run: rackllama lock {slug}"
        found.append(Variant(name, slug, not remedy, remedy))
    return found


def as_data(entry: CatalogueEntry, lock: Mapping[str, Artefact]) -> dict[str, Any]:
    """A model as plain data; parameters are counted in billions and the context in tokens."""
    return {
        "name": entry.name,
        "family": entry.family,
        "licence": entry.licence,
        "source": entry.source,
        "size_billions": entry.size_billions,
        "active_billions": entry.active_billions,
        "trained_context": entry.trained_context,
        "reasoning": entry.reasoning,
        "variants": [asdict(variant) for variant in variants_of(entry, lock)],
    }


def size_text(entry: CatalogueEntry) -> str:
    """How many parameters a model has: `0.6B`, or `235B, 22B active`; empty where it is not known."""
    total, active = (f"{count:g}B" if count else "" for count in (entry.size_billions, entry.active_billions))
    return f"{total}, {active} active" if active else total


def listing(catalogue: Catalogue, lock: Mapping[str, Artefact]) -> str:
    """A paragraph for each model: what it is, and a line for each of its variants with what the lock knows of it."""
    return "\n\n".join(_paragraph(entry, variants_of(entry, lock)) for entry in catalogue.values())


def _paragraph(entry: CatalogueEntry, variants: Sequence[Variant]) -> str:
    thinks = "thinks" if entry.reasoning else ""
    about = (size_text(entry), f"context {entry.trained_context}", thinks, entry.licence)
    width = max(len(variant.name) for variant in variants)
    lines = (f"  {v.name:{width}}  {'locked' if v.locked else f'not locked, {v.remedy}'}" for v in variants)
    return "\n".join([f"{entry.name}: {'; '.join(filter(None, about))}", *lines])


def markdown(catalogue: Catalogue) -> str:
    """The table of docs/models.md."""
    head = ("name", "parameters", "context", "thinks", "variants", "licence")
    rows = (
        (
            f"[`{entry.name}`]({entry.source})",
            size_text(entry),
            str(entry.trained_context),
            "yes" if entry.reasoning else "",
            ", ".join(f"`{variant}`" for variant in entry.variants),
            entry.licence,
        )
        for entry in catalogue.values()
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
