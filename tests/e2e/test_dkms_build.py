"""A real kernel module by real DKMS: Debian's build of NVIDIA's open module, for Debian's kernel; nothing loads it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import rackllama.host
from rackllama.lab import hosts
from rackllama.lab.podman import podman

LAB = "dkms"
PACKAGE = "nvidia-open-kernel-dkms"
PROGRAM = "import sys; from host.driver.kernel_module import module_version; print(module_version(sys.argv[1]))"


@pytest.fixture
def container() -> Iterator[str]:
    """A plain lab host, by the name of its container."""
    yield hosts.start(LAB, 1, "bookworm").hosts[0].container
    hosts.stop(LAB)


@pytest.mark.slow
def test_the_module_that_dkms_has_built_is_found_for_its_kernel(container: str) -> None:
    def run(command: str) -> str:
        return podman("exec", container, "sh", "-c", command).strip()

    run("apt-get -qq update")
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends"
    run(f"{install} linux-headers-amd64 {PACKAGE} >/dev/null 2>&1")
    kernel = run("ls /lib/modules").split()[0]
    # DKMS builds while packages are installed for the running kernel alone, which is another machine's here.
    run(f"dkms autoinstall -k {kernel} >/dev/null 2>&1")
    version = run(f"dpkg-query --show --showformat '${{Version}}' {PACKAGE}").partition("-")[0]

    podman("cp", str(Path(next(iter(rackllama.host.__path__)))), f"{container}:/opt/host")
    found = run(f"cd /opt && python3 -c '{PROGRAM}' {kernel}")
    assert found == version
    assert run(f"cd /opt && python3 -c '{PROGRAM}' 6.1.0-1-amd64") == "None"
    assert run(f"modinfo -k {kernel} --field vermagic nvidia").startswith(f"{kernel} SMP")
