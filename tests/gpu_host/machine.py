"""A lab host that plays a GPU server: its PCI bus, kernels, loaded modules and boots; everything else of it is real.

See on_host/ for the stand-ins, each with its limits. What a test did to the host is undone by `restore`.
"""

import hashlib
import json
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from rackllama.lab import hosts
from rackllama.lab.machine import as_root, run
from rackllama.lab.podman import podman
from rackllama.paths import cache_dir

LAB = "gpus"
SUITE = "bookworm"
BARE = "bare"
MADE_FROM = "/opt/stand-in/made-from"
ON_HOST = Path(__file__).with_name("on_host")
RECORDED = Path(__file__).parents[1] / "unit" / "hardware" / "recorded"
# What a server of Debian 12 has, and what makes the archive. The headers are not among them: they go with the kernel.
PACKAGES = (
    *("apt-utils", "dpkg-dev", "gnupg", "systemd-journal-remote", "unattended-upgrades"),
    *("dkms", "gcc", "make", "pciutils"),
)
DIVERTED = {
    "/sbin/modprobe": "modprobe.py",
    "/sbin/rmmod": "modprobe.py",
    "/usr/bin/systemd-detect-virt": "systemd-detect-virt.sh",
}
H100_BUSES = ("53", "64", "75", "86", "97", "a8", "b9", "ca")
SWITCH_BUSES = ("05", "06", "07", "08")


