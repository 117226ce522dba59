"""The host's hardware in one shape, from the PCI bus alone and with what the driver adds."""

import json
import re
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.hardware import machine, pci
from rackllama.host.hardware.boards import BOARDS, board
from rackllama.host.hardware.description import Driver, driver_description, gpu_descriptions, link_of
from rackllama.host.hardware.nvidia_smi import parse
from rackllama.host.hardware.pci import PciDevice

RECORDED = Path(__file__).parent / "recorded"
LINE = re.compile(r"(\S+) .*\[([0-9a-f]{4})\]: .*\[([0-9a-f]{4}):([0-9a-f]{4})\]")


def devices(lspci):
    """The bus that `lspci -nn` printed."""
    found = [LINE.match(line) for line in lspci.splitlines()]
    return [PciDevice(at[1], int(at[3], 16), int(at[4], 16), int(at[2], 16)) for at in found if at]


@pytest.fixture
def a100s():
    return devices((RECORDED / "a100-x8-pci.txt").read_text())


def test_gpus_and_switches_are_told_from_the_bus_alone(a100s):
    assert (len(pci.gpus(a100s)), len(pci.nvswitches(a100s)), pci.has_nvswitch(a100s)) == (8, 6, True)
    first = gpu_descriptions(a100s, None)[0]
    told = (first["name"], first["generation"], first["kernel_modules"], first["memory_mib"])
    assert told == ("A100-80GB", "Ampere", ["open", "proprietary"], None)


def test_switches_that_the_bus_does_not_show_are_told_by_their_gpus():
    b200 = [PciDevice("0000:8f:00.0", 0x10DE, 0x2901, 0x0302)]
    assert (pci.nvswitches(b200), pci.has_nvswitch(b200)) == ([], True)


def test_the_sound_of_a_gpu_and_other_vendors_are_no_gpus():
    bus = """05:00.0 VGA compatible controller [0300]: NVIDIA Corporation GA102 [GeForce RTX 3080] [10de:2206] (rev a1)
05:00.1 Audio device [0403]: NVIDIA Corporation GA102 High Definition Audio Controller [10de:1aef] (rev a1)
06:00.0 VGA compatible controller [0300]: ASPEED Technology, Inc. ASPEED Graphics Family [1a03:2000]
07:00.0 PCI bridge [0604]: NVIDIA Corporation Device [10de:22b1]"""
    found = devices(bus)
    assert [device.address for device in pci.gpus(found)] == ["05:00.0"]
    assert not pci.has_nvswitch(found)
    unknown = gpu_descriptions(found, None)[0]
    assert (unknown["name"], unknown["device"], unknown["kernel_modules"]) == (None, "10de:2206", [])


def test_the_driver_adds_what_only_it_knows():
    smi = parse((RECORDED / "h100-x8-nvswitch.xml").read_text())
    bus = [PciDevice(gpu.address, 0x10DE, gpu.device, 0x0302, "nvidia", 0) for gpu in smi.gpus]
    # One that is on the bus, and that the driver has lost.
    found = gpu_descriptions([*bus, PciDevice("0000:ff:00.0", 0x10DE, 0x2330, 0x0302, "nvidia", 1)], smi)
    assert [gpu["memory_mib"] for gpu in found] == [81559] * 8 + [None]
    assert {gpu["name"] for gpu in found} == {"H100-80GB"}
    assert (found[0]["fabric_state"], found[0]["bound_to"], found[0]["numa_node"]) == ("Completed", "nvidia", 0)


def test_gpus_are_linked_as_fast_as_their_slowest_way():
    assert link_of(("NV18", "NV18")) == "nvlink"
    assert link_of(("NV4", "SYS")) == "pcie"
    assert link_of(()) is None


def test_why_the_driver_does_not_answer_is_told():
    told = driver_description(Driver(None, "there is no nvidia-smi", "install the driver: playbooks/site.yml"))
    assert told == {
        "version": None,
        "cuda": None,
        "problem": "there is no nvidia-smi",
        "remedy": "install the driver: playbooks/site.yml",
    }


