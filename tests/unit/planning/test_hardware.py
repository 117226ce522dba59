"""From what people type, rent or have to the hardware that a plan is made for."""

import json
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.hardware.description import gpu_descriptions
from rackllama.host.hardware.nvidia_smi import parse
from rackllama.host.hardware.pci import PciDevice
from rackllama.planning.hardware import (
    Disk,
    Gpu,
    available_instances,
    from_description,
    from_instance,
    from_names,
    module_bandwidth_gbs,
    parse_ram_bandwidth,
    parse_rate,
    parse_size,
)

RECORDED = Path(__file__).parents[1] / "hardware" / "recorded"


def described(gpus, **more):
    """What a host tells of itself."""
    return {
        "gpus": gpus,
        "driver": {"problem": None, "remedy": None},
        "ram_mib": 515000,
        "memory_modules": {"count": 12, "rate_mts": 4800, "kind": "DDR5"},
        "numa_nodes": 2,
        "disks": [{"path": "/dev/nvme0n1", "free_bytes": 10**12, "read_mbs": 6400}],
        "network_mbs": 3125,
        **more,
    }


def recorded_gpus(name):
    """GPUs of a real machine as its host describes them, by their driver and by ids on the bus."""
    smi = parse((RECORDED / name).read_text("utf-8"))
    return gpu_descriptions([PciDevice(gpu.address, 0x10DE, gpu.device, 0x0302, "nvidia") for gpu in smi.gpus], smi)


def refusal(function, *given, **named):
    with pytest.raises(RackllamaError) as caught:
        function(*given, **named)
    return caught.value


def test_hardware_to_be_bought_is_told_by_names_and_amounts():
    host = from_names("8xL20", "2TiB", ram_bandwidth="16xDDR5-4800", numa_nodes=2, network="10Gbit/s", disk="7TB")
    assert host.name == "8xL20"
    assert host.gpus == (Gpu("L20", 46068, 864, "8.9", "cuda", "pcie"),) * 8
    assert (host.ram_mib, host.ram_bandwidth_gbs, host.numa_nodes) == (2 << 20, 614.4, 2)
    assert (host.network_mbs, host.disks) == (1250, (Disk("disk", 7 * 10**12),))
    assert (host.is_unified, host.price) == (False, None)


def test_what_nobody_told_is_not_known():
    host = from_names("2xH100-80GB,1xL40S")
    assert [gpu.name for gpu in host.gpus] == ["H100-80GB", "H100-80GB", "L40S"]
    assert (host.ram_mib, host.ram_bandwidth_gbs, host.network_mbs, host.disks) == (None, None, None, ())


def test_a_host_without_gpus_has_its_memory():
    host = from_names("none", "384GiB", ram_bandwidth="307.2GB/s", disk="2TB", disk_read="3.5GB/s")
    assert (host.gpus, host.ram_mib, host.ram_bandwidth_gbs) == ((), 384 * 1024, 307.2)
    assert host.disks == (Disk("disk", 2 * 10**12, read_mbs=3500),)


def test_unified_memory_is_that_of_the_host():
    host = from_names("M3 Ultra", "512GiB")
    assert host.is_unified
    assert host.gpus[0].memory_mib == host.ram_mib == 512 * 1024
    assert host.gpus[0].usable_mib == int(512 * 1024 * 0.74)
    assert host.ram_bandwidth_gbs == host.gpus[0].bandwidth_gbs == 819
    assert refusal(from_names, "M3Ultra").remedy == "say how much: --ram 192GiB"
    assert "no host has M3Ultra,L4" in refusal(from_names, "M3Ultra,L4", "512GiB").message


@pytest.mark.parametrize(
    ("amounts", "complaint"),
    [
        ({"ram": "0"}, "'0' is no amount"),
        ({"ram": "0GiB"}, "'0GiB' is too little"),
        ({"ram": "lots"}, "'lots' is no amount"),
        ({"ram": "64GiB", "ram_bandwidth": "fast"}, "'fast' is no bandwidth of memory"),
        ({"ram": "64GiB", "ram_bandwidth": "0xDDR5-4800"}, "is no bandwidth of memory"),
        ({"network": "10"}, "'10' is no rate"),
        ({"network": "0Gbit/s"}, "is no rate"),
        ({"disk": "7"}, "'7' is no amount"),
        ({"numa_nodes": 0}, "no host has 0 NUMA nodes"),
    ],
)
def test_nonsense_is_refused(amounts, complaint):
    assert complaint in refusal(from_names, "L4", **amounts).message


