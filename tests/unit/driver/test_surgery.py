"""What is done to a host follows from what it has, what is wanted and what the archives offer."""

from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.host.driver import runfile, surgery
from rackllama.host.driver.packages import following_headers, wanted_packages
from rackllama.host.driver.state import GpuUser, HostState
from rackllama.host.driver.wanted import WantedDriver, is_needed
from rackllama.host.errors import RackllamaError
from rackllama.host.hardware.pci import PciDevice
from rackllama.mirror.lock import read_lock

OLD, NEW = "580.105.08", "580.126.20"
KERNEL, NEWER = "6.1.0-32-amd64", "6.1.0-35-amd64"
WANTED = WantedDriver(version=NEW)
NAMES = wanted_packages("debian", NEW, "open", fabric=True, hidden_switches=False)
LIBRARY = "libcuda1"
BARE = HostState(
    distribution="debian",
    version="12",
    machine="x86_64",
    in_container=False,
    gpus=(PciDevice("0000:06:00.0", 0x10DE, 0x2330, 0x0302),) * 8,
    kernel=KERNEL,
    has_fabric=True,
    installed_kernels=(KERNEL,),
    with_headers=(KERNEL,),
)


def having(version, **more):
    """A host on which rackllama has installed a version, and which runs it."""
    modules = {KERNEL: version}
    packages = dict.fromkeys((*NAMES, LIBRARY), f"{version}-1")
    return replace(BARE, packages=packages, is_ours=True, loaded_version=version, module_versions=modules, **more)


def offering(*versions, pinning=()):
    """An archive that has these versions, and the pinning packages of some."""
    offered = {name: [f"{version}-1" for version in versions] for name in (*NAMES, LIBRARY)}
    return {**offered, **{f"nvidia-driver-pinning-{version}": [f"{version}-1"] for version in pinning}}


def planned(state, offered, wanted=WANTED):
    return surgery.plan(state, wanted, offered)


def test_a_new_host_gets_all_of_it_of_one_version_held():
    done = planned(BARE, offering(OLD, NEW))
    assert set(done.packages.install) == set(NAMES)
    assert set(done.packages.install.values()) == {f"{NEW}-1"}
    assert done.is_held
    assert done.kernels == (KERNEL,)
    assert not surgery.reboot_is_needed(BARE, NEW)


def test_where_the_archive_has_a_pinning_package_that_holds():
    done = planned(BARE, offering(NEW, pinning=[NEW]))
    assert done.packages.others == (f"nvidia-driver-pinning-{NEW}",)
    assert (done.is_held, done.hold) == (False, ())


def test_from_a_pinned_version_to_one_without_a_pinning_package_the_pin_goes():
    state = having(OLD, beside=(f"nvidia-driver-pinning-{OLD}", "nvidia-container-toolkit"))
    done = planned(state, offering(OLD, NEW, pinning=[OLD]))
    assert done.packages.remove == (f"nvidia-driver-pinning-{OLD}",)
    assert set(done.hold) == {*NAMES, LIBRARY}


def test_both_kernels_get_a_module_and_their_headers():
    two = replace(BARE, installed_kernels=(KERNEL, NEWER))
    done = planned(two, offering(NEW))
    assert done.kernels == (KERNEL, NEWER)
    assert done.packages.others == (f"linux-headers-{NEWER}",)


def test_headers_follow_the_kernels_that_upgrades_bring():
    assert following_headers("linux-image-generic-hwe-22.04", KERNEL) == "linux-headers-generic-hwe-22.04"
    matched = following_headers("kernel-core", "5.14.0-503.el9.x86_64")
    assert matched == "kernel-devel-matched-5.14.0-503.el9"
    assert following_headers("linux-image-6.1.0-32-amd64", KERNEL) is None
    follows = ("linux-headers-amd64",)
    upgraded = replace(BARE, following_headers=follows, obtainable=follows)
    assert planned(upgraded, offering(NEW)).packages.others == follows
    assert planned(replace(upgraded, beside=follows), offering(NEW)).packages.others == ()


def test_another_kind_of_modules_is_built_and_booted():
    state = replace(having(NEW), packages={**having(NEW).packages, "nvidia-kernel-dkms": f"{NEW}-1"})
    done = planned(state, offering(NEW))
    assert done.packages.remove == ("nvidia-kernel-dkms",)
    assert done.kernels == (KERNEL,)
    assert surgery.reboot_is_needed(state, NEW, done.replaces_modules)


def test_what_uses_the_gpus_is_stopped_only_where_packages_change():
    engine = GpuUser("ollama", 7, "ollama.service", is_ours=True)
    assert planned(having(OLD, users=(engine,)), offering(OLD, NEW)).stop == ("ollama.service",)
    assert planned(having(NEW, users=(engine,)), offering(OLD, NEW)).stop == ()


def test_another_version_than_the_loaded_one_comes_by_a_boot():
    assert surgery.reboot_is_needed(having(OLD), NEW)
    assert not surgery.reboot_is_needed(having(NEW), NEW)
    screens = replace(BARE, gpus=(replace(BARE.gpus[0], driver="nouveau"),))
    assert surgery.reboot_is_needed(screens, NEW)


def test_a_driver_that_is_right_is_left_as_it_is():
    assert not is_needed(having(NEW), WANTED)
    by_others = replace(having(NEW), is_ours=False, packages={"nvidia-utils-580": f"{NEW}-0ubuntu1"})
    assert not is_needed(by_others, WANTED)
    assert not surgery.plan_here(by_others, WANTED, check_mode=False)


@pytest.mark.parametrize(
    "change",
    [
        {"loaded_version": None},
        {"module_versions": {KERNEL: NEW, NEWER: None}, "installed_kernels": (KERNEL, NEWER)},
        {"packages": {**having(NEW).packages, LIBRARY: f"{OLD}-1"}},
        {"packages": {name: f"{NEW}-1" for name in NAMES if name != "nvidia-fabricmanager"}},
        {"has_fabric": False},
    ],
    ids=[
        "not loaded",
        "next kernel without",
        "a library that differs",
        "no fabric manager",
        "fabric manager for nothing",
    ],
)
def test_what_is_not_right_is_worked_on(change):
    assert is_needed(replace(having(NEW), **change), WANTED)


def test_a_version_of_another_branch_is_refused():
    with pytest.raises(RackllamaError, match="no version of branch 580") as refused:
        is_needed(BARE, WantedDriver(version="570.211.01"))
    assert "nvidia_driver_branch to 570" in refused.value.remedy


def test_the_steps_are_told_in_words():
    words = planned(having(OLD), offering(OLD, NEW)).words()
    assert f"install libcuda1 {NEW}-1" in words
    assert f"build the module of {NEW} for kernel {KERNEL}" in words


def test_the_runfile_has_one_version_and_brings_what_builds_its_modules():
    by_runfile = WantedDriver(source="runfile")
    done = runfile.plan(replace(BARE, version="13", with_headers=()), by_runfile)
    locked = read_lock(Path(__file__).parents[3] / "artefacts.lock")["nvidia_driver_runfile"]
    assert done.version == locked.version
    assert {"dkms", "gcc", f"linux-headers-{KERNEL}"} <= set(done.tools)
    assert not runfile.plan(having(locked.version), by_runfile)
    with pytest.raises(RackllamaError, match="no version of branch 570"):
        runfile.plan(BARE, WantedDriver(source="runfile", version=NEW))
