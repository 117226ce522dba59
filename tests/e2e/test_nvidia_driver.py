"""The driver's role, on a played GPU server: exact versions, changes that are whole or taken back, proven GPUs.

What is played, and what is real, stands in tests/gpu_host: no GPU, no driver and no NVIDIA is behind this.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rackllama.lab.up import changed_tasks, start_ansible

from ..gpu_host.archive import OTHER_KEY, URL
from ..gpu_host.bench import Bench, archive_of, furnished
from ..gpu_host.machine import BARE, H100_X8, L40S, LAB, NO_GPU, GpuHost
from .test_gpu_preflight import FILES

DRIVEN = "driven"
VERSION, NEWER, OLDER, OTHER_BRANCH = "580.105.08", "580.126.20", "580.95.05", "570.211.01"
DRIVER = (
    *("libcuda1", "libnvidia-gpucomp", "libnvidia-ml1", "nvidia-driver-cuda", "nvidia-kernel-open-dkms"),
    *("nvidia-modprobe", "nvidia-persistenced"),
)
FABRIC = ("libnvidia-nscq", "nvidia-fabricmanager")
BYSTANDERS = ("datacenter-gpu-manager-4-core", "nvidia-container-toolkit", "cuda-toolkit-12-8", "cuda-nvcc-12-8")
PACKAGES = ("*nvidia*", "libcuda1")
SETTLE_SECONDS = 5
# What keeps the driver's packages where they are.
LOCKS = "apt-mark showhold; head -100 /etc/apt/preferences.d/* /etc/apt/apt.conf.d/*nvidia*"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq"
SOURCE = "/etc/apt/sources.list.d/rackllama-nvidia.sources"
UPDATE = f"{APT} update -o Dir::Etc::SourceList={SOURCE} -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0"


@dataclass(frozen=True)
class Converge:
    """How a run ended: exit code, what it said, changed tasks, and how often the host was booted meanwhile."""

    code: int
    output: str
    changed: int
    reboots: int


def start_playbook(bench: Bench, playbook: str, *arguments: str, **knobs: Any) -> "subprocess.Popen[str]":
    """Start a playbook on the played host."""
    given = {
        "nvidia_archive_url": URL,
        "nvidia_archive_fingerprint": bench.archive.fingerprint,
        "nvidia_driver_settle_seconds": SETTLE_SECONDS,
        **knobs,
    }
    return start_ansible(LAB, "ansible-playbook", playbook, "-e", json.dumps(given), *arguments)


def run_playbook(bench: Bench, playbook: str, *arguments: str, **knobs: Any) -> Converge:
    """Run a playbook on the played host, which comes up again where it is rebooted."""
    with bench.host.reboots() as reboots, start_playbook(bench, playbook, *arguments, **knobs) as play:
        output, _ = play.communicate()
    return Converge(play.returncode, output, changed_tasks(output).get(bench.host.host.name, -1), len(reboots))


def converge(bench: Bench, version: str = VERSION, *arguments: str, **knobs: Any) -> Converge:
    """Run the playbook for GPUs, for this version."""
    branch = version.partition(".")[0]
    knobs = {"nvidia_driver_branch": branch, "nvidia_driver_version": version, **knobs}
    return run_playbook(bench, "playbooks/gpu.yml", *arguments, **knobs)


@pytest.fixture(scope="session")
def driven_host(gpu_host: GpuHost) -> GpuHost:
    """The host saved with a driver, and what else may come from the archive."""
    gpu_host.restore(BARE)
    bench = furnished(gpu_host)
    outcome = converge(bench)
    assert outcome.code == 0, outcome.output
    assert outcome.reboots == 0, "nothing was loaded before: a reboot was not needed"
    gpu_host.run(f"{APT} install {' '.join(BYSTANDERS)}")
    gpu_host.save(DRIVEN)
    return gpu_host


@pytest.fixture
def driven(driven_host: GpuHost) -> Bench:
    """The host with VERSION, by its pinning package, and booted with it."""
    driven_host.restore(DRIVEN)
    return Bench(driven_host, archive_of(driven_host))


def driver_versions(host: GpuHost) -> dict[str, str]:
    """The driver's own version of each package that has one."""
    told = {name: version for name, version in host.installed(*PACKAGES).items() if name not in BYSTANDERS}
    return {name: version.partition("-")[0] for name, version in told.items()}


