"""The bench for the driver's tests: that a played machine behaves as a real one where those tests rely on it."""

from dataclasses import replace

from rackllama.host.hardware.nvidia_smi import CAUSES

from ..gpu_host.archive import OTHER_KEY, URL
from ..gpu_host.bench import Bench
from ..gpu_host.machine import H100_X8
from .waiting import wait_until

KEYRING = "/etc/apt/keyrings/stand-in.gpg"
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get -qq install"
DRIVER = "nvidia-driver-cuda nvidia-kernel-open-dkms nvidia-fabricmanager"


def trust_archive(bench: Bench) -> None:
    """Name the archive as a source of packages, with its key."""
    fetch = f"import urllib.request as u; print(u.urlopen('{URL}/debian12/x86_64/3bf863cc.pub').read().decode())"
    bench.host.run(
        f'python3 -c "{fetch}" | gpg --dearmor >{KEYRING};'
        f"echo 'deb [signed-by={KEYRING}] {URL}/debian12/x86_64/ /' >/etc/apt/sources.list.d/stand-in.list;"
        "apt-get -qq update"
    )


def test_apt_takes_what_is_signed_and_whole_and_nothing_else(bench: Bench) -> None:
    trust_archive(bench)
    bench.archive.damage("libcuda1")
    code, told = bench.host.attempt(f"{INSTALL} libcuda1=580.105.08-1")
    assert code != 0
    assert "unexpected size" in told or "Hash Sum mismatch" in told

    bench.archive.damage()
    bench.host.run(f"{INSTALL} libcuda1=580.105.08-1")
    bench.archive.sign_with(OTHER_KEY)
    code, told = bench.host.attempt("apt-get -qq update -o APT::Update::Error-Mode=any")
    assert code != 0
    assert "NO_PUBKEY" in told


def test_packages_bring_modules_for_every_kernel_with_headers(bench: Bench) -> None:
    host, kernel, newer = bench.host, bench.host.kernel, bench.host.newer_kernel
    host.play(replace(H100_X8, kernels=(newer,)))
    bench.archive.publish_headers(kernel, newer)
    trust_archive(bench)
    host.run(f"{INSTALL} nvidia-driver-pinning-580.105.08; apt-get -qq update")
    host.run(f"{INSTALL} linux-headers-{kernel} {DRIVER}")
    assert (host.module_version(kernel), host.module_version(newer)) == ("580.105.08", None)

    host.run(f"{INSTALL} linux-headers-{newer}")  # as those of a real kernel, they have dkms build
    assert host.module_version(newer) == "580.105.08"
    code, told = host.attempt("nvidia-smi")
    assert (code, host.loaded_version()) == (9, None)
    assert any(words in told for words, _ in CAUSES)


def test_what_is_loaded_stays_until_a_boot_loads_what_is_installed(bench: Bench) -> None:
    host = bench.host
    trust_archive(bench)
    host.run(f"{INSTALL} linux-headers-{host.kernel}")
    host.run(
        f"{INSTALL} {DRIVER.replace(' ', '=580.95.05-1 ')}=580.95.05-1 "
        "libcuda1=580.95.05-1 libnvidia-ml1=580.95.05-1 nvidia-persistenced=580.95.05-1 "
        "nvidia-modprobe=580.95.05-1 libnvidia-gpucomp=580.95.05-1"
    )
    host.run("nvidia-modprobe -u -c=0; systemctl start nvidia-persistenced nvidia-fabricmanager")
    assert host.run("nvidia-smi -q -x | grep -c '<state>Completed'") == "8"
    assert host.loaded_version() == "580.95.05"
    assert "in use" in host.attempt("rmmod nvidia_uvm")[1]

    host.run(f"{INSTALL} {DRIVER}")
    code, told = host.attempt("nvidia-smi")
    assert (code, host.loaded_version()) == (18, "580.95.05")
    assert "Driver/library version mismatch" in told
    code, _ = host.attempt("systemctl restart nvidia-fabricmanager")
    assert code != 0
    assert "don't match with driver version 580.95.05" in host.run("tail -1 /var/log/fabricmanager.log")

    host.kernel_says("NVRM: Xid (PCI:0000:53:00): 79, pid=1234, GPU has fallen off the bus.")
    assert "Xid (PCI:0000:53:00): 79" in host.run("journalctl --boot --dmesg --output=cat")
    before = host.boot_id()
    with host.reboots() as reboots:
        host.run("systemctl reboot")
        wait_until(lambda: reboots and host.state() == "running", seconds=60)
    assert host.boot_id() != before
    assert host.loaded_version() == "580.105.08"
    assert host.run("journalctl --boot --dmesg --output=cat") == ""
    host.run("systemctl is-active nvidia-persistenced")
