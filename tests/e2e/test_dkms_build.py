"""A real kernel module by real DKMS: NVIDIA's open module, of Debian's package, for Debian's kernel. Nothing loads it.

Of the release's own versions, which were built together: a later kernel of its security archive may be too new for the
module. Debian's packages name the module otherwise, by alternatives which are not set up here: that is taken out.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rackllama.host.driver import kernel_module
from rackllama.lab import hosts
from rackllama.lab.podman import podman

LAB = "dkms"
SUITE = "bookworm"
PACKAGE = "nvidia-open-kernel-dkms"
PROGRAM = "import sys; from host.driver.kernel_module import module_version; print(module_version(sys.argv[1]))"


@pytest.fixture
def container() -> Iterator[str]:
    """A plain lab host, by the name of its container."""
    yield hosts.start(LAB, 1, SUITE).hosts[0].container
    hosts.stop(LAB)


@pytest.mark.slow
def test_the_module_that_dkms_has_built_is_found_for_its_kernel(container: str) -> None:
    def run(command: str) -> str:
        return podman("exec", container, "sh", "-c", command).strip()

    run("apt-get -qq update")
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends"
    run(f"{install} dkms linux-headers-amd64/{SUITE} 2>&1")
    run(f"cd /tmp && apt-get -qq download {PACKAGE}/{SUITE} && dpkg-deb --extract {PACKAGE}_*.deb /")
    kernel, source = run("ls /lib/modules"), Path(run("ls -d /usr/src/nvidia-*"))
    name, _, version = source.name.rpartition("-")
    run(f"sed -i /^DEST_MODULE_NAME/d {source}/dkms.conf")
    podman("cp", str(Path(kernel_module.__file__).parents[1]), f"{container}:/opt/host")
    found = f"cd /opt && python3 -c '{PROGRAM}' {kernel}"
    assert run(found) == "None"

    run(f"dkms install {name}/{version} -k {kernel} 2>&1")
    assert run(found) == version
    assert run(f"modinfo -k {kernel} --field vermagic nvidia").startswith(f"{kernel} SMP")
    assert run(f"modinfo -k {kernel} --field license nvidia") == "Dual MIT/GPL"
