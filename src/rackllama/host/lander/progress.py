"""How far a landing is: what is told to whoever called, to a file that anybody may read, and to people."""

import contextlib
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Optional

from ..files import json_text, read_json

BAR_WIDTH = 24
MIB = 2**20


@dataclass(frozen=True)
class Progress:
    """How far a landing is.

    `phase` is one of reading, fetching, verifying, committing, landed, creating, trying, served, stopped and failed.
    `bytes` of `total` are on this host; `rate` is in bytes a second, `eta_seconds` None where nothing comes. `error`
    and `remedy` are set where it failed.
    """

    phase: str
    bytes: int
    total: int
    rate: float = 0.0
    eta_seconds: Optional[float] = None
    error: Optional[str] = None
    remedy: Optional[str] = None


def write_progress(path: Path, progress: Progress) -> None:
    """Replace the file in one step. Not durable, and a full disk is passed over: it must not hide what it made fail."""
    temporary = path.with_name(f".{path.name}")
    with contextlib.suppress(OSError):
        document = {**asdict(progress), "updated_at": int(time.time()), "pid": os.getpid()}
        temporary.write_text(json_text(document), encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(path)


def read_progress(path: Path, pid: Optional[int] = None) -> Optional[Progress]:
    """What was written last, by the process `pid` where that is given; None where nothing was, or it is damaged."""
    document = read_json(path)
    if not isinstance(document, dict) or pid not in (None, document.get("pid")):
        return None
    known = {field.name: document[field.name] for field in fields(Progress) if field.name in document}
    numbers = [known.get(name, 0) for name in ("bytes", "total", "rate", "eta_seconds")]
    sound = isinstance(known.get("phase"), str) and all(isinstance(number or 0, (int, float)) for number in numbers)
    return Progress(**known) if sound and {"bytes", "total"} <= set(known) else None


def progress_text(progress: Progress, name: str) -> str:
    """One line: a bar, how much of how much is here, MiB a second, and the time that is left."""
    share = progress.bytes / progress.total if progress.total else 1.0
    bar = ("#" * int(share * BAR_WIDTH)).ljust(BAR_WIDTH, ".")
    left = "" if progress.eta_seconds is None else f"  {_clock(progress.eta_seconds)} left"
    amount = f"{progress.bytes / MIB:.0f} of {progress.total / MIB:.0f} MiB"
    return f"{name} [{bar}] {share:4.0%}  {amount}  {progress.rate / MIB:.1f} MiB/s{left}  {progress.phase}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
