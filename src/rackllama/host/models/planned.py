"""Whether a model that is loaded takes what its plan said: what llama-server tells in Ollama's journal as it loads.

`/api/ps` alone does not do: Ollama tells a size of 0 for a model that is wholly in the host's memory, and forgets a
part of a cache that has two kinds of layers.
"""

import re
import subprocess
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from ..errors import RackllamaError
from ..report import Check
from . import allocation_failures
from .ollama import Ollama

UNIT = "ollama.service"
START = re.compile(r'msg="starting llama-server".* --model (\S+)(?:.* -c (\d+)\b)?')
LOAD = "load_tensors: loading model tensors"
BUFFER = re.compile(r"^\S+:\s+(\S+)\s+(model|KV|compute|output|RS) buffer size\s*=\s*([\d.]+) MiB")
OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
GPU_NUMBER = re.compile(r"^[A-Za-z]+(\d+)")  # `MTL0_Mapped` is one of MTL0
HOST = re.compile(r"(CPU|BLAS)(_\S+)?|\S+_Host")
MAPPED = "_Mapped"
NEEDED = ("fits", "serving", "devices", "host", "num_gpu", "max_context", "remedies")
PARTS = ("weights_mib", "kv_mib", "compute_mib")
# llama-server tells what it allocates to 0.01 MiB; it needs some MiB besides, and copies that only CUDA makes.
TOLERATED_SHARE, TOLERATED_MIB = 0.02, 16
RELOAD = "unload it, ask it something, and verify again: ollama stop"


@dataclass(frozen=True)
class Loading:
    """What llama-server told as it loaded a model: MiB by buffer and kind (model, KV, compute …), layers on GPUs."""

    buffers: Mapping[Tuple[str, str], float] = field(default_factory=dict)
    gpu_layers: Optional[int] = None

    def on(self, number: int) -> float:
        """MiB on the GPU of that number, as 0 for `CUDA0`."""
        return sum(
            size
            for (name, _), size in self.buffers.items()
            if not HOST.fullmatch(name) and GPU_NUMBER.findall(name)[:1] == [str(number)]
        )

    @property
    def is_mapped(self) -> bool:
        """Whether the host's weights are pages of the file, whose number tells nothing of what is held."""
        return any(name.endswith(MAPPED) and HOST.fullmatch(name) for name, _ in self.buffers)

    @property
    def host(self) -> float:
        """MiB of the host's memory; without weights where they are pages of the file, or made from these anew."""
        return sum(
            size
            for (name, kind), size in self.buffers.items()
            if HOST.fullmatch(name) and not (self.is_mapped and kind == "model")
        )


def loading_of(lines: Iterable[str], weights: str, context: Optional[int] = None) -> Optional[Loading]:
    """The last loading of the model at path `weights` of which these lines of Ollama's journal tell, if they do.

    One with another `context`, of all slots together, is of another model with the same weights, or of somebody's wish.
    """
    buffers: Dict[Tuple[str, str], float] = {}
    layers: Optional[int] = None
    is_it = told = False
    for line in lines:
        started = START.search(line) if "--model" in line else None
        if started:
            is_it = started[1] == weights and (None in (context, started[2]) or int(started[2]) == context)
        if not is_it or ("load_tensors:" not in line and "buffer size" not in line):
            continue
        if LOAD in line:  # what was told before, it only tried
            buffers, layers, told = {}, None, True
        found, offloaded = BUFFER.match(line), OFFLOADED.search(line)
        if found:
            key = (found[1], found[2])
            buffers[key] = buffers.get(key, 0.0) + float(found[3])
        elif offloaded:
            layers = int(offloaded[1])
    return Loading(buffers, layers) if told and buffers else None


def plan_checks(name: str, plan: Mapping[str, Any], server: Ollama, weights: str) -> List[Check]:
    """What was planned for a model that is loaded beside what its engine tells. Nothing is raised."""
    if set(NEEDED) - set(plan):
        return [Check(f"plan.memory {name}", True, "what was planned", "not told: the plan is of another version")]
    if not plan["fits"]:
        told = "told only: it was not expected to fit, and nothing of its plan was set"
        return [Check(f"plan.memory {name}", True, "what was planned", told)]
    try:
        context = next((model.get("context_length") for model in server.loaded() if model.get("name") == name), None)
    except RackllamaError as error:
        return [Check(f"plan.memory {name}", False, "an answering engine", error.message, error.remedy)]
    wanted = plan["serving"]["context"] // plan["serving"]["parallel"]
    found = f"{context} tokens" if context is not None else "not told: it is no longer loaded"
    converge = "converge again: playbooks/site.yml"
    checks = [Check(f"plan.context {name}", context in (None, wanted), f"{wanted} tokens", found, converge)]
    loading = loading_of(_journal(), weights, plan["serving"]["context"])
    if loading is None:
        told = "not told: the journal no longer has its loading"
        return [*checks, Check(f"plan.memory {name}", True, "what was planned", told)]
    return [*checks, *memory_checks(name, plan, loading)]


def with_advice(checks: Iterable[Check], plan: Optional[Mapping[str, Any]]) -> List[Check]:
    """The checks; where an engine found no room for a model, the remedy tells what its plan has room for. Pure."""
    plan = plan if plan and not set(NEEDED) - set(plan) else None
    return [_advised(check, plan) if plan and not check.ok else check for check in checks]


def _advised(check: Check, plan: Mapping[str, Any]) -> Check:
    failure = allocation_failures.find_failure(check.found.splitlines())
    return check if failure is None else replace(check, remedy=allocation_failures.remedy(failure, plan))


def memory_checks(name: str, plan: Mapping[str, Any], loading: Loading) -> Iterator[Check]:
    """The plan of each device, and of the host, beside what it holds. Pure."""
    if plan["devices"]:
        ok = loading.gpu_layers == plan["num_gpu"]
        yield _check(f"plan.layers {name}", ok, f"{plan['num_gpu']} on GPUs", f"{loading.gpu_layers} on GPUs")
    for number, device in enumerate(plan["devices"]):
        yield _memory(f"plan.memory {name} GPU {number}", device, PARTS, loading.on(number))
    yield _memory(f"plan.memory {name}", plan["host"], PARTS[loading.is_mapped :], loading.host)


def _memory(identity: str, device: Mapping[str, Any], parts: Iterable[str], found: float) -> Check:
    wanted = sum(device[part] for part in parts)
    tolerated = max(TOLERATED_SHARE * wanted, TOLERATED_MIB) + device["cuda_only_mib"]
    ok = abs(found - wanted) <= tolerated
    return _check(identity, ok, f"{wanted} MiB within {tolerated:.0f}", f"{found:.0f} MiB, {wanted} planned")


def _check(identity: str, ok: bool, wanted: str, found: str) -> Check:
    return Check(identity, ok, wanted, found, RELOAD)


def _journal() -> Iterator[str]:
    """What Ollama and its runners told since it was started, line by line."""
    command = ["journalctl", "--unit", UNIT, "--boot", "--output", "cat", "--no-pager"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    ) as read:
        yield from read.stdout or ()