def all_of(version: str, *names: str) -> dict[str, str]:
    """All of one version."""
    return dict.fromkeys(names, version)


def pinning(version: str) -> str:
    """The name of the package that pins a version."""
    return f"nvidia-driver-pinning-{version}"


def held(host: GpuHost) -> set[str]:
    """The packages that are held."""
    return set(host.run("apt-mark showhold").split())


def assert_drives(host: GpuHost, version: str, gpus: int = 8) -> None:
    """The driver answers in that version, for all GPUs, and will after a boot."""
    report = host.run("nvidia-smi -q -x")
    assert f"<driver_version>{version}</driver_version>" in report
    assert f"<attached_gpus>{gpus}</attached_gpus>" in report
    assert host.loaded_version() == version
    assert host.module_version(host.kernel) == version
    assert host.attempt(f"ls /dev/nvidia-uvm /dev/nvidiactl /dev/nvidia{gpus - 1}")[0] == 0


def standing(host: GpuHost) -> dict[str, Any]:
    """What a failed change must leave as it was."""
    return {
        "packages": host.installed("*"),
        "locks": host.run(LOCKS),
        "module": host.module_version(host.kernel),
        "loaded": host.loaded_version(),
        "failed units": host.run("systemctl list-units --failed --plain --no-legend"),
        "persistence": host.run("systemctl is-active nvidia-persistenced.service"),
        "interrupted": host.run("dpkg --audit"),
    }


def assert_stands_as(before: dict[str, Any], host: GpuHost, version: str = VERSION) -> None:
    """The host is as it was, and boots with its driver."""
    assert standing(host) == before
    host.reboot()
    assert_drives(host, version)


def test_all_is_of_one_version_and_a_second_converge_changes_nothing(driven: Bench) -> None:
    host = driven.host
    assert driver_versions(host) == all_of(VERSION, *DRIVER, *FABRIC, pinning(VERSION))
    assert held(host) == set()
    assert_drives(host, VERSION)
    assert (
        host.run("systemctl is-active nvidia-fabricmanager nvidia-persistenced rackllama-gpu-nodes").split()
        == ["active"] * 3
    )
    assert "blacklist nouveau" in host.run(f"cat /boot/initrd.img-{host.kernel}")

    outcome = converge(driven)
    assert (outcome.code, outcome.changed, outcome.reboots) == (0, 0, 0), outcome.output


def test_what_is_published_later_changes_nothing(driven: Bench) -> None:
    host = driven.host
    driven.archive.publish(NEWER)
    before = driver_versions(host)
    outcome = converge(driven)
    assert (outcome.code, outcome.changed, outcome.reboots) == (0, 0, 0), outcome.output

    host.run(f"{UPDATE}; {APT} dist-upgrade")
    origins = 'Unattended-Upgrade::Origins-Pattern { "site=127.0.0.1"; };'
    host.run(f"echo '{origins}' >/etc/apt/apt.conf.d/60test")
    unattended = "unattended-upgrade --dry-run --verbose"
    assert "No packages found that can be upgraded unattended" in host.run(unattended)
    assert driver_versions(host) == before

    # Each guard holds it alone, and without any the same commands would upgrade.
    host.run(f"{APT} remove {pinning(VERSION)}; rm /etc/apt/preferences.d/*")
    assert "No packages found that can be upgraded unattended" in host.run(unattended)
    assert f"Inst libcuda1 [{VERSION}-1] ({NEWER}-1" in host.run("apt-get --simulate dist-upgrade")
    host.run("rm /etc/apt/apt.conf.d/*nvidia*")
    assert "libcuda1" in host.run(unattended)


