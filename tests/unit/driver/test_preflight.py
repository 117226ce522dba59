"""What would strand a host is told, with its remedy, before its driver is changed: one fault after the other."""

from dataclasses import replace
from datetime import date

import pytest

from rackllama.host.driver.preflight import checks
from rackllama.host.driver.state import GpuUser, HostState
from rackllama.host.driver.wanted import WantedDriver, kernel_modules
from rackllama.host.errors import RackllamaError
from rackllama.host.hardware.pci import PciDevice

DEFAULT = WantedDriver()
TODAY = date(2026, 11, 22)
KERNEL = "6.1.0-32-amd64"


def gpu(device, driver=None):
    return PciDevice(f"0000:{device & 0xFF:02x}:00.0", 0x10DE, device, 0x0302, driver)


H100, P40, B200, PRO6000 = gpu(0x2330), gpu(0x1B38), gpu(0x2901), gpu(0x2BB5)
GOOD = HostState(
    distribution="debian",
    version="12",
    machine="x86_64",
    in_container=False,
    gpus=(H100,) * 8,
    kernel=KERNEL,
    installed_kernels=("6.1.0-9-amd64", KERNEL),
    with_headers=(KERNEL,),
    secure_boot=False,
    room_mib={"/boot": 500, "/usr": 50_000, "/var": 50_000},
)
FAULTS = {
    "no kernel of its own": ({"in_container": True}, "kernel", "container's host"),
    "a machine without a driver": ({"machine": "riscv64"}, "machine", "x86_64"),
    "no packages for it": ({"version": "13"}, "archive", "runfile"),
    "an unknown board": ({"gpus": (gpu(0x2FFF),)}, "boards", "nvidia_driver_kernel_modules"),
    "old and new boards": ({"gpus": (P40, B200)}, "kernel modules", "take one of them out"),
    "a GPU kept for virtual machines": ({"gpus": (gpu(0x2330, "vfio-pci"),)}, "passthrough", "vfio-pci"),
    "no compiler": ({"compiler": None}, "compiler", "gcc"),
    "no DKMS": ({"has_dkms": False}, "dkms", "EPEL"),
    "Debian's own driver": ({"packages": {"nvidia-smi": "535.261.03-1"}}, "distribution's driver", "nvidia-smi"),
    "no headers": ({"with_headers": ()}, "headers of the running kernel", f"linux-headers-{KERNEL}"),
    "a newer kernel without headers": (
        {"installed_kernels": (KERNEL, "6.1.0-35-amd64")},
        "headers of the next kernel",
        "linux-headers-6.1.0-35-amd64",
    ),
    "an unsigned module": ({"secure_boot": True}, "secure boot", "mokutil --import"),
    "a runfile's driver": ({"installed_by_runfile": True}, "other installation", "nvidia-uninstall"),
    "the distribution's driver": (
        {"packages": {"nvidia-driver": "535.216.03-1~deb12u1"}},
        "distribution's driver",
        "nvidia-driver",
    ),
    "packages of two versions": (
        {"packages": {"nvidia-open": "580.95.05-1", "libnvidia-ml1": "580.126.20-1"}},
        "one version",
        "bring them together",
    ),
    "held packages": ({"held": ("nvidia-open",)}, "held packages", "unhold"),
    "a broken package database": ({"packages_interrupted": True}, "package database", "dpkg --configure -a"),
    "upgrades under way": ({"upgrades_running": ("apt-daily-upgrade.service",)}, "upgrades under way", "wait"),
    "another source": ({"sources": ("/etc/apt/sources.list.d/cuda.list",)}, "other sources", "cuda.list"),
    "a retired key": ({"trusts_retired_key": True}, "retired key", "7fa2af80"),
    "a GPU in use": ({"users": (GpuUser("python3", 812),)}, "gpu in use", "stop these"),
    "a full /boot": ({"room_mib": {"/boot": 20}}, "room at /boot", "old kernels"),
    "a full /usr": ({"room_mib": {"/usr": 1000}}, "room at /usr", "free space"),
}


def failed(state, wanted=DEFAULT):
    return {check.id: check for check in checks(state, wanted, TODAY) if not check.ok}


def test_a_host_in_order_passes_and_is_told():
    found = {check.id: check for check in checks(GOOD, WantedDriver(), TODAY)}
    assert failed(GOOD) == {}
    assert found["gpus"].found == "8 H100-80GB"
    assert found["branch"].found == "580 is mended until 2028-06-30"
    assert found["kernel modules"].found == "open for Hopper"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_alone_with_its_remedy(fault):
    change, name, remedy = FAULTS[fault]
    told = failed(replace(GOOD, **change))
    assert list(told) == [name]
    assert remedy in told[name].remedy


