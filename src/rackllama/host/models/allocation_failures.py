"""What to set where an engine found no room after all: from what it tells and the plan to a sentence. Pure.

The messages are llama.cpp's, which Ollama hands on: as in the sources of llama.cpp b10488 and Ollama 0.33.
"""

import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

MIB = 2**20
FAILURES = (
    re.compile(r"allocating (?P<mib>[\d.]+) MiB on device (?P<number>\d+): (?:cuda|hip)Malloc failed"),
    re.compile(r"failed to allocate (?P<buffer>\S+) buffer of size (?P<bytes>\d+)"),
    re.compile(r"unable to allocate (?P<buffer>\S+) buffer"),
    re.compile(r"failed to allocate (?:buffer for \w+ cache|compute (?:pp |tg )?buffers|output buffer)"),
    re.compile(r"(?:cuda|hip)Malloc failed|CUDA error: out of memory|out-of-memory during startup"),
    re.compile(r"[Oo]ut of (?:device )?memory|ErrorOutOfDeviceMemory"),
)
# After this, llama.cpp tries again with less, and tells anew if that fails.
TRIES_AGAIN = "retrying without pipeline parallelism"
LAYERS = re.compile(r"offloaded (\d+)/\d+ layers to GPU")
CONTEXT = re.compile(r"\bn_ctx\s*= (\d+)")


@dataclass(frozen=True)
class Failure:
    """What an engine asked for in vain: `device` as it calls it, or empty; bytes where it tells them.

    `layers` and `context` (of all slots together) are what it was told before, None where the log does not say.
    """

    device: str = ""
    size: Optional[int] = None
    layers: Optional[int] = None
    context: Optional[int] = None


def find_failure(lines: Iterable[str]) -> Optional[Failure]:
    """The first failure of an allocation which the engine did not get over; None where there is none."""
    failed: Optional[re.Match[str]] = None
    layers: Optional[int] = None
    context: Optional[int] = None
    for line in lines:
        if TRIES_AGAIN in line:
            failed = None
        if failed is None:
            failed = next((found for pattern in FAILURES if (found := pattern.search(line))), None)
        layers = _number(LAYERS, line, layers)
        context = _number(CONTEXT, line, context)
    if failed is None:
        return None
    told = failed.groupdict()
    device = told.get("buffer") or (f"CUDA{told['number']}" if told.get("number") else "")
    size = int(told["bytes"]) if told.get("bytes") else round(float(told["mib"]) * MIB) if told.get("mib") else None
    return Failure(device, size, layers, context)


def remedy(failure: Failure, plan: Mapping[str, Any]) -> str:
    """What to set instead, by the plan as it lies on the host: it names num_gpu and context."""
    if not plan["fits"]:
        return "; or ".join(plan["remedies"]) or "choose a smaller model, or a larger host"
    slots, num_gpu = plan["serving"]["parallel"], plan["num_gpu"]
    if failure.layers is not None and failure.layers > num_gpu:
        return f"it was told num_gpu {failure.layers}, and {num_gpu} fit: set num_gpu {num_gpu}"
    if failure.context is not None and failure.context > plan["max_context"] * slots:
        asked = failure.context // slots
        return f"it was told a context of {asked}, and {plan['max_context']} fit: set at most {plan['max_context']}"
    layers = f"num_gpu {num_gpu} and " if plan["devices"] else ""
    return (
        f"the plan has room for {layers}a context of {plan['max_context']}: declare no more. Where no more is "
        "declared, others have taken memory (nvidia-smi names them): stop them, or leave them more with "
        "rackllama_plan_reserve"
    )


def _number(pattern: re.Pattern[str], line: str, known: Optional[int]) -> Optional[int]:
    found = pattern.search(line)
    return int(found[1]) if found else known