@pytest.mark.parametrize(
    ("version", "by_package"),
    [
        pytest.param(NEWER, True, id="up-by-a-pinning-package"),
        pytest.param(NEWER, False, id="up-by-holds", marks=pytest.mark.slow),
        pytest.param(OLDER, False, id="down-by-holds", marks=pytest.mark.slow),
        pytest.param(OTHER_BRANCH, True, id="to-another-branch", marks=pytest.mark.slow),
    ],
)
def test_a_changed_pin_moves_all_of_the_driver_and_nothing_else(driven: Bench, version: str, by_package: bool) -> None:
    host = driven.host
    driven.archive.publish(version, pinning=by_package)
    driven.archive.publish_bystanders()
    others = host.installed(*BYSTANDERS)
    boot = host.boot_id()

    outcome = converge(driven, version)
    assert (outcome.code, outcome.reboots) == (0, 1), outcome.output
    assert host.boot_id() != boot
    fabric = [f"{name}-570" for name in FABRIC] if version == OTHER_BRANCH else FABRIC
    pins = [pinning(version)] if by_package else []
    assert driver_versions(host) == all_of(version, *DRIVER, *fabric, *pins)
    assert host.installed(*BYSTANDERS) == others
    assert held(host) == (set() if by_package else {*DRIVER, *fabric})
    assert_drives(host, version)
    assert version in host.run("nv-fabricmanager --version")

    again = converge(driven, version)
    assert (again.code, again.changed, again.reboots) == (0, 0, 0), again.output


@pytest.mark.slow
@pytest.mark.parametrize("first", [OLDER, NEWER])
def test_a_pin_goes_back_to_where_it_was(driven: Bench, first: str) -> None:
    host = driven.host
    driven.archive.publish(NEWER)
    assert converge(driven, first).code == 0
    outcome = converge(driven, VERSION)
    assert (outcome.code, outcome.reboots) == (0, 1), outcome.output
    assert driver_versions(host) == all_of(VERSION, *DRIVER, *FABRIC, pinning(VERSION))
    assert held(host) == set()
    assert_drives(host, VERSION)


@pytest.mark.slow
def test_without_an_nvswitch_there_is_no_fabric_manager(bench: Bench) -> None:
    bench.host.play(L40S)
    outcome = converge(bench)
    assert outcome.code == 0, outcome.output
    assert driver_versions(bench.host) == all_of(VERSION, *DRIVER, pinning(VERSION))
    assert_drives(bench.host, VERSION, gpus=1)


def test_a_host_without_a_gpu_is_left_alone_and_told_why(bench: Bench) -> None:
    bench.host.play(NO_GPU)
    before = bench.host.installed("*")
    outcome = converge(bench)
    assert (outcome.code, outcome.changed, outcome.reboots) == (0, 0, 0), outcome.output
    assert f"{bench.host.host.name} has no GPU of NVIDIA on its PCI bus: no driver is installed" in outcome.output
    assert bench.host.installed("*") == before


@pytest.mark.slow
def test_another_version_of_the_fabric_manager_is_found_and_named(driven: Bench) -> None:
    host = driven.host
    driven.archive.publish(NEWER)
    host.run(f"dpkg --install /srv/stand-in-archive/debian12/x86_64/nvidia-fabricmanager_{NEWER}-*.deb")
    host.attempt("systemctl restart nvidia-fabricmanager")
    outcome = run_playbook(driven, "playbooks/verify.yml")
    assert outcome.code != 0
    assert f"{NEWER}, not running" in outcome.output
    assert "converge again: playbooks/gpu.yml" in outcome.output

    outcome = converge(driven)
    assert outcome.code == 0, outcome.output
    assert driver_versions(host) == all_of(VERSION, *DRIVER, *FABRIC, pinning(VERSION))
    assert_drives(host, VERSION)


def test_a_build_that_fails_leaves_the_driver_of_before(driven: Bench) -> None:
    host, before = driven.host, standing(driven.host)
    driven.archive.publish(NEWER, compiles=False)
    outcome = converge(driven, NEWER)
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert "The packages of before are back" in outcome.output
    assert_stands_as(before, host)
    assert "too new a kernel" in outcome.output, "the end of the build's log is told"


@pytest.mark.slow
def test_a_build_that_fails_leaves_a_bare_host_bare(bench: Bench) -> None:
    bench.archive.publish(NEWER, compiles=False)
    outcome = converge(bench, NEWER)
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert "What was new is gone" in outcome.output
    assert driver_versions(bench.host) == {}
    assert bench.host.run("dpkg --audit") == ""

    bench.archive.publish(NEWER)
    outcome = converge(bench, NEWER)
    assert outcome.code == 0, outcome.output
    assert_drives(bench.host, NEWER)


