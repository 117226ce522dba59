"""A source that trickles gives way to another one, where one is left."""

import threading
from dataclasses import replace
from itertools import count

import pytest

from rackllama.host.lander.landing import land
from rackllama.host.lander.sources import Floor, SourceError, TrickleError
from rackllama.host.lander.watch import Watch

from .hub import Answer
from .model import FAST, sha256

IMPATIENT = replace(FAST, floor=Floor(64 << 10, 0.6))


@pytest.fixture
def over():
    """Set, it ends all trickling; at the end of a test it is."""
    event = threading.Event()
    yield event
    event.set()


def after_ticks(number, event):
    """A progress reporter that sets the event when it is called for the so-manieth time."""
    ticks = count(1)
    return lambda _: event.set() if next(ticks) == number else None


@pytest.mark.parametrize("sha256s", [True, False], ids=["shards known", "whole known"])
def test_another_source_is_asked(model, hub, mirror, over, tmp_path, sha256s):  # noqa: PLR0913, PLR0917
    hub.fault = lambda _: Answer(trickles_until=over)
    job = replace(model.job(tmp_path, hub.url, mirror.url, sha256s=sha256s), sha256=sha256(model.merged))
    assert land(job, tmp_path / "state", IMPATIENT).sha256 == sha256(model.merged)
    assert not over.is_set()
    assert {request.path for request in mirror.requests} == {f"/{name}" for name in model.shards}


def test_a_source_that_comes_to_trickle_later(model, hub, mirror, over, tmp_path):
    whole = iter(range(2))
    hub.fault = lambda _: None if next(whole, None) is not None else Answer(trickles_until=over)
    land(model.job(tmp_path, hub.url, mirror.url), tmp_path / "state", replace(IMPATIENT, connections=1))
    assert not over.is_set()


def test_the_only_source_goes_on(model, hub, over, tmp_path):
    hub.fault = lambda _: Answer(trickles_until=over)
    land(model.job(tmp_path, hub.url), tmp_path / "state", IMPATIENT, after_ticks(4, over))
    asked = [(request.path, request.range) for request in hub.requests]
    assert len(asked) == len(set(asked))


def test_it_is_asked_again_where_the_others_cannot_be(model, hub, mirror, over, tmp_path):
    hub.fault = lambda _: Answer(trickles_until=over)
    mirror.files.clear()
    landed = land(model.job(tmp_path, hub.url, mirror.url), tmp_path / "state", IMPATIENT, after_ticks(6, over))
    assert landed.verified
    assert {request.path for request in mirror.requests} == {f"/{name}" for name in model.shards}


def test_where_all_trickle_one_goes_on(model, hub, mirror, over, tmp_path):
    hub.fault = mirror.fault = lambda _: Answer(trickles_until=over)
    landed = land(model.job(tmp_path, hub.url, mirror.url), tmp_path / "state", IMPATIENT, after_ticks(8, over))
    assert landed.verified


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Paced:
    """A stream that takes so many seconds for each read."""

    validator = None

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds

    def readinto(self, view: memoryview) -> int:
        self._clock.now += self._seconds
        return len(view)

    def close(self) -> None: ...


def watched(seconds: float, label: str | None = "hub") -> tuple[Watch, Paced, list[str]]:
    clock, cuts = Clock(), []
    watch = Watch(Floor(1000.0, 30.0), lambda: cuts.append("cut"), clock)
    watch.begin(label)
    return watch, Paced(clock, seconds), cuts


KILOBYTE = memoryview(bytearray(1000))


def read(watch: Watch, stream: Paced, times: int) -> None:
    for _ in range(times):
        watch.readinto(stream, KILOBYTE)
        watch.check()


def test_what_brings_less_than_the_floor_trickles():
    watch, stream, _ = watched(1.01)
    with pytest.raises(TrickleError, match="hub brought next to nothing"):
        read(watch, stream, 30)


@pytest.mark.parametrize(("seconds", "label"), [(0.99, "hub"), (5.0, None)], ids=["above", "nobody else"])
def test_what_brings_enough_or_has_no_better_goes_on(seconds, label):
    watch, stream, cuts = watched(seconds, label)
    read(watch, stream, 200)
    assert not cuts


def test_a_fast_beginning_does_not_hide_what_follows():
    watch, stream, _ = watched(0.01)
    read(watch, stream, 10_000)
    with pytest.raises(TrickleError):
        read(watch, Paced(stream._clock, 3.0), 21)


@pytest.mark.parametrize("ends", [len, SourceError("broke off")], ids=["short", "broken"])
def test_a_read_that_does_not_end_is_cut(ends):
    watch, stream, cuts = watched(0.0)

    class Endless(Paced):
        def readinto(self, view: memoryview) -> int:
            for _ in range(4):
                self._clock.now += 10
                watch.check()
            if isinstance(ends, SourceError):
                raise ends
            return ends(view)

    with pytest.raises(TrickleError):
        watch.readinto(Endless(stream._clock, 0), KILOBYTE)
    assert cuts == ["cut"]


def test_waiting_elsewhere_does_not_count():
    watch, stream, cuts = watched(0.1)
    for _ in range(20):
        watch.readinto(stream, KILOBYTE)
        stream._clock.now += 1000
        watch.check()
    assert not cuts
