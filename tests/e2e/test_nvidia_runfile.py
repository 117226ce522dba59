"""The driver from the runfile, and CUDA's toolkit, on a played GPU server: see tests/gpu_host for what is played."""

from pathlib import Path
from typing import Any

import pytest

from ..gpu_host.archive import URL
from ..gpu_host.bench import Bench, furnished
from ..gpu_host.machine import BARE, L40S, NO_GPU, GpuHost
from .test_nvidia_driver import Converge, run_playbook

pytestmark = pytest.mark.slow

VERSION = "570.86.10"
LOCK = """\
nvidia_driver_runfile:
  version: {version}
  licence: none
  origin: lab-depot
  files:
  - architecture: amd64
    url: {url}/cuda_12.8.0_{version}_linux.run
    size: null
    sha256: {sha256}
"""


@pytest.fixture
def workstation(gpu_host: GpuHost) -> Bench:
    """The played host as new, with one L40S and no NVSwitch."""
    gpu_host.restore(BARE)
    return furnished(gpu_host, L40S)


def converge_by_runfile(bench: Bench, folder: Path, *, broken: bool = False, sha256: str = "") -> Converge:
    """Run the playbook with a stand-in for the runfile."""
    made = bench.host.run(f"python3 /opt/stand-in/make_runfile.py {VERSION} {'broken' if broken else ''}")
    lock = folder / "artefacts.lock"
    lock.write_text(LOCK.format(version=VERSION, url=URL, sha256=sha256 or made), encoding="utf-8")
    return run_playbook(
        bench,
        "playbooks/gpu.yml",
        nvidia_driver_source="runfile",
        nvidia_driver_lock=str(lock.resolve()),
        nvidia_driver_mirror="",
    )


def test_a_driver_comes_whole_and_a_second_converge_changes_nothing(workstation: Bench, tmp_path: Path) -> None:
    host = workstation.host
    first, again = converge_by_runfile(workstation, tmp_path), converge_by_runfile(workstation, tmp_path)
    assert (first.code, first.reboots) == (0, 0), first.output
    assert (again.code, again.changed) == (0, 0), again.output
    assert host.loaded_version() == VERSION
    assert host.module_version(host.kernel) == VERSION
    host.reboot()
    assert host.loaded_version() == VERSION
    assert host.run("systemctl is-active nvidia-persistenced rackllama-gpu-nodes").split() == ["active"] * 2
    assert run_playbook(workstation, "playbooks/gpu_preflight.yml", nvidia_driver_source="runfile").code == 0


def test_other_bytes_than_the_locked_ones_are_not_run(workstation: Bench, tmp_path: Path) -> None:
    outcome = converge_by_runfile(workstation, tmp_path, sha256="a" * 64)
    assert outcome.code == 2, outcome.output
    assert "is locked" in outcome.output
    assert workstation.host.module_version(workstation.host.kernel) is None
    assert workstation.host.run("ls /var/lib/rackllama/driver /var/tmp | grep -i nvidia; true") == ""


def test_a_build_that_fails_leaves_nothing_of_it(workstation: Bench, tmp_path: Path) -> None:
    outcome = converge_by_runfile(workstation, tmp_path, broken=True)
    assert outcome.code == 2, outcome.output
    assert "Nothing was left of it" in outcome.output
    assert workstation.host.attempt("ls /usr/bin/nvidia-smi")[0] != 0


def test_beside_packages_it_is_refused(workstation: Bench, tmp_path: Path) -> None:
    packaged = run_playbook(workstation, "playbooks/gpu.yml", nvidia_driver_version="580.105.08")
    assert packaged.code == 0, packaged.output
    outcome = converge_by_runfile(workstation, tmp_path)
    assert outcome.code == 2, outcome.output
    assert "remove them first" in outcome.output
    assert workstation.host.loaded_version() == "580.105.08"


def compiling(bench: Bench, **knobs: Any) -> Converge:
    """Run the playbook on a host that compiles."""
    return run_playbook(bench, "playbooks/gpu.yml", cuda_compiles_here=True, **knobs)


def test_the_toolkit_comes_without_a_driver_for_shells_and_units(workstation: Bench) -> None:
    host = workstation.host
    host.play(NO_GPU)
    first, again = compiling(workstation), compiling(workstation)
    assert first.code == 0, first.output
    assert (again.code, again.changed) == (0, 0), again.output
    assert host.installed("cuda-toolkit-12-8") == {"cuda-toolkit-12-8": "12.8.1-1"}
    assert host.installed("*nvidia*driver*", "nvidia-kernel*") == {}
    assert "release 12.8," in host.run("sh -lc 'nvcc -V'")
    in_a_unit = "systemd-run --quiet --wait --pipe --property=EnvironmentFile=/etc/rackllama/cuda.env sh -c 'nvcc -V'"
    assert "release 12.8," in host.run(in_a_unit)


def test_a_toolkit_that_the_archive_lacks_is_told(workstation: Bench) -> None:
    workstation.host.play(NO_GPU)
    outcome = compiling(workstation, cuda_version="12.8.9")
    assert outcome.code == 2, outcome.output
    assert "12.8.1-1" in outcome.output