@pytest.mark.parametrize(
    ("text", "size"),
    [("384GiB", 384 << 30), ("2TiB", 2 << 40), ("500GB", 500 * 10**9), ("1.5 GiB", 3 << 29), ("2048Mi", 2 << 30)],
)
def test_sizes_have_a_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"), [("10Gbit/s", 1250), ("10Gbps", 1250), ("25Gbit", 3125), ("1.2GB/s", 1200), ("800MB/s", 800)]
)
def test_rates_are_in_bits_or_bytes(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


def test_bandwidth_of_memory_follows_from_its_channels():
    assert parse_ram_bandwidth("12xDDR5-4800") == 460.8
    assert parse_ram_bandwidth("8 x ddr4-3200") == 204.8
    assert module_bandwidth_gbs({"count": 8, "rate_mts": 3200, "kind": "DDR4"}) == 204.8
    assert module_bandwidth_gbs({"count": 8, "rate_mts": None, "kind": "DDR4"}) is None
    assert module_bandwidth_gbs(None) is None


def test_an_instance_type_has_what_its_driver_shows_and_its_price():
    host = from_instance("p5.48xlarge")
    assert [(gpu.name, gpu.memory_mib) for gpu in host.gpus] == [("H100-80GB", 81559)] * 8
    assert (host.ram_mib, host.ram_bandwidth_gbs) == (2 << 20, None)
    assert host.disks == (Disk("8 local disks", 8 * 3800 * 10**9),)
    assert host.network_mbs == 12500  # one card's; the other 31 serve instances of its kind
    assert (host.price.usd_per_hour, host.price.region) == (55.04, "us-east-1")


def test_all_instance_types_can_be_planned_for():
    hosts = available_instances()
    assert len(hosts) >= 14
    assert [host.name for host in hosts if host.price is None] == ["p5e.48xlarge"]
    assert "did you mean" in refusal(from_instance, "p5.49xlarge").message


def test_a_real_host_keeps_what_its_driver_tells():
    host = from_description(described(recorded_gpus("h100-x8-nvswitch.xml")), "gpu1")
    first = host.gpus[0]
    assert (host.name, len(host.gpus), first.name, first.memory_mib) == ("gpu1", 8, "H100-80GB", 81559)
    assert (first.bandwidth_gbs, first.usable_mib) == (3352, 81079)
    assert (host.ram_mib, host.ram_bandwidth_gbs, host.numa_nodes) == (515000, 460.8, 2)
    assert (host.disks, host.network_mbs) == ((Disk("/dev/nvme0n1", 10**12, 6400),), 3125)


def test_each_part_of_a_split_gpu_is_a_device():
    gpus = from_description(described(recorded_gpus("a100-mig.xml"))).gpus
    assert [(gpu.name, gpu.memory_mib) for gpu in gpus] == [("A100-80GB MIG 20GB", 19968)] * 4
    assert gpus[0].bandwidth_gbs == pytest.approx(2039 / 4, rel=0.03)


def test_cards_and_boards_of_one_name_are_told_apart():
    board = {"name": "H100-80GB", "product": "NVIDIA H100 80GB HBM3", "device": "10de:2330", "memory_mib": 81559}
    card = {"name": "H100-80GB", "product": "NVIDIA H100 PCIe", "device": "10de:2331", "memory_mib": 81559}
    gpus = from_description(described([board, card])).gpus
    assert [(gpu.name, gpu.bandwidth_gbs) for gpu in gpus] == [("H100-80GB", 3352), ("H100-80GB-PCIe", 2039)]


def test_a_gpu_that_nobody_knows_has_no_bandwidth():
    unknown = {
        "name": "NVIDIA X9",
        "product": "NVIDIA X9",
        "device": "10de:0001",
        "memory_mib": 50000,
        "free_mib": 40000,
    }
    other = {
        "name": "NVIDIA GeForce RTX 3060",
        "product": "NVIDIA GeForce RTX 3060",
        "memory_mib": 8192,
    }  # not with 12 GB
    gpus = from_description(described([unknown, other])).gpus
    assert gpus[0] == Gpu("NVIDIA X9", 50000, free_mib=40000)
    assert gpus[1] == Gpu("NVIDIA GeForce RTX 3060", 8192)


def test_without_a_driver_the_catalogue_tells_the_memory():
    by_bus = gpu_descriptions([PciDevice("0000:06:00.0", 0x10DE, 0x26BA, 0x0302)], None)
    assert [(gpu.name, gpu.memory_mib) for gpu in from_description(described(by_bus)).gpus] == [("L20", 46068)]
    unknown = gpu_descriptions([PciDevice("0000:06:00.0", 0x10DE, 0x2206, 0x0300)], None)
    driver = {"problem": "there is no nvidia-smi", "remedy": "install the driver: playbooks/site.yml"}
    error = refusal(from_description, described(unknown, driver=driver))
    assert error.message == "nobody tells the memory of GPU 10de:2206: there is no nvidia-smi"
    assert error.remedy == "install the driver: playbooks/site.yml"


def test_what_is_planned_for_is_told_in_the_shape_of_a_hosts_description():
    for host in (from_instance("g6e.12xlarge"), from_names("M2Ultra", "192GiB"), from_names("4xRTX4090", "384GiB")):
        told = json.loads(json.dumps(host.as_data()))
        again = from_description(told)
        assert (again.gpus, again.ram_mib, again.disks) == (host.gpus, host.ram_mib, host.disks)
        assert (again.name, again.is_unified, again.network_mbs) == (host.name, host.is_unified, host.network_mbs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ram_mib": "65536"},
        {"ram_mib": float("nan")},
        {"ram_mib": -1},
        {"ram_bandwidth_gbs": "fast"},
        {"numa_nodes": -2},
        {"gpus": [{"name": "L20", "memory_mib": True}]},
        {"gpus": [{"name": "L20", "memory_mib": float("inf")}]},
        {"gpus": [{"name": "L20", "memory_mib": 46068, "kind": "rocm"}]},
        {"disks": [{"path": "/dev/sda", "free_bytes": 1, "read_mbs": "y"}]},
    ],
)
def test_amounts_of_a_description_that_cannot_be_are_refused(wrong):
    with pytest.raises(RackllamaError):
        from_description({"gpus": [], **wrong})