def test_without_a_reboot_what_needs_one_is_a_fault():
    no_reboot = WantedDriver(may_reboot=False)
    screens = replace(GOOD, gpus=(gpu(0x2330, "nouveau"),), nouveau_loaded=True)
    assert failed(screens) == {}
    assert list(failed(screens, no_reboot)) == ["nouveau"]
    upgraded = replace(GOOD, loaded_version="580.95.05", module_versions={KERNEL: "580.126.20"})
    assert failed(upgraded) == {}
    told = failed(upgraded, no_reboot)
    assert told["loaded driver"].found == "580.95.05 is loaded"


def test_services_of_rackllama_that_use_the_gpus_are_no_fault():
    engine = GpuUser("ollama", 7, "ollama.service", is_ours=True)
    assert failed(replace(GOOD, users=(engine,))) == {}
    (told,) = failed(replace(GOOD, users=(engine, GpuUser("python3", 812)))).values()
    assert told.found == "python3 (812)"


def test_headers_and_a_compiler_that_the_archives_have_are_no_fault():
    obtainable = ("gcc", f"linux-headers-{KERNEL}")
    assert failed(replace(GOOD, compiler=None, with_headers=(), obtainable=obtainable)) == {}


def test_a_host_that_has_the_driver_is_looked_at_no_further():
    has = replace(GOOD, loaded_version="580.126.20", module_versions={KERNEL: "580.126.20"}, with_headers=())
    found = {check.id: check.found for check in checks(has, DEFAULT, TODAY)}
    assert found == {"gpus": "8 H100-80GB", "driver": "580.126.20 runs: it stays"}
    assert failed(replace(has, packages={"nvidia-open": "580.95.05-1"})) != {}


def test_a_change_of_ours_that_was_cut_off_is_no_fault():
    cut_off = replace(GOOD, packages_interrupted=True, was_cut_off=True)
    assert failed(cut_off) == {}


def test_signed_modules_load_under_secure_boot():
    assert failed(replace(GOOD, secure_boot=True, signing_key_enrolled=True)) == {}


def test_a_branch_that_has_ended_can_be_chosen_and_lacks_newer_boards():
    ended = WantedDriver(branch="570")
    found = {check.id: check for check in checks(GOOD, ended, TODAY)}
    assert found["branch"].found == "570 is mended no more since 2026-02-28"
    told = failed(replace(GOOD, gpus=(PRO6000,)), ended)
    assert told["generations"].remedy == "choose 580"


def test_the_runfile_serves_where_no_packages_are_and_tolerates_none():
    runfile = WantedDriver(source="runfile")
    assert failed(replace(GOOD, version="13"), runfile) == {}
    packaged = replace(GOOD, packages={"nvidia-open": "580.126.20-1"})
    assert list(failed(packaged, runfile)) == ["other installation"]
    assert list(failed(replace(GOOD, has_fabric=True), runfile)) == ["fabric manager"]


def test_packages_named_otherwise_on_other_distributions():
    told = failed(replace(GOOD, distribution="rocky", version="9.5", with_headers=()))
    assert "kernel-devel-6.1.0-32-amd64" in told["headers of the running kernel"].remedy


def test_a_kind_of_modules_that_does_not_fit_is_refused():
    told = failed(GOOD, WantedDriver(modules="proprietary"))
    assert told == {}
    told = failed(replace(GOOD, gpus=(B200,)), WantedDriver(modules="proprietary"))
    assert told["kernel modules"].remedy == "leave nvidia_driver_kernel_modules out, for the open ones"


def test_the_kind_of_modules_follows_from_all_gpus():
    assert kernel_modules([H100]) == "open"
    assert kernel_modules([P40, H100]) == "proprietary"
    assert kernel_modules([P40, B200]) is None
    assert kernel_modules([gpu(0x2FFF)]) is None


def test_a_host_without_gpus_passes_and_says_why():
    (only,) = checks(replace(GOOD, gpus=(), compiler=None), WantedDriver(), TODAY)
    assert (only.ok, only.found) == (True, "none on the PCI bus: there is nothing to install")


def test_an_unknown_branch_is_refused():
    with pytest.raises(RackllamaError, match="999 is no branch") as refused:
        checks(GOOD, WantedDriver(branch="999"), TODAY)
    assert refused.value.remedy == "choose 570 or 580"
