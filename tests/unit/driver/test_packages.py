"""Driver, libraries and the fabric's companions have one version, by whatever names and revisions there are."""

import pytest

from rackllama.host.driver.locks import versionlock
from rackllama.host.driver.packages import (
    driver_version,
    fabric_packages,
    is_drivers,
    package_change,
    parse_offered,
    wanted_packages,
)
from rackllama.host.errors import RackllamaError

WANTED = ("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-fabricmanager")
MADISON = """\
nvidia-kernel-open-dkms | 580.126.20-1 | http://archive.example  Packages
nvidia-kernel-open-dkms | 580.105.08-1 | http://archive.example  Packages
nvidia-driver-cuda | 580.126.20-1 | http://archive.example  Packages
nvidia-driver-cuda | 580.105.08-1 | http://archive.example  Packages
nvidia-fabricmanager | 580.126.20-1ubuntu1 | http://archive.example  Packages
nvidia-fabricmanager | 580.105.08-1 | http://archive.example  Packages
  libcuda1 | 580.126.20-1 | http://archive.example  Packages
  libcuda1 | 580.105.08-1 | http://archive.example  Packages
libnvidia-gpucomp | 580.126.20-1 | http://archive.example  Packages
"""
OFFERED = parse_offered(MADISON)


def test_what_moves_with_the_driver_is_told_from_what_does_not():
    moving = ["nvidia-driver-cuda", "libnvidia-ml1", "libcuda1", "nvidia-fabricmanager", "kmod-nvidia-open-dkms"]
    apart = ["nvidia-container-toolkit", "libnvidia-container1", "nvidia-driver-pinning-580", "datacenter-gpu-manager"]
    assert [name for name in moving + apart if is_drivers(name)] == moving


@pytest.mark.parametrize("told", ["580.126.20-1", "580.126.20-0ubuntu1", "3:580.126.20-1.el9", "580.126.20"])
def test_a_version_is_found_whatever_its_epoch_and_revision(told):
    assert driver_version(told) == "580.126.20"


def test_what_has_a_version_of_its_own_has_none_of_the_driver():
    assert [driver_version(told) for told in ("1.19.1-1", "1:4.4.1-1", "2025.10.14-1", "580126")] == [None] * 4


def test_names_follow_distribution_branch_and_kernel_modules():
    debian = wanted_packages("debian", "580.126.20", "open", fabric=True, hidden_switches=False)
    assert {"nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-fabricmanager", "libnvidia-nscq"} < set(debian)
    ubuntu = wanted_packages("ubuntu", "570.211.01", "proprietary", fabric=True, hidden_switches=False)
    assert {"nvidia-dkms-570", "libnvidia-compute-570", "nvidia-fabricmanager-570"} < set(ubuntu)
    rhel = wanted_packages("rhel", "580.126.20", "open", fabric=False, hidden_switches=False)
    assert "kmod-nvidia-open-dkms" in rhel
    assert not set(rhel) & set(fabric_packages("rhel", "580"))
    assert fabric_packages("rhel", "570")[0] == "nvidia-fabric-manager"
    hidden = wanted_packages("ubuntu", "580.126.20", "open", fabric=True, hidden_switches=True)
    assert "libnvsdm" in hidden


def test_a_new_host_gets_each_package_by_the_archives_own_revision():
    change = package_change("580.126.20", WANTED, {}, OFFERED)
    assert change.install["nvidia-fabricmanager"] == "580.126.20-1ubuntu1"
    assert change.install == change.exact
    assert list(change.exact) == list(WANTED)


def test_dependencies_that_are_there_move_along_up_and_down():
    installed = dict.fromkeys([*WANTED, "libcuda1"], "580.105.08-1")
    up = package_change("580.126.20", WANTED, installed, OFFERED)
    assert up.install["libcuda1"] == "580.126.20-1"
    down = package_change("580.105.08", WANTED, {**up.exact, "libnvidia-gpucomp": "580.126.20-1"}, OFFERED)
    assert set(down.install.values()) == {"580.105.08-1"}
    assert down.remove == ("libnvidia-gpucomp",)  # which the older version has not


def test_a_newer_version_in_the_archive_changes_nothing():
    installed = dict.fromkeys(WANTED, "580.105.08-1")
    assert not package_change("580.105.08", WANTED, installed, OFFERED)


def test_what_must_not_be_there_goes():
    installed = {**dict.fromkeys(WANTED, "580.105.08-1"), "nvidia-kernel-dkms": "580.105.08-1"}
    change = package_change("580.105.08", WANTED[:2], installed, OFFERED, ("nvidia-kernel-dkms", WANTED[2]))
    assert set(change.remove) == {"nvidia-kernel-dkms", "nvidia-fabricmanager"}


def test_a_version_that_the_archive_lacks_is_told_with_those_that_it_has():
    with pytest.raises(RackllamaError, match=r"no nvidia-kernel-open-dkms of version 580\.1\.1") as refused:
        package_change("580.1.1", WANTED, {}, OFFERED)
    assert refused.value.remedy.endswith("580.105.08, 580.126.20")


def test_dnf_locks_ours_beside_what_others_have_locked():
    others = "kernel-0:5.14.0-503.el9.*\n"
    offered = {"nvidia-driver-cuda": "3:580.126.20-1.el9", "libnvidia-nscq": "580.126.20-1"}
    first = versionlock(others, "580.126.20", offered)
    assert first.startswith(others)
    assert "libnvidia-nscq-0:580.126.20-1.*" in first
    again = versionlock(first, "580.126.20", {"nvidia-driver-cuda": "3:580.126.20-1.el9"})
    assert again == first  # what is not installed stays locked
    second = versionlock(first, "580.105.08", {"nvidia-driver-cuda": "3:580.105.08-1.el9"})
    assert second.startswith(others)
    assert "580.126.20" not in second