@dataclass(frozen=True)
class Scenario:
    """A machine: devices of the PCI bus by their addresses, and what a real nvidia-smi told of such a one.

    `lost` are GPUs that the driver could not initialize, `fallen` those that fell off the bus later; `told` is what
    nvidia-smi tells otherwise of a GPU, by address and path in its report. `kernels` are those beside the running one.
    """

    recording: str = ""
    gpus: tuple[dict[str, str], ...] = ()
    switches: tuple[dict[str, str], ...] = ()
    nouveau: bool = False
    kernels: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    fallen: tuple[str, ...] = ()
    told: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def recorded_gpus(recording: str) -> tuple[dict[str, str], ...]:
    """The GPUs of a recording, as they are on the PCI bus; the second half of several is on another NUMA node."""
    log = ElementTree.parse(RECORDED / recording)  # noqa: S314 - a file of ours
    found = [(gpu.get("id") or "", gpu.findtext("pci/pci_device_id") or "") for gpu in log.findall("gpu")]
    return tuple(
        {
            "address": address[4:].lower(),
            "device": f"0x{device[:4].lower()}",
            "numa_node": str(2 * number // max(len(found), 2)),
        }
        for number, (address, device) in enumerate(found)
    )


H100_X8 = Scenario(
    "h100-x8-nvswitch.xml",
    recorded_gpus("h100-x8-nvswitch.xml"),
    tuple({"address": f"0000:{bus}:00.0", "device": "0x22a3", "numa_node": "-1"} for bus in SWITCH_BUSES),
)
L40S = Scenario("l40s.xml", recorded_gpus("l40s.xml"))
NO_GPU = Scenario()


@dataclass(frozen=True)
class GpuHost:
    """The played host, running."""

    lab: hosts.Lab

    @property
    def host(self) -> hosts.Host:
        """The one host of its lab."""
        return self.lab.hosts[0]

    def run(self, command: str) -> str:
        """What a shell command of root says. A failing command fails the test."""
        code, said = self.attempt(command)
        assert code == 0, f"{command}: {said}"
        return said

    def attempt(self, command: str) -> tuple[int, str]:
        """The exit code of a shell command of root, and what it says."""
        with hosts.ssh_client(self.lab, self.host) as client:
            _, stdout, _ = client.exec_command(f"sudo sh -c {shlex.quote(f'exec 2>&1; {command}')}")
            said = stdout.read().decode().strip()
            return stdout.channel.recv_exit_status(), said

    @property
    def kernel(self) -> str:
        """The release of the running kernel, which is the real machine's."""
        return self.run("uname -r")

    @property
    def newer_kernel(self) -> str:
        """A release that boot loaders put before the running one."""
        return f"{int(self.kernel.partition('.')[0]) + 1}.1.0-9-amd64"

    def play(self, scenario: Scenario) -> None:
        """Be this machine from now on, also after a boot. What is loaded stays so."""
        self.run(
            f"cat >/opt/stand-in/scenario.json <<'EOF'\n{json.dumps(vars(scenario), default=dict)}\nEOF\n"
            "python3 /opt/stand-in/machine.py show"
        )

    def kernel_says(self, message: str) -> None:
        """Have a line of the kernel in the journal of this boot, by the journal's own tool for other hosts' lines."""
        entry = "\\n".join(
            (
                *("__REALTIME_TIMESTAMP=$(date +%s%6N)", "__MONOTONIC_TIMESTAMP=1", "_TRANSPORT=kernel", "PRIORITY=3"),
                *("_BOOT_ID=$(tr -d - </proc/sys/kernel/random/boot_id)", "_MACHINE_ID=$(cat /etc/machine-id)"),
                *("SYSLOG_IDENTIFIER=kernel", f"MESSAGE={message}", "", ""),
            )
        )
        journal = "/var/log/journal/$(cat /etc/machine-id)/stand-in-kernel@$(date +%s%N).journal"
        self.run(f'printf "%b" "{entry}" | /lib/systemd/systemd-journal-remote --output={journal} -')

    def installed(self, *patterns: str) -> dict[str, str]:
        """Versions of the installed packages of these patterns."""
        query = "dpkg-query --show --showformat '${db:Status-Abbrev}|${Package}|${Version}\\n' "
        _, said = self.attempt(query + shlex.join(patterns))
        rows = [line.split("|") for line in said.splitlines() if line.startswith(("ii ", "hi "))]
        return {name: version for _, name, version in rows}

    def module_version(self, kernel: str) -> str | None:
        """The version of the driver's module that a kernel would load; None where it has none."""
        code, said = self.attempt(f"modinfo -k {kernel} --field version nvidia")
        return said if code == 0 else None

    def loaded_version(self) -> str | None:
        """The version of the driver that is loaded; None where none is."""
        code, said = self.attempt("cat /sys/module/nvidia/version")
        return said if code == 0 else None

    def boot_id(self) -> str:
        """What changes with each boot."""
        return self.run("cat /proc/sys/kernel/random/boot_id")

    def reboot(self) -> None:
        """Shut down and boot, until it is reached again."""
        self.shut_down()
        start()

    def cut_power(self) -> None:
        """End it at once. What was written stays so, also what no disk would have by then."""
        podman("kill", "--signal=KILL", self.host.container)

    def has_file(self, path: str) -> bool:
        """Whether a file is there, asked past SSH."""
        found = podman("exec", self.host.container, "sh", "-c", f"test -e {path} && echo there || true")
        return bool(found.strip())

    def shut_down(self) -> None:
        """Shut down, and stay so."""
        podman("stop", "--time=60", self.host.container)

    @contextmanager
    def reboots(self) -> Iterator[list[str]]:
        """While this lasts, start the host again when it has shut down, and note each time: a container stays down."""
        seen: list[str] = []
        ended, failed = threading.Event(), []

        def watch() -> None:
            while not ended.wait(0.3):
                if self.state() == "exited":
                    seen.append(self.host.name)
                    try:
                        start()
                    except Exception as error:  # noqa: BLE001 - told where the test can see it
                        failed.append(error)
                        return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield seen
        finally:
            ended.set()
            watcher.join(timeout=180)
        assert not failed, failed
        assert not watcher.is_alive()

    def state(self) -> str:
        """Podman's word for how it is."""
        return podman("inspect", "--format={{.State.Status}}", self.host.container).strip()

    def save(self, name: str) -> None:
        """Keep all files of the host as they are, to come back to; it is rebooted by that."""
        self.shut_down()
        _copy(self._files(), _saved(name))
        start()

    def restore(self, name: str) -> None:
        """Have all files of the host as they were saved, and boot it with them."""
        self.shut_down()
        _copy(_saved(name), self._files())
        start()

    def _files(self) -> Path:
        """Where podman has what differs from the image."""
        template = "--format={{.GraphDriver.Data.UpperDir}}"
        return Path(podman("inspect", template, self.host.container).strip())


def ready_host() -> GpuHost:
    """The played host, made and saved as BARE: without a driver and without GPUs. One that was kept is as it is."""
    host = start()
    if host.attempt(f"cat {MADE_FROM}") == (0, _digest()) and _saved(BARE).exists():
        return host
    stop()
    host = start()
    set_up(host)
    host.save(BARE)
    return host


def start() -> GpuHost:
    """The host of this lab, booted; a plain one where it was not there."""
    return GpuHost(hosts.start(LAB, 1, SUITE))


def stop() -> None:
    """Remove the lab, and what was saved of its host."""
    hosts.stop(LAB)
    run(as_root(["rm", "-rf", "--one-file-system", str(_saved(""))]))


def set_up(host: GpuHost) -> None:
    """Make a lab host one that plays a GPU server; it plays one without GPUs at first."""
    _send(host, ON_HOST, "/opt/stand-in")
    _send(host, RECORDED, "/opt/stand-in/recorded")
    host.run("apt-get -qq update")
    host.run(f"DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends {' '.join(PACKAGES)}")
    host.run("apt-get clean")
    for place, stand_in in DIVERTED.items():
        host.run(f"dpkg-divert --quiet --local --rename --divert {place}.real --add {place}")
        host.run(f"ln -s /opt/stand-in/{stand_in} {place}")
    host.run("ln -s /opt/stand-in/update-initramfs.sh /usr/sbin/update-initramfs")
    host.run("chmod -R a+rX /opt/stand-in; chmod a+x /opt/stand-in/*.py /opt/stand-in/*.sh")
    host.run("mkdir -p /srv/stand-in-archive")
    host.run("cp /opt/stand-in/units/*.service /etc/systemd/system/ && systemctl daemon-reload")
    # Played in a boot, and not before: a host that boots with GPUs finds them as udev does.
    scenario = json.dumps(vars(NO_GPU), default=dict)
    host.run(f"cat >/opt/stand-in/scenario.json <<'EOF'\n{scenario}\nEOF")
    host.run("systemctl -q enable stand-in-gpu-machine.service stand-in-archive.service")
    host.run(f"printf %s {_digest()} >{MADE_FROM}")


def _digest() -> str:
    """What changes when the host would be made otherwise."""
    files = [Path(__file__), *(path for path in sorted(ON_HOST.rglob("*")) if path.is_file())]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _send(host: GpuHost, folder: Path, target: str) -> None:
    podman("exec", host.host.container, "mkdir", "-p", target)
    podman("cp", f"{folder}/.", f"{host.host.container}:{target}")


def _saved(name: str) -> Path:
    return cache_dir() / "lab" / "saved" / LAB / name


def _copy(source: Path, target: Path) -> None:
    """Make the target the same as the source; only while nothing uses either."""
    run(as_root(["rm", "-rf", "--one-file-system", str(target)]))
    run(as_root(["mkdir", "-p", str(target.parent)]))
    run(as_root(["cp", "--archive", str(source), str(target)]))
