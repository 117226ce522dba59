"""The GPUs and instance types that rackllama knows: what is shipped, and how a name that people type is understood."""

import json
from dataclasses import fields
from datetime import date

import pytest

from rackllama.catalog.hardware import (
    CatalogueGpu,
    Price,
    find_gpu,
    find_instance,
    find_product,
    parse_gpus,
    read_gpus,
    read_instances,
)
from rackllama.cli import main
from rackllama.host.errors import RackllamaError
from rackllama.host.hardware.boards import BOARDS

GPUS, INSTANCES = read_gpus(), read_instances()
FIGURES = ("memory_mib", "usable_mib", "usable_share", "bandwidth_gbs", "compute_capability")
# Boards that hosts may have, and whose figures nobody has looked up yet: a host tells their memory itself.
WITHOUT_FIGURES = {
    "M40",
    "M60",
    "GTX1080Ti",
    "P100-16GB",
    "P40",
    "P4",
    "V100-16GB",
    "V100-32GB",
    "V100S-32GB",
    "RTX8000",
    "T4",
    "RTX2060",
    "A100-64GB",
    "A30",
    "A800-40GB",
    "A800-80GB",
    "L40",
    "H800-80GB",
    "H20-141GB",
    "GH200-96GB",
    "GH200-144GB",
    "GB200",
    "RTX5090D",
    "B300",
    "GB300",
}


def refusal(function, *given):
    with pytest.raises(RackllamaError) as caught:
        function(*given)
    return caught.value


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_each_figure_of_a_gpu_has_a_source_and_its_date(gpu):
    told = {figure for figure in FIGURES if getattr(gpu, figure) is not None}
    assert set(gpu.sources) == told
    for source in gpu.sources.values():
        assert len(source.source) > 20
        assert type(source.date) is date
    assert gpu.bandwidth_gbs
    assert gpu.products
    assert gpu.kind in ("cuda", "metal")
    if gpu.kind == "cuda":
        assert (gpu.usable_mib or 1) < gpu.memory_mib
        assert gpu.link in ("nvlink", "pcie")
        assert gpu.compute_capability


def test_what_a_host_calls_its_boards_the_catalogue_knows():
    for board in BOARDS.values():
        if board.name not in WITHOUT_FIGURES:
            assert find_gpu(board.name).generation == board.generation, board.name
    named = {board.name for board in BOARDS.values()}
    known = {name for gpu in GPUS.values() for name in (gpu.name, *gpu.aliases)}
    assert named & known == named - WITHOUT_FIGURES, "take those that are known now from the list"
    assert named >= WITHOUT_FIGURES


def test_ids_are_of_one_gpu_each():
    ids = [pci_id for gpu in GPUS.values() for pci_id in gpu.pci_ids]
    assert len(ids) == len(set(ids))
    for gpu in GPUS.values():
        for pci_id in gpu.pci_ids:
            board = BOARDS.get(int(pci_id, 16))
            assert board is None or board.generation == gpu.generation


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("RTX4090", "RTX4090"),
        ("rtx 4090", "RTX4090"),
        ("4090", "RTX4090"),
        ("RTX 4090 D", "RTX4090D"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("H100 80GB", "H100-80GB"),
        ("h100-80gb-pcie", "H100-80GB-PCIe"),
        ("NVIDIA H100 PCIe", "H100-80GB-PCIe"),
        ("h100 nvl", "H100-NVL"),
        ("H100-94GB", "H100-NVL"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("H20", "H20"),
        ("L4", "L4"),
        ("A6000", "RTXA6000"),
        ("rtx 6000 ada", "RTX6000Ada"),
        ("RTX PRO 6000", "RTXPRO6000"),
        ("rtx 4060 ti 16gb", "RTX4060Ti-16GB"),
        ("Apple M3 Ultra", "M3Ultra"),
    ],
)
def test_a_gpu_is_found_however_it_is_written(typed, name):
    assert find_gpu(typed).name == name


@pytest.mark.parametrize(
    ("typed", "candidates"),
    [
        ("h100", "H100-80GB or H100-80GB-PCIe or H100-NVL"),
        ("A100", "A100-40GB or A100-80GB or A100-80GB-PCIe"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX4060Ti-8GB or RTX4060Ti-16GB"),
    ],
)
def test_a_name_of_several_lists_them(typed, candidates):
    assert refusal(find_gpu, typed).message == f"{typed!r} may be {candidates}"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("RTX4900", "did you mean RTX4090 "),
        ("L40", "did you mean L40S "),
        ("MI300X", "has no GPU 'MI300X'"),
        ("", "''"),
    ],
)
def test_an_unknown_gpu_is_told_with_those_that_come_close(typed, hint):
    error = refusal(find_gpu, typed)
    assert hint in error.message
    assert "H200" in error.remedy


