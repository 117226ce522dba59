"""What a machine's BMC tells of it, and steps that are carried out on it: on sushy's emulator."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.stacks import bmc as stand

from rackllama.host.errors import RackllamaError
from rackllama.provision.redfish.act import Limits, carry_out, look, turn_off
from rackllama.provision.redfish.bmc import Bmc
from rackllama.provision.redfish.machine import Machine
from rackllama.provision.redfish.media import served
from rackllama.provision.redfish.plan import Step

SOON = Limits(bmc=10, shutdown=10, install=1, ssh=1, poll=0.05)


@pytest.fixture
def machine(emulated: stand.Bmc) -> Iterator[Machine]:
    emulated.asked.clear()
    with Machine(Bmc(**emulated.data())) as found:
        yield found


@pytest.fixture
def told(emulated: stand.Bmc) -> Iterator[dict[str, dict[str, Any]]]:
    """What the BMC tells beyond the emulator, by path; as it was before at the end."""
    before = dict(emulated.overlay)
    yield emulated.overlay
    emulated.overlay = before


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "gpu1.iso"
    path.write_bytes(b"an installer")
    with served(path, "127.0.0.1") as url:
        yield url


def test_it_is_told_what_the_machine_is_made_of(machine: Machine, told: dict[str, dict[str, Any]]) -> None:
    processors = f"{stand.SYSTEM}/Processors"
    told[stand.SYSTEM] = {
        **stand.TOLD,
        "BiosVersion": "2.1",
        "MemorySummary": {"TotalSystemMemoryGiB": 2048},
        "Processors": {"@odata.id": processors},
    }
    told[processors] = {"Members": [{"@odata.id": f"{processors}/{each}"} for each in ("CPU1", "GPU1", "GPU2")]}
    cpu = {"ProcessorType": "CPU", "Model": "Xeon 8480C", "TotalCores": 56, "TotalThreads": 112}
    told[f"{processors}/CPU1"] = {"Id": "CPU1", **cpu}
    for each, model in (("GPU1", "NVIDIA H100 80GB HBM3"), ("GPU2", "Unheard-of 9000")):
        told[f"{processors}/{each}"] = {"Id": each, "ProcessorType": "GPU", "Manufacturer": "NVIDIA", "Model": model}

    found = machine.inventory()

    assert (found.manufacturer, found.model, found.serial) == ("Sushy Emulator", "GPU server", "SN-1")
    assert (found.bios, found.bmc_firmware, found.memory_gib) == ("2.1", "1.00", 2048)
    assert found.cpus == [{"model": "Xeon 8480C", "cores": 56, "threads": 112}]
    assert [(each["model"], each["gpu"]) for each in found.accelerators] == [
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("Unheard-of 9000", None),
    ]
    assert [each["mac"] for each in found.nics] == ["00:5c:52:31:3a:9c"]
    assert found.disks == [{"model": "C123", "serial": "1234570", "bytes": 960197124096}]


def test_gpus_are_found_among_the_cards_where_they_are_no_processors(
    machine: Machine, told: dict[str, dict[str, Any]]
) -> None:
    card = f"{stand.SYSTEM}/PCIeDevices/1"
    told[stand.SYSTEM] = {**stand.TOLD, "PCIeDevices": [{"@odata.id": card}]}
    told[card] = {
        "Id": "1",
        "Name": "Some accelerator",
        "Manufacturer": "NVIDIA",
        "PCIeFunctions": {"@odata.id": f"{card}/F"},
    }
    told[f"{card}/F"] = {"Members": [{"@odata.id": f"{card}/F/0"}]}
    told[f"{card}/F/0"] = {"Id": "0", "Name": "0", "DeviceId": "0x2331"}  # the PCI id of an H100 PCIe
    assert [each["gpu"] for each in machine.inventory().accelerators] == ["H100-80GB-PCIe"]


def test_signs_of_a_system_are_told(machine: Machine, emulated: stand.Bmc, told: dict[str, dict[str, Any]]) -> None:
    assert machine.situation().signs == ()
    told[stand.SYSTEM] = {
        **stand.TOLD,
        "HostName": "gpu1",
        "PowerState": "On",
        "BootProgress": {"LastState": "OSRunning"},
    }
    assert machine.situation().signs == (
        "its BMC says that a system runs (OSRunning)",
        "a system told the BMC that it is called gpu1",
    )


def test_a_bmc_of_several_machines_must_be_told_which(machine: Machine, told: dict[str, dict[str, Any]]) -> None:
    told["/redfish/v1/Systems"] = {"Members": [{"@odata.id": stand.SYSTEM}, {"@odata.id": stand.SYSTEM}]}
    with pytest.raises(RackllamaError, match="has 2 machines") as refused:
        machine.situation()
    assert "`system`" in refused.value.remedy


def test_a_step_is_asked_for_once_and_looked_for_until_it_is_there(
    machine: Machine, emulated: stand.Bmc, image: str
) -> None:
    carry_out(machine, [Step.INSERT, Step.BOOT_CD_ONCE, Step.POWER_ON], SOON, image)
    assert emulated.asked == [("POST", "InsertMedia"), ("PATCH", "Boot Cd"), ("POST", "Reset On")]
    assert (emulated.medium(), emulated.state()["PowerState"]) == (image, "On")

    carry_out(machine, [Step.INSERT, Step.BOOT_CD_ONCE, Step.POWER_ON], SOON, image)
    assert len(emulated.asked) == 3, "what is there already is not asked for again"

    carry_out(machine, [Step.EJECT, Step.BOOT_DISK], SOON)
    turn_off(machine, SOON)
    assert emulated.asked[3:] == [("POST", "EjectMedia"), ("PATCH", "Boot Hdd"), ("POST", "Reset GracefulShutdown")]


def test_hiccups_in_the_middle_are_waited_out(machine: Machine, emulated: stand.Bmc, image: str) -> None:
    machine.situation()
    emulated.statuses[:] = [503, 503, 503]
    carry_out(machine, [Step.INSERT], SOON, image)
    emulated.down = True
    back = threading.Timer(0.5, setattr, (emulated, "down", False))
    back.start()
    carry_out(machine, [Step.EJECT], SOON)
    back.join()
    assert emulated.asked == [("POST", "InsertMedia"), ("POST", "EjectMedia")]


def test_a_bmc_that_stays_away_is_an_error_after_the_limit(machine: Machine, emulated: stand.Bmc) -> None:
    emulated.down = True
    try:
        with pytest.raises(RackllamaError, match="does not answer"):
            look(machine, 0.1)
    finally:
        emulated.down = False


def test_what_does_not_come_about_is_told_with_what_to_look_at(machine: Machine, emulated: stand.Bmc) -> None:
    carry_out(machine, [Step.POWER_ON], SOON)
    with pytest.raises(
        RackllamaError, match="wait for the installer to power off did not come about within 1 s"
    ) as late:
        carry_out(machine, [Step.AWAIT_INSTALLER], SOON)
    assert "console" in late.value.remedy
    turn_off(machine, SOON)


def test_a_medium_that_the_bmc_cannot_fetch_is_told(machine: Machine, image: str) -> None:
    with pytest.raises(RackllamaError, match="Cannot download virtual media"):
        carry_out(machine, [Step.INSERT], SOON, f"{image}.not-there")


def test_power_is_cut_where_the_system_does_not_listen(
    machine: Machine, emulated: stand.Bmc, told: dict[str, dict[str, Any]]
) -> None:
    carry_out(machine, [Step.POWER_ON], SOON)
    cut = threading.Timer(1, told.__setitem__, (stand.SYSTEM, dict(stand.TOLD)))
    told[stand.SYSTEM] = {**stand.TOLD, "PowerState": "On"}  # whatever was asked
    cut.start()
    turn_off(machine, Limits(bmc=10, shutdown=0.2, poll=0.05))
    cut.join()
    assert [kind for _, kind in emulated.asked] == ["Reset On", "Reset GracefulShutdown", "Reset ForceOff"]


def test_limits_are_times() -> None:
    with pytest.raises(RackllamaError, match="`install` is no time"):
        Limits(install=0)
