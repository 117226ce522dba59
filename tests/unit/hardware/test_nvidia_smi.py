"""What the driver's own tool prints on real machines, read for what it says of their GPUs."""

from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.hardware import nvidia_smi
from rackllama.host.hardware.nvidia_smi import Gpu, parse, parse_capabilities, parse_links

RECORDED = Path(__file__).parent / "recorded"


def recorded(name):
    return (RECORDED / name).read_text("utf-8")


def test_eight_gpus_behind_nvswitches_tell_their_fabric():
    smi = parse(recorded("h100-x8-nvswitch.xml"))
    assert (smi.driver, smi.cuda, len(smi.gpus)) == ("580.105.08", "13.0", 8)
    assert smi.gpus[0] == Gpu(
        address="0000:53:00.0",
        device=0x2330,
        name="NVIDIA H100 80GB HBM3",
        uuid="GPU-00000000-0000-0000-0000-000000000000",
        memory_mib=81559,
        architecture="Hopper",
        ecc=True,
        mig=False,
        fabric_state="Completed",
        fabric_status="Success",
        row_remap_pending=False,
        row_remap_failed=False,
        power_limit_watts=700.0,
        reserved_mib=480,
        free_mib=81080,
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("b200-x8.xml", (0x2901, 183359, True, False, None)),
        ("a100.xml", (0x20B0, 40960, True, False, 89)),
        ("a100-mig.xml", (0x20B2, 81920, True, True, 89)),
        ("l40s.xml", (0x26B9, 46068, True, None, None)),
        ("t4-driver-515.xml", (0x1EB8, 15360, True, None, 93)),
    ],
)
def test_each_generation_and_driver_writes_its_own_form(name, told):
    gpu = parse(recorded(name)).gpus[0]
    assert (gpu.device, gpu.memory_mib, gpu.ecc, gpu.mig, gpu.slowdown_celsius) == told


def test_a_gpu_that_is_split_tells_its_parts():
    assert parse(recorded("a100-mig.xml")).gpus[0].mig_memory_mib == (19968, 19968, 19968, 19968)


def test_what_is_no_report_is_refused():
    with pytest.raises(RackllamaError, match="prints what is no report of it"):
        parse("Unable to determine the device handle for GPU0000:01:00.0: Unknown Error")
    with pytest.raises(RackllamaError, match="is no amount of memory"):
        parse('<nvidia_smi_log><gpu id="00000000:01:00.0"/></nvidia_smi_log>')


def test_capabilities_are_told_by_the_kernels_addresses():
    told = "00000000:1E:00.0, 9.0\n00000000:1F:00.0, [N/A]\n"
    assert parse_capabilities(told) == {"0000:1e:00.0": "9.0"}


def test_links_of_a_mixed_host():
    links = parse_links(recorded("mixed-topology.txt"))
    assert links["GPU0"] == ("SYS", "SYS", "SYS", "SYS")
    assert links["GPU1"] == ("SYS", "PHB", "NODE", "NODE")


def test_links_of_one_gpu_printed_in_colour():
    assert parse_links(recorded("h100-mig-topology.txt")) == {"GPU0": ()}


def test_links_with_network_cards_among_the_columns():
    table = """\
        GPU0  GPU1  NIC0  CPU Affinity
GPU0     X    NV18  PXB   0-47
GPU1    NV18   X    SYS   48-95
NIC0    PXB   SYS    X
"""
    assert parse_links(table) == {"GPU0": ("NV18",), "GPU1": ("NV18",)}


@pytest.mark.parametrize(
    ("said", "code", "remedy"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.124\n", 18, "reboot"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure", 9, "dkms status"),
        ("No devices were found\n", 6, "finds no GPU"),
        ("Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot", 15, "Xid 79"),
        ("", 255, "dmesg"),
    ],
)
def test_what_it_says_without_a_driver_is_explained(said, code, remedy):
    error = nvidia_smi.failure(said, code)
    assert (said.strip().splitlines() or ["exit code 255"])[0] in error.message
    assert remedy in error.remedy


def test_a_host_without_the_tool_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RackllamaError, match="there is no nvidia-smi"):
        nvidia_smi.ask()


def test_it_is_asked_in_three_ways(monkeypatch, tmp_path):
    """A program that prints recordings stands in for nvidia-smi."""
    script = f"""#!/bin/sh
case "$1" in
  -q) cat {RECORDED}/h100-x8-nvswitch.xml ;;
  topo) printf 'GPU0\\t X \\tNV18\\nGPU1\\tNV18\\t X \\n' ;;
  *) echo '00000000:53:00.0, 9.0' ;;
esac
"""
    (tmp_path / "nvidia-smi").write_text(script)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    smi = nvidia_smi.ask()
    assert [gpu.compute_capability for gpu in smi.gpus[:2]] == ["9.0", None]
    assert smi.links == {"GPU0": ("NV18",), "GPU1": ("NV18",)}