@pytest.mark.slow
def test_a_damaged_package_is_found_before_anything_changes(driven: Bench) -> None:
    host, before, boot = driven.host, standing(driven.host), driven.host.boot_id()
    driven.archive.publish(NEWER)
    driven.archive.damage("libnvidia-ml1")
    outcome = converge(driven, NEWER)
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert "libnvidia-ml1" in outcome.output
    assert "No package was changed" in outcome.output
    assert host.boot_id() == boot
    assert_stands_as(before, host)


@pytest.mark.slow
def test_an_index_of_another_signer_changes_nothing(driven: Bench) -> None:
    host, before = driven.host, standing(driven.host)
    driven.archive.publish(NEWER)
    driven.archive.sign_with(OTHER_KEY)
    outcome = converge(driven, NEWER)
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert_stands_as(before, host)
    assert "NO_PUBKEY" in outcome.output


def test_the_preflight_changes_nothing_on_a_host_with_gpus(bench: Bench) -> None:
    listed = f"{FILES} | grep -v ^/opt/stand-in"  # where gpg was asked for a fingerprint
    before = bench.host.run(listed).splitlines()
    for arguments in ((), ("--check",)):
        outcome = run_playbook(bench, "playbooks/gpu_preflight.yml", *arguments)
        assert outcome.code == 0, outcome.output
        assert "8 H100-80GB" in outcome.output
    assert sorted(set(before) ^ set(bench.host.run(listed).splitlines())) == []
    assert len(before) > 1000


def test_check_mode_tells_what_a_new_host_would_get(bench: Bench) -> None:
    before = bench.host.installed("*")
    outcome = converge(bench, VERSION, "--check", "--diff")
    assert (outcome.code, outcome.reboots) == (0, 0), outcome.output
    assert f"+install nvidia-fabricmanager {VERSION}" in outcome.output
    assert bench.host.installed("*") == before
    assert bench.host.attempt("ls /etc/systemd/system/rackllama-gpu-nodes.service")[0] != 0


def test_another_key_is_not_trusted(bench: Bench) -> None:
    before = bench.host.run("ls /etc/apt/keyrings /etc/apt/sources.list.d")
    bench.archive.serve_key(OTHER_KEY)
    outcome = converge(bench)
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert f"ought to be {bench.archive.fingerprint}" in outcome.output
    assert "do not trust it" in outcome.output
    assert bench.host.run("ls /etc/apt/keyrings /etc/apt/sources.list.d") == before
    assert driver_versions(bench.host) == {}


@pytest.mark.slow
def test_a_kernel_without_headers_is_told_before_anything_changes(driven: Bench) -> None:
    host, newer = driven.host, driven.host.newer_kernel
    driven.archive.publish(NEWER)
    host.play(replace(H100_X8, kernels=(newer,)))
    before = standing(host)
    outcome = converge(driven, NEWER)
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert f"install linux-headers-{newer}" in outcome.output
    assert_stands_as(before, host)


@pytest.mark.slow
def test_the_next_boots_kernel_has_the_module_as_well(driven: Bench) -> None:
    host, newer = driven.host, driven.host.newer_kernel
    host.play(replace(H100_X8, kernels=(newer,)))
    driven.archive.publish_headers(host.kernel, newer)
    assert host.module_version(newer) is None
    outcome = converge(driven)
    assert (outcome.code, outcome.reboots) == (0, 0), outcome.output
    assert host.module_version(newer) == VERSION
    assert converge(driven).changed == 0

    driven.archive.publish(NEWER)
    outcome = converge(driven, NEWER)
    assert (outcome.code, outcome.reboots) == (0, 1), outcome.output
    assert (host.module_version(host.kernel), host.module_version(newer)) == (NEWER, NEWER)


@pytest.mark.slow
def test_nouveau_goes_by_a_reboot(bench: Bench) -> None:
    host = bench.host
    host.play(replace(H100_X8, nouveau=True))
    host.reboot()
    assert host.run("ls /sys/module") == "nouveau"
    outcome = converge(bench, nvidia_driver_reboot=False)
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert "nvidia_driver_reboot: true" in outcome.output

    outcome = converge(bench)
    assert (outcome.code, outcome.reboots) == (0, 1), outcome.output
    assert "nouveau" not in host.run("ls /sys/module")
    assert_drives(host, VERSION)


