"""What to set where an engine found no room after all: from its log and the plan to a sentence. Pure.

The messages are llama.cpp's, which Ollama hands on: as in the sources of llama.cpp b10488 and Ollama 0.33.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rackllama.planning.plan import MIB, Plan
from rackllama.planning.words import amount

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
    size: int | None = None
    layers: int | None = None
    context: int | None = None


def find_failure(lines: Iterable[str]) -> Failure | None:
    """The first failure of an allocation which the engine did not get over; None where there is none."""
    failed: re.Match[str] | None = None
    layers = context = None
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


def advice(lines: Iterable[str], plan: Plan) -> str | None:
    """What to set instead, in a sentence that names num_gpu and context; None where no allocation failed."""
    failure = find_failure(lines)
    if failure is None:
        return None
    return f"{_what_failed(failure)}; {_what_fits(failure, plan)}"


def _what_failed(failure: Failure) -> str:
    size = f" {amount(failure.size)}" if failure.size else " what it asked for"
    return f"the engine could not allocate{size} on {failure.device or 'a device'}"


def _what_fits(failure: Failure, plan: Plan) -> str:
    each = plan.serving.context // plan.serving.parallel
    num_gpu = int(plan.settings["ollama"]["parameters"]["num_gpu"])
    if not plan.fits:
        change = f": {' or '.join(plan.remedies)}" if plan.remedies else ""
        return f"by the plan the model does not fit with a context of {each}{change}"
    if failure.layers is not None and failure.layers > num_gpu:
        return f"it was told num_gpu {failure.layers}, and {num_gpu} fit: set num_gpu {num_gpu}"
    most = max(plan.max_context, each)
    if failure.context is not None and failure.context > most * plan.serving.parallel:
        asked = failure.context // plan.serving.parallel
        return f"it was told a context of {asked}, and {most} fit with num_gpu {num_gpu}: set at most {most}"
    return (
        f"by the plan num_gpu {num_gpu} fits with a context of {each}: set these; where they are set, other "
        f"programs hold memory there (nvidia-smi names them): end them, or set num_gpu {max(0, num_gpu - 1)}"
    )


def _number(pattern: re.Pattern[str], line: str, known: int | None) -> int | None:
    found = pattern.search(line)
    return int(found[1]) if found else known
