"""What long work says while it goes on: one line a step, with its count and its seconds, on stderr."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

TERMINAL_SECONDS = 0.5
LOG_SECONDS = 20.0


@dataclass
class Step:
    """One step under way. Whoever does the work sets `count`, such as `63/133`."""

    name: str
    count: str = ""
    started: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"  {self.name:<32} {self.count:>9} {time.monotonic() - self.started:7.1f} s"


class Progress:
    """Shows steps: on a terminal one line kept up to date, elsewhere a line every 20 seconds and one at the end."""

    def __init__(self, stream: TextIO | None = None, *, log_seconds: float = LOG_SECONDS) -> None:
        self._stream = stream or sys.stderr
        self._seconds = TERMINAL_SECONDS if self._stream.isatty() else log_seconds
        self._start, self._end = ("\r\033[K", "") if self._stream.isatty() else ("", "\n")

    def say(self, text: str) -> None:
        """Show one line of its own."""
        self._write(f"{text}\n")

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show `name` as under way until the block ends, and then for how long it took."""
        step, over = Step(name), threading.Event()

        def show() -> None:
            while not over.wait(self._seconds):
                self._write(f"{self._start}{step}{self._end}")

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        outcome = "failed"
        try:
            yield step
            outcome = "done"
        finally:
            over.set()
            thread.join()
            self._write(f"{self._start}{step}  {outcome}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
