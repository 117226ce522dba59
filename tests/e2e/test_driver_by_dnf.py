"""dnf moves driver, libraries and fabric manager together, up and down, and never by itself.

dnf is the real one, of Debian; the packages are stand-ins. RHEL itself was never at hand.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rackllama.host.driver.packages import driver_version
from rackllama.lab.depot.progress import Progress
from rackllama.lab.podman import podman
from rackllama.lab.up import Stopwatch, start_lab, stop_lab

LAB = "rpms"
OLDER, NEWER = "580.105.08", "580.126.20"
HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "src" / "rackllama"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A lab host on which dnf knows of an archive with two versions."""
    name = start_lab(LAB, 1, "bookworm", Stopwatch(Progress())).hosts[0].container
    podman("cp", str(PACKAGE), f"{name}:/srv/rackllama")
    for file in ("on_dnf_host.sh", "by_dnf.py"):
        podman("cp", str(HERE / file), f"{name}:/srv/{file}")
    podman("exec", name, "sh", "/srv/on_dnf_host.sh", OLDER, NEWER)
    yield name
    stop_lab(LAB)


def brought_to(host: str, version: str) -> Any:
    return json.loads(podman("exec", host, "python3", "/srv/by_dnf.py", version))


def test_a_version_comes_whole_stays_and_goes_back(host: str) -> None:
    for version in (OLDER, NEWER, OLDER):
        first, again = brought_to(host, version), brought_to(host, version)
        podman("exec", host, "dnf", "--assumeyes", "upgrade")
        after_upgrade = brought_to(host, version)
        assert first["changed"]
        assert not again["changed"]
        assert not after_upgrade["changed"]
        assert {driver_version(told) for told in after_upgrade["installed"].values()} == {version}
        assert {"nvidia-driver-cuda-libs", "nvidia-fabricmanager"} <= set(after_upgrade["installed"])


def test_what_others_have_locked_stays_locked_and_the_toolkit_moves_by_itself(host: str) -> None:
    brought_to(host, OLDER)
    podman("exec", host, "dnf", "--assumeyes", "install", "nvidia-container-toolkit")
    locked = podman("exec", host, "cat", "/etc/dnf/plugins/versionlock.list")
    assert locked.startswith("kernel-0:5.14.0-503.el9.*\n")
    assert "nvidia-container-toolkit" not in locked
    assert "1.19.20" in podman("exec", host, "rpm", "--query", "nvidia-container-toolkit")