@pytest.mark.parametrize(
    ("device", "name", "modules"),
    [
        (0x1DB6, "V100-32GB", ("proprietary",)),
        (0x1EB8, "T4", ("open", "proprietary")),
        (0x2330, "H100-80GB", ("open", "proprietary")),
        (0x26BA, "L20", ("open", "proprietary")),
        (0x2684, "RTX4090", ("open", "proprietary")),
        (0x2901, "B200", ("open",)),
    ],
)
def test_each_generation_has_its_kernel_modules(device, name, modules):
    assert (board(device).name, board(device).kernel_modules) == (name, modules)


def test_a_board_of_no_table_is_unknown():
    assert board(0x0020) is None
    assert all(0 < device < 0x10000 for device in BOARDS)


def test_the_bus_is_read_as_the_kernel_shows_it(tmp_path):
    folder = tmp_path / "devices" / "0000:06:00.0"
    folder.mkdir(parents=True)
    (tmp_path / "drivers" / "nouveau").mkdir(parents=True)
    for name, text in {"vendor": "0x10de", "device": "0x2330", "class": "0x030200", "numa_node": "-1"}.items():
        (folder / name).write_text(f"{text}\n")
    (folder / "driver").symlink_to(tmp_path / "drivers" / "nouveau")
    assert pci.read_devices(tmp_path / "devices") == [PciDevice("0000:06:00.0", 0x10DE, 0x2330, 0x0302, "nouveau")]
    assert pci.read_devices(tmp_path / "none") == []


def block_device(name, **told):
    empty = {"fstype": None, "label": None, "mountpoint": None, "model": None, "serial": None, "tran": None}
    return {"name": name, "path": f"/dev/{name}", "type": "disk", "size": 10, "rota": False, **empty, **told}


def test_disks_tell_what_is_on_them():
    system = block_device("nvme0n1p1", type="part", fstype="ext4", mountpoint="/")
    given = [
        block_device("nvme0n1", model="PM9A3 ", children=[system]),
        block_device("sda", rota="1"),  # as older versions write it
        block_device("zram0", size=0),
        block_device("sr0", type="rom"),
    ]
    used, free = machine.disks(json.dumps({"blockdevices": given}))
    assert (used.path, used.model, used.mounts) == ("/dev/nvme0n1", "PM9A3", ("/",))
    assert used.used_by == ("/dev/nvme0n1p1: part", "/dev/nvme0n1p1: /")
    assert (free.path, free.rotates, free.used_by) == ("/dev/sda", True, ())


def test_memory_modules_are_counted_with_their_rate():
    slot = "Memory Device\n\tSize: {size}\n\tType: DDR5\n\tConfigured Memory Speed: {rate}\n"
    filled, empty = slot.format(size="64 GB", rate="4800 MT/s"), slot.format(size="No Module Installed", rate="Unknown")
    assert machine.memory_modules(filled * 12 + empty * 4) == machine.MemoryModules(12, 4800, "DDR5")
    slower = slot.format(size="64 GB", rate="4400 MT/s")
    assert machine.memory_modules(filled + slower) == machine.MemoryModules(2, None, "DDR5")
    assert machine.memory_modules("# SMBIOS entry point not found\n") is None


def test_memory_is_told_in_mebibytes():
    assert machine.ram_mib("MemTotal:       24684160 kB\nMemFree: 1 kB\n") == 24105
    with pytest.raises(RackllamaError, match="does not tell the memory"):
        machine.ram_mib("")


def test_the_rate_of_reading_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.os, "O_DIRECT", 0)  # not every file system of a test has it
    (tmp_path / "disk").write_bytes(bytes(8 << 20))
    assert machine.read_mbs(tmp_path / "disk", seconds=0.2) > 0
    (tmp_path / "empty").touch()
    with pytest.raises(RackllamaError, match="is empty"):
        machine.read_mbs(tmp_path / "empty")
    with pytest.raises(RackllamaError, match="cannot be read"):
        machine.read_mbs(tmp_path / "missing")