@pytest.mark.slow
def test_no_reboot_happens_where_none_is_allowed(driven: Bench) -> None:
    before, boot = standing(driven.host), driven.host.boot_id()
    driven.archive.publish(NEWER)
    outcome = converge(driven, NEWER, nvidia_driver_reboot=False)
    assert driven.host.boot_id() == boot
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert "nvidia_driver_reboot" in outcome.output
    assert standing(driven.host) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"lost": ("0000:53:00.0",)}, ("7 of 8", "dmesg | grep -i nvrm")),
        ({"fallen": ("0000:53:00.0",)}, ("GPU is lost", "has fallen off the bus")),
        (
            {"told": {"0000:64:00.0": {"remapped_rows/remapped_row_pending": "Yes"}}},
            ("0000:64:00.0 waits to remap a row", "nvidia-smi --gpu-reset"),
        ),
        (
            {"told": {"0000:64:00.0": {"fabric/state": "In Progress", "fabric/status": "N/A"}}},
            ("0000:64:00.0 In Progress", "/var/log/fabricmanager.log"),
        ),
    ],
    ids=["lost", "fallen", "damaged-memory", "fabric"],
)
def test_a_broken_gpu_after_the_boot_fails_the_play(
    driven: Bench, changed: dict[str, Any], told: tuple[str, ...]
) -> None:
    driven.archive.publish(NEWER)
    driven.host.play(replace(H100_X8, **changed))
    outcome = converge(driven, NEWER)
    assert (outcome.code, outcome.reboots) == (2, 1), outcome.output
    for words in told:
        assert words in outcome.output


@pytest.mark.slow
def test_an_error_of_the_kernel_is_told_until_the_next_boot(driven: Bench) -> None:
    driven.host.kernel_says("NVRM: Xid (PCI:0000:53:00): 79, pid=1234, GPU has fallen off the bus.")
    driven.host.kernel_says("NVRM: Xid (PCI:0000:64:00): 31, pid=99, a program's own fault")
    outcome = converge(driven)
    assert outcome.code == 2, outcome.output
    assert "Xid 79 of 0000:53:00" in outcome.output
    assert "Xid 31" not in outcome.output
    driven.host.reboot()
    outcome = converge(driven)
    assert (outcome.code, outcome.changed) == (0, 0), outcome.output


@pytest.fixture
def stranger(driven: Bench) -> Iterator[str]:
    """A program of somebody's that uses a GPU."""
    driven.host.run("systemd-run --quiet --unit=stranger sh -c 'exec 3</dev/nvidia0; exec sleep 3600'")
    yield "sleep"
    driven.host.attempt("systemctl stop stranger")


@pytest.mark.slow
def test_a_gpu_that_somebody_uses_is_not_taken_from_them(driven: Bench, stranger: str) -> None:
    before = standing(driven.host)
    driven.archive.publish(NEWER)
    outcome = converge(driven, NEWER)
    assert (outcome.code, outcome.reboots) == (2, 0), outcome.output
    assert f"{stranger} (" in outcome.output
    assert standing(driven.host) == before
    assert driven.host.run("systemctl is-active stranger") == "active"


@pytest.mark.slow
def test_check_mode_tells_and_changes_nothing(driven: Bench) -> None:
    before, boot = standing(driven.host), driven.host.boot_id()
    driven.archive.publish(NEWER)
    driven.host.run(UPDATE)
    outcome = converge(driven, NEWER, "--check", "--diff")
    assert (outcome.code, outcome.reboots) == (0, 0), outcome.output
    assert f"+install libcuda1 {NEWER}-1" in outcome.output
    assert standing(driven.host) == before
    assert driven.host.boot_id() == boot


@pytest.mark.slow
def test_a_change_that_is_cut_off_is_finished_by_the_next_converge(driven: Bench) -> None:
    """The host loses its power while apt is in the middle of the change."""
    host = driven.host
    driven.archive.publish(NEWER)
    with start_playbook(driven, "playbooks/gpu.yml", nvidia_driver_version=NEWER) as play:
        while not host.has_file(f"/usr/src/nvidia-{NEWER}/dkms.conf"):
            assert play.poll() is None
        host.cut_power()
        host.reboot()
        output, _ = play.communicate()
    assert play.returncode != 0, output
    outcome = converge(driven, NEWER)
    assert outcome.code == 0, outcome.output
    assert driver_versions(host) == all_of(NEWER, *DRIVER, *FABRIC, pinning(NEWER))
    assert_drives(host, NEWER)
