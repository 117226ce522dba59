"""Being asked to stop: work that looks for it now and then, and work that waits for others and cannot look."""

import contextlib
import signal
import threading
from typing import Iterator

from .errors import RackllamaError


class StoppedError(RackllamaError):
    """The work was asked to stop, and did; what came is kept."""

    def __init__(self, subject: str = "the landing") -> None:
        super().__init__(f"{subject} was stopped", "run it again: it goes on from there")


class _InterruptedError(BaseException):
    """Passes whoever handles the failures of what it interrupts."""


class Stop(threading.Event):
    """Set when the work is to stop."""

    def __init__(self) -> None:
        super().__init__()
        self._interrupts = False

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within it the main thread waits for others: a signal ends that at once, with StoppedError."""
        self._interrupts = True
        try:
            if self.is_set():
                raise StoppedError
            yield
        except _InterruptedError:
            raise StoppedError from None
        finally:
            self._interrupts = False

    def on_signal(self, *_: object) -> None:
        """A handler of signals."""
        self.set()
        if self._interrupts:
            self._interrupts = False  # a second one must not interrupt what cleans up
            raise _InterruptedError


@contextlib.contextmanager
def stop_on_signals(*signals: int) -> Iterator[Stop]:
    """A stop that the first of these signals sets (default: SIGTERM). Only in the main thread."""
    stop = Stop()
    before = {number: signal.signal(number, stop.on_signal) for number in signals or (signal.SIGTERM,)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
