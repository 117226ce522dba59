"""Fixtures for tests on the played GPU server: made once, and as new for each test."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from . import machine
from .archive import Archive
from .machine import GpuHost

VERSIONS = ("570.211.01", "580.95.05", "580.105.08")
NEWER = "580.126.20"


@dataclass(frozen=True)
class Bench:
    """A played host, and the archive on it."""

    host: GpuHost
    archive: Archive


@pytest.fixture(scope="session")
def gpu_host(request: pytest.FixtureRequest) -> Iterator[GpuHost]:
    """The played host; on it may be whatever the last test left."""
    yield machine.ready_host()
    if not request.config.option.keep_lab:
        machine.stop()


@pytest.fixture
def bench(gpu_host: GpuHost) -> Bench:
    """The played host as new: 8 H100 with NVSwitches, no driver, an archive with VERSIONS and the kernel's headers."""
    gpu_host.restore(machine.BARE)
    return furnished(gpu_host)


def furnished(host: GpuHost, scenario: machine.Scenario = machine.H100_X8) -> Bench:
    """The host as that machine, with the archive as a test finds it."""
    host.play(scenario)
    made = archive_of(host)
    made.serve()
    return Bench(host, made)


def archive_of(host: GpuHost) -> Archive:
    """The archive as a test finds it: VERSIONS, and headers for the running kernel."""
    made = Archive(host.run, headers=[host.kernel])
    for version in VERSIONS:
        made.add(version)
    return made
