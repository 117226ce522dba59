"""What is wrong with the GPUs of a host is told by name, whether the driver answers or not."""

from dataclasses import replace

import pytest
from tests.unit.hardware.test_nvidia_smi import RECORDED

from rackllama.host.driver import health
from rackllama.host.driver.health import GpuState, checks
from rackllama.host.hardware import nvidia_smi
from rackllama.host.hardware.description import Driver

SMI = nvidia_smi.parse((RECORDED / "h100-x8-nvswitch.xml").read_text("utf-8"))
VERSION = SMI.driver
KERNEL = "6.8.0-45-generic"
GOOD = GpuState(
    on_the_bus=len(SMI.gpus),
    driver=Driver(SMI),
    has_fabric=True,
    fabric_manager=VERSION,
    fabric_manager_runs=True,
    packages={"nvidia-driver-cuda": f"{VERSION}-1", "nvidia-fabricmanager": f"{VERSION}-1ubuntu1"},
    modules={KERNEL: VERSION},
    nodes={"nvidia-uvm": 0, "nvidiactl": 255, **{f"nvidia{number}": number for number in range(8)}},
)


def with_gpu(**change):
    """The same host whose first GPU tells otherwise."""
    first, *others = SMI.gpus
    return {"driver": Driver(replace(SMI, gpus=(replace(first, **change), *others)))}


FAULTS = {
    "a GPU that the driver lacks": ({"on_the_bus": 9}, "gpus", "8 of 9"),
    "another library": ({"packages": {"libcuda1": "570.1.1-1"}}, "gpu driver's packages", "libcuda1 570.1.1"),
    "another fabric manager": ({"fabric_manager": "570.211.01"}, "fabric manager", "570.211.01, running"),
    "no fabric manager": (
        {"fabric_manager": None, "fabric_manager_runs": False},
        "fabric manager",
        "none, not running",
    ),
    "a stopped fabric manager": ({"fabric_manager_runs": False}, "fabric manager", f"{VERSION}, not running"),
    "a fabric on its way": (with_gpu(fabric_state="In Progress"), "fabric", "In Progress"),
    "a damaged row": (with_gpu(row_remap_failed=True), "gpu memory", "failed to remap"),
    "a row to remap": (with_gpu(row_remap_pending=True), "gpu memory", "waits to remap"),
    "a GPU that wants a reset": (with_gpu(recovery_action="Reset"), "gpu recovery", "Reset"),
    "an error of the kernel's": ({"xids": (("0000:06:00", 79),)}, "gpu errors", "Xid 79 of 0000:06:00"),
    "no device nodes": ({"nodes": {"nvidiactl": 255}}, "gpu devices", "no /dev/nvidia-uvm"),
    "a next kernel without a module": ({"modules": {KERNEL: None}}, "next boot", f"{KERNEL} has none"),
}


def failed(state, version=VERSION, watts=0):
    return {check.id: check for check in checks(state, version, watts) if not check.ok}


def test_a_host_in_order_passes():
    assert failed(GOOD) == {}
    assert {check.id for check in checks(GOOD, None)} >= {"gpus", "gpu driver", "fabric", "gpu errors"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_alone_with_what_was_found(fault):
    change, name, found = FAULTS[fault]
    told = failed(replace(GOOD, **change))
    assert list(told) == [name]
    assert found in told[name].found
    assert told[name].remedy


def test_a_node_of_unified_memory_that_opens_nothing_is_told():
    (told,) = failed(replace(GOOD, nodes={**GOOD.nodes, "nvidia-uvm": 7})).values()
    assert told.found == "no /dev/nvidia-uvm with the minor number 0"


def test_another_driver_than_the_wanted_one_is_told():
    assert list(failed(GOOD, "580.1.1")) == ["gpu driver"]
    assert list(failed(GOOD, VERSION, watts=350)) == ["gpu power limit"]


def test_a_driver_that_does_not_answer_is_told_with_why():
    (told,) = failed(replace(GOOD, driver=Driver(None, "mismatch", "reboot"))).values()
    assert (told.found, told.remedy) == ("mismatch", "reboot")


def test_a_host_without_gpus_passes():
    (only,) = checks(GpuState(0, Driver()), VERSION)
    assert (only.ok, only.found) == (True, "none on the PCI bus")


def test_without_nvswitches_no_fabric_is_asked_for():
    alone = replace(GOOD, has_fabric=False, fabric_manager=None, fabric_manager_runs=False)
    assert failed(alone) == {}


def test_errors_of_the_kernel_are_read_from_its_log_without_those_of_programs():
    log = """\
NVRM: Xid (PCI:0000:06:00): 31, pid=812, name=python3, Ch 00000008
NVRM: Xid (PCI:0000:06:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
NVRM: Xid (PCI:0000:06:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
NVRM: Xid (PCI:0000:c1:00): 94, pid=812, Contained: SM (0x1).
NVRM: Xid (PCI:0000:c1:00): 95, pid=812, Uncontained: LTC TAG (0x2).
"""
    assert health.xids(log) == (("0000:06:00", 79), ("0000:c1:00", 95))


def test_the_fabric_managers_version_is_read_from_what_it_tells():
    assert health.fabric_manager_version("Fabric Manager version is : 580.126.20\n") == "580.126.20"
    assert health.fabric_manager_version(None) is None
