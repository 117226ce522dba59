"""A signal tells whoever looks, and ends at once what only waits for others."""

import os
import signal
import socket

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.stop import Stop, StoppedError, stop_on_signals


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_sets_it():
    with stop_on_signals() as stop:
        ask_to_stop()
        assert stop.wait(5)


def test_waiting_for_others_ends_at_once_even_where_failures_are_handled():
    done = []

    def wait_for_others(silent: socket.socket) -> None:
        try:
            silent.recv(1)
        except RackllamaError:
            done.append("took it for a failure")
        finally:
            ask_to_stop()  # a second signal does not interrupt what cleans up
            done.append("cleaned up")

    ours, theirs = socket.socketpair()
    with ours, theirs, stop_on_signals() as stop:
        signal.signal(signal.SIGALRM, lambda *_: ask_to_stop())
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(StoppedError), stop.interrupting():
            wait_for_others(ours)

    assert done == ["cleaned up"]


def test_after_such_waiting_it_only_sets():
    with stop_on_signals() as stop:
        with stop.interrupting():
            pass
        ask_to_stop()
        assert stop.wait(5)


def test_nothing_is_begun_after_it():
    stop = Stop()
    stop.set()
    with pytest.raises(StoppedError), stop.interrupting():
        pytest.fail("it was begun")
