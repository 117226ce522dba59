"""`rackllama plan`: does a model fit, which layer goes where, how fast, how long to land, at what cost."""

import argparse
import gc
import json
import os
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.landing.amounts import AMOUNT, byte_count
from rackllama.planning.choose import Considered, choose_for, chosen
from rackllama.planning.hardware import (
    Disk,
    Hardware,
    available_instances,
    from_description,
    from_instance,
    from_names,
    parse_ram_bandwidth,
    parse_rate,
    parse_size,
)
from rackllama.planning.headers import NamedHeaders, find_headers
from rackllama.planning.kv_cache import CACHE_TYPES
from rackllama.planning.plan import MIB, Plan, Reserve, Wanted
from rackllama.planning.planner import make_plan
from rackllama.planning.shape import read_shape

EXIT_DOES_NOT_FIT = 3
BUDGET = re.compile(r"\$?(\d+(?:\.\d+)?)(?:/h)?", re.ASCII)
SOURCES_OF_HARDWARE = ("gpu", "instance", "host", "hardware")
TELL_HARDWARE = "say for what: --gpu 8xL20 --ram 2TiB, --instance, --host or --hardware; or --budget 20/h, --users 30"


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command that plans."""
    parser = commands.add_parser(
        "plan",
        help="tell whether a model fits, where its layers go, how fast it is and what it costs",
        description="Tell from a model's header alone, for hardware that need not exist yet: whether it fits, which "
        "layer goes where, how fast it answers, how long it takes to land, and what it costs. Nothing but headers is "
        "downloaded.",
        epilog="Exit codes: 0 it fits, 3 it does not fit, 2 it cannot be told. docs/planning.md tells more.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a GGUF file, a shard or a folder, or whatever `rackllama land` takes"
    )
    _add_hardware(parser)
    _add_choice(parser)
    _add_serving(parser)
    _add_reserve(parser)
    form = parser.add_argument_group("output and sources")
    form.add_argument("--json", action="store_true", help="print the plan as JSON")
    form.add_argument("--explain", action="store_true", help="print each formula with its numbers as well")
    form.add_argument("--lock", type=Path, metavar="PATH", help="default: artefacts.lock of the checkout")
    form.add_argument("--mirror", default="", metavar="URL", help="read https://HOST/PATH from URL/HOST/PATH first")
    parser.set_defaults(run=_run_plan)


def _add_hardware(parser: argparse.ArgumentParser) -> None:
    hardware = parser.add_argument_group("hardware", "One of the first four; the others tell more of it.")
    one = hardware.add_mutually_exclusive_group()
    one.add_argument("--gpu", metavar="GPUS", help="8xL20, or 2xH100-80GB,1xL40S, or none; `rackllama hardware` lists")
    one.add_argument("--instance", metavar="TYPE", help="an instance type, as p5.4xlarge")
    one.add_argument("--host", metavar="[USER@]HOST[:PORT]", help="a host that is asked over SSH what it has")
    one.add_argument("--hardware", metavar="FILE", help="a description as module gpu_facts gives it, as JSON")
    hardware.add_argument("--ram", metavar="SIZE", help="memory of the host: 384GiB, 2TiB")
    hardware.add_argument(
        "--ram-bandwidth", metavar="RATE", help="its channels, as 12xDDR5-4800, or a rate, as 460GB/s"
    )
    hardware.add_argument(
        "--numa-nodes", type=_count, metavar="N", help="processors with memory of their own; default: 1"
    )
    hardware.add_argument("--network", metavar="RATE", help="what the model comes through: 10Gbit/s")
    hardware.add_argument("--disk", metavar="SIZE", help="free space where models go: 3TB")
    hardware.add_argument("--disk-read", metavar="RATE", help="6GB/s")
    hardware.add_argument("--disk-write", metavar="RATE", help="2GB/s")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_argument_group("in place of hardware", "Choose the cheapest instance type that does.")
    choice.add_argument("--budget", type=_dollars, metavar="DOLLARS", help="that costs at most so much an hour: 20/h")
    choice.add_argument(
        "--users", type=_count, metavar="N", help="that serves so many at once at an acceptable rate, each in a slot"
    )


def _add_serving(parser: argparse.ArgumentParser) -> None:
    serving = parser.add_argument_group("how it is served")
    serving.add_argument("--context", type=_tokens, metavar="TOKENS", help="of each slot: 8192, 128k; default: 8192")
    serving.add_argument(
        "--parallel", type=_count, metavar="SLOTS", help="requests that are answered at once; default: 1"
    )
    serving.add_argument(
        "--kv", choices=CACHE_TYPES, default="f16", metavar="TYPE", help="of the cache: f16, q8_0, q4_0"
    )
    serving.add_argument("--kv-values", choices=CACHE_TYPES, metavar="TYPE", help="of its values, where it is another")
    serving.add_argument(
        "--flash-attention", choices=("on", "off", "auto"), default="auto", help="default: %(default)s"
    )
    serving.add_argument(
        "--micro-batch", type=_count, default=512, metavar="TOKENS", help="computed at once; default: %(default)s"
    )
    serving.add_argument(
        "--classic", action="store_true", help="whole layers only, without flash attention: what a Modelfile can tell"
    )
    serving.add_argument("--num-gpu", type=_number, metavar="N", help="so many layers on GPUs, the output as one more")
    serving.add_argument(
        "--experts-on-host", type=_number, metavar="N", help="the experts of the first N layers stay on the host"
    )
    serving.add_argument(
        "--depth", type=_number, default=512, metavar="TOKENS", help="of context there when timed; default: %(default)s"
    )


def _add_reserve(parser: argparse.ArgumentParser) -> None:
    reserve = parser.add_argument_group("what is left alone")
    reserve.add_argument(
        "--margin-mib", type=_number, default=1024, metavar="MIB", help="on each GPU; default: %(default)s"
    )
    reserve.add_argument(
        "--context-mib", type=_number, default=450, metavar="MIB", help="for CUDA on each GPU; default: %(default)s"
    )
    reserve.add_argument("--host-reserve", type=_mib, default=2048, metavar="SIZE", help="on the host; default: 2GiB")


def _run_plan(arguments: argparse.Namespace) -> int:
    gc.disable()  # a fifth of the time went into looking for garbage in circles, of which a plan makes none
    _check_hardware_is_told(arguments)
    hardware = _hardware(arguments)
    if hardware is None:
        return _choose(arguments)

    found = _headers(arguments)
    plan = make_plan(read_shape(found.headers), hardware, _wanted(arguments), found.name, found.total_bytes)
    _print_plan(plan, arguments)
    return 0 if plan.fits else EXIT_DOES_NOT_FIT


def _choose(arguments: argparse.Namespace) -> int:

    found = _headers(arguments)
    considered = choose_for(found, _wanted(arguments), available_instances(), arguments.budget, arguments.users)
    best = chosen(considered)
    _print_choice(found.name, best.plan if best else None, considered, arguments)
    return 0 if best else EXIT_DOES_NOT_FIT


def _check_hardware_is_told(arguments: argparse.Namespace) -> None:
    is_told = any(getattr(arguments, name) is not None for name in SOURCES_OF_HARDWARE)
    is_chosen = arguments.budget is not None or arguments.users is not None
    if is_told and is_chosen:
        raise RackllamaError(
            "--budget and --users choose an instance type, and the hardware is given",
            "leave the hardware out, or ask for as many slots with --parallel",
        )
    if not is_told and not is_chosen:
        raise RackllamaError("nobody said what to plan for", TELL_HARDWARE)


def _hardware(arguments: argparse.Namespace) -> Hardware | None:
    """What is given to plan for; None where it is to be chosen."""

    if arguments.gpu is not None:
        return from_names(
            arguments.gpu,
            arguments.ram,
            ram_bandwidth=arguments.ram_bandwidth,
            numa_nodes=arguments.numa_nodes or 1,
            network=arguments.network,
            disk=arguments.disk,
            disk_read=arguments.disk_read,
            disk_write=arguments.disk_write,
        )
    if arguments.instance is not None:
        found = from_instance(arguments.instance)
    elif arguments.host is not None:
        from rackllama.planning.remote_host import describe_host  # noqa: PLC0415 - what speaks SSH takes a while to load

        found = from_description(describe_host(arguments.host), arguments.host)
    elif arguments.hardware is not None:
        found = _described(Path(arguments.hardware))
    else:
        return None
    return _amended(found, arguments)


def _described(path: Path) -> Hardware:

    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return from_description(described, str(described.get("name") or path.stem))
    except OSError as error:
        raise RackllamaError(f"{path}: {error.strerror}", "give a file with a hardware description") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RackllamaError(
            f"{path} is no hardware description ({type(error).__name__}: {error})",
            "give what module gpu_facts returns as `hardware`, as JSON; docs/gpu-hosts.md tells its fields",
        ) from error


def _amended(hardware: Hardware, arguments: argparse.Namespace) -> Hardware:
    """The hardware with what the command line tells of it in place of what it tells itself."""

    told: dict[str, Any] = {}
    if arguments.ram:
        told["ram_mib"] = parse_size(arguments.ram) // MIB
    if arguments.ram_bandwidth:
        told["ram_bandwidth_gbs"] = parse_ram_bandwidth(arguments.ram_bandwidth)
    if arguments.numa_nodes:
        told["numa_nodes"] = arguments.numa_nodes
    if arguments.network:
        told["network_mbs"] = parse_rate(arguments.network)
    if arguments.disk or arguments.disk_read or arguments.disk_write:
        told["disks"] = (
            Disk(
                "disk",
                parse_size(arguments.disk) if arguments.disk else sum(disk.free_bytes for disk in hardware.disks),
                arguments.disk_read and parse_rate(arguments.disk_read),
                arguments.disk_write and parse_rate(arguments.disk_write),
            ),
        )
    return replace(hardware, **told)


def _wanted(arguments: argparse.Namespace) -> Wanted:

    return Wanted(
        context=arguments.context,
        parallel=arguments.parallel or arguments.users or 1,
        key_type=arguments.kv,
        value_type=arguments.kv_values or arguments.kv,
        flash_attention=arguments.flash_attention,
        micro_batch=arguments.micro_batch,
        is_classic=arguments.classic,
        num_gpu=arguments.num_gpu,
        experts_on_host=arguments.experts_on_host,
        depth=arguments.depth,
        reserve=Reserve(arguments.margin_mib, arguments.context_mib, arguments.host_reserve),
    )


def _headers(arguments: argparse.Namespace) -> NamedHeaders:

    found = find_headers(arguments.model, os.environ, arguments.mirror, arguments.lock)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    return found


def _print_plan(plan: Plan, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(plan.as_data(), allow_nan=False))
        return

    from rackllama.planning.page import page, show  # noqa: PLC0415 - JSON does without rich

    show(page(plan, is_explained=arguments.explain), sys.stdout, os.environ)


def _print_choice(
    model: str, plan: Plan | None, considered: Sequence[Considered], arguments: argparse.Namespace
) -> None:
    """The plan for what is chosen, and what was considered."""
    if arguments.json:
        data = plan.as_data() if plan else {"model": model, "fits": False}
        print(json.dumps({**data, "considered": [one.as_data() for one in considered]}))
        return

    from rackllama.planning.page import choice, show  # noqa: PLC0415 - JSON does without rich

    show(choice(model, plan, considered, is_explained=arguments.explain), sys.stdout, os.environ)


def _count(text: str) -> int:
    if not _number(text):
        raise ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _tokens(text: str) -> int:
    """Tokens, of which a k means 1024."""
    found = re.fullmatch(r"([0-9]{1,9})([kK]?)", text)
    if not found or not int(found[1]):
        raise ArgumentTypeError(f"{text!r} is no number of tokens: write 8192 or 128k")
    return int(found[1]) * (1024 if found[2] else 1)


def _dollars(text: str) -> float:
    found = BUDGET.fullmatch(text)
    if not found or not float(found[1]):
        raise ArgumentTypeError(f"{text!r} is no budget: write 20/h for 20 US dollars an hour")
    return float(found[1])


def _mib(text: str) -> int:

    found = AMOUNT.fullmatch(text)
    if text != "0" and not (found and found["unit"]):
        raise ArgumentTypeError(f"{text!r} is no amount of memory: write 2GiB or 4096MiB")
    return byte_count(text) >> 20