def test_gpus_are_counted_as_people_write_them():
    assert [gpu.name for gpu in parse_gpus("8xL20")] == ["L20"] * 8
    assert [gpu.name for gpu in parse_gpus("2 x H100-80GB, L40S")] == ["H100-80GB", "H100-80GB", "L40S"]
    assert [gpu.name for gpu in parse_gpus("4×4090")] == ["RTX4090"] * 4  # noqa: RUF001
    assert parse_gpus("none") == ()


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("0", "'0' names no GPU"),
        ("8", "'8' names no GPU"),
        ("", "'' names no GPU"),
        ("8xL20,", "'' names no GPU"),
        ("0xL20", "counts 0 GPUs"),
        ("5000xL20", "counts 5000 GPUs"),
        ("-1xL20", "no GPU '-1xL20' (did you mean L20?)"),
        ("1.5xL4", "no GPU '1.5xL4'"),
        ("many", "no GPU 'many'"),
        ("2xH100", "'H100' may be"),
    ],
)
def test_nonsense_is_no_list_of_gpus(typed, complaint):
    assert complaint in refusal(parse_gpus, typed).message


def test_two_gpus_of_one_product_name_are_told_apart():
    assert find_product("NVIDIA GeForce RTX 4060 Ti", None, 16380).name == "RTX4060Ti-16GB"
    assert find_product("NVIDIA GeForce RTX 4060 Ti", "2803", None).name == "RTX4060Ti-8GB"
    assert find_product("NVIDIA GeForce RTX 4060 Ti", None, None) is None
    assert find_product("NVIDIA GeForce RTX 9999", "ffff", 8192) is None


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_each_instance_type_has_gpus_that_are_known_and_a_price_or_why_not(instance):
    gpu = GPUS[instance.gpu]
    assert abs(gpu.memory_mib - instance.gpu_memory_mib) < 0.01 * gpu.memory_mib
    assert 0 < instance.landing_gbit <= instance.network_gbit
    assert bool(instance.price) != bool(instance.price_note)
    if instance.price:
        assert instance.price.usd_per_hour > 0
        assert type(instance.price.date) is date
        assert "skypilot-catalog" in instance.price.source
    figures = {each.name for each in fields(instance)} - {"name", "price", "price_note", "sources", "ram_bandwidth_gbs"}
    assert figures - {"disks", "disk_gb"} <= set(instance.sources)


def test_what_an_instance_type_costs_is_told_with_its_day():
    price = find_instance("P5.48xlarge ").price
    assert (price.usd_per_hour, price.region, price.date) == (55.04, "us-east-1", date(2026, 11, 22))
    assert find_instance("p5e.48xlarge").price is None
    assert isinstance(find_instance("p4d.24xlarge").price, Price)
    assert "did you mean p5.4xlarge" in refusal(find_instance, "p5.24xlarge").message


def test_a_catalogue_of_ones_own_is_read(tmp_path):
    path = tmp_path / "gpus.yaml"
    path.write_text("""
sources: {sheet: {source: https://vendor.test/sheet.pdf, date: 2026-01-02}}
gpus:
  X1-16GB: {generation: X, memory_mib: 16000, bandwidth_gbs: 100, sources: {memory_mib: sheet, bandwidth_gbs: sheet}}
""")
    gpus = read_gpus(path)
    assert isinstance(gpus["X1-16GB"], CatalogueGpu)
    assert find_gpu("x1", gpus).sources["memory_mib"].date == date(2026, 1, 2)


def test_the_list_has_what_is_known_and_what_is_not(capsys):
    assert main(["hardware"]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert ["L20", "46068", "864", "8.9", "pcie"] in lines
    assert ["g6e.12xlarge", "4xL40S", "48", "384", "2", "x", "1900", "100", "10.49", "us-east-1"] in lines
    assert "none is listed" in next(line for line in printed.splitlines() if line.startswith("p5e.48xlarge"))


def test_the_list_as_json_has_the_sources(capsys):
    assert main(["hardware", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [gpu["name"] for gpu in told["gpus"]] == list(GPUS)
    assert told["gpus"][0]["sources"]["memory_mib"]["date"] == "2025-04-24"
    assert told["instances"][0]["price"]["usd_per_hour"] == 55.04
    assert told["instances"][0]["sources"]["ram_gib"]["date"] == "2026-08-02"
