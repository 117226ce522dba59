"""What the machine that runs a lab must have: Debian's or Ubuntu's packages, root or sudo, memory and disk."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from rackllama.host.errors import RackllamaError

LAB_PACKAGES = (
    "ca-certificates",
    "debian-archive-keyring",
    "iproute2",
    "iptables",
    "mmdebstrap",
    "netavark",
    "nftables",
    "openssh-client",
    "podman",
)
MEMORY_PER_HOST_GIB = 2
DISK_PER_HOST_GIB = 4
LOCK_TIMEOUT_SECONDS = 600


def say(text: str) -> None:
    """Show one line of progress; on stderr, so that stdout stays for results."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def as_root(argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` as root: itself for root, behind `sudo -n` for everybody else.

    sudo resets the environment: what the command needs of it goes in by `env NAME=value`.
    Raises RackllamaError for a user who is neither root nor may use sudo without a password.
    """
    return [*_sudo(), *argv]


def run(argv: Sequence[str], *, stdin: str | None = None, what: str = "") -> str:
    """Run a command and return its stdout. Raises RackllamaError with the end of its stderr where it fails.

    `what` says in the error what was being done; the command's own name where it is empty.
    """
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        said = last_lines(done.stderr) or last_lines(done.stdout) or "it said nothing"
        raise RackllamaError(
            f"{what or argv[0]} failed with exit status {done.returncode}: {said}", f"see what `{' '.join(argv)}` says"
        )
    return done.stdout


def last_lines(output: str, count: int = 3) -> str:
    """The end of a program's output, where it says why it failed, in one line."""
    return " / ".join(line.strip() for line in output.strip().splitlines()[-count:])


def ensure_packages(names: Sequence[str]) -> None:
    """Install those of these Debian packages that are missing, waiting for dpkg's lock where somebody else holds it.

    Raises RackllamaError on a machine that is not Debian-like, for a user who cannot become root, and where apt fails.
    """
    require_debian(platform.freedesktop_os_release())
    missing = missing_packages(names, _installed_packages(names))
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    if _apt_install(missing).returncode == 0:
        return
    # An interrupted dpkg, package lists that were never fetched, lists too old: what a fresh start repairs.
    subprocess.run(_apt("dpkg", "--configure", "-a"), capture_output=True, check=False)
    refresh_package_lists()
    done = _apt_install(missing)
    if done.returncode:
        raise RackllamaError(
            f"apt could not install {' '.join(missing)}: {last_lines(done.stderr)}",
            f"make `apt-get install {' '.join(missing)}` work on this machine",
        )


def refresh_package_lists() -> None:
    """`apt-get update`, again for as long as somebody else holds the lock of the lists."""
    say("refreshing apt's package lists")
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        done = subprocess.run(_apt("apt-get", "-q", "update"), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if "Could not get lock" not in done.stderr or time.monotonic() > deadline:
            raise RackllamaError(
                f"`apt-get update` failed: {last_lines(done.stderr)}", "make `apt-get update` work on this machine"
            )
        time.sleep(1)  # apt cannot wait for this lock, unlike dpkg's


def require_debian(os_release: Mapping[str, str]) -> None:
    """Raise RackllamaError where `os_release` (the content of /etc/os-release) is no Debian and none of its kin."""
    kin = {os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()}
    if "debian" not in kin:
        name = os_release.get("PRETTY_NAME") or os_release.get("ID") or "an unknown system"
        raise RackllamaError(
            f"a lab needs Debian or Ubuntu, and this is {name}",
            "use a Debian machine or virtual machine for the lab; hosts in the inventory may be anything supported",
        )


def missing_packages(names: Iterable[str], installed: Iterable[str]) -> list[str]:
    """Those of `names` that are not installed, sorted."""
    return sorted(set(names) - set(installed))


def require_room(hosts: int, meminfo: str, disk_free_bytes: int) -> None:
    """Raise RackllamaError where memory or disk do not suffice for so many new hosts.

    `meminfo` is the content of /proc/meminfo, `disk_free_bytes` what is free where podman keeps containers.
    """
    memory_gib = memory_available_gib(meminfo)
    if memory_gib < hosts * MEMORY_PER_HOST_GIB:
        raise RackllamaError(
            f"{memory_gib:.1f} GiB of memory are free, and {_new_hosts(hosts)} {hosts * MEMORY_PER_HOST_GIB} GiB",
            "end something, or ask for fewer hosts with --hosts",
        )
    disk_gib = disk_free_bytes / 2**30
    if disk_gib < hosts * DISK_PER_HOST_GIB:
        raise RackllamaError(
            f"{disk_gib:.1f} GiB of disk are free for containers, and {_new_hosts(hosts)} "
            f"{hosts * DISK_PER_HOST_GIB} GiB",
            "make room where podman keeps its containers (`podman info` names it graphRoot)",
        )


def memory_available_gib(meminfo: str) -> float:
    """`MemAvailable` of /proc/meminfo, in GiB."""
    kib = next(line.split()[1] for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    return int(kib) / 2**20


def check_room(hosts: int, where: Path) -> None:
    """`require_room` for this machine, with containers kept in the folder `where`."""
    if hosts:
        free = run(as_root(["df", "--output=avail", "--block-size=1", str(where)])).split()[-1]
        require_room(hosts, Path("/proc/meminfo").read_text(encoding="ascii"), int(free))


def _new_hosts(hosts: int) -> str:
    return "a new host needs" if hosts == 1 else f"{hosts} new hosts need"


@cache
def _sudo() -> tuple[str, ...]:
    if os.geteuid() == 0:
        return ()
    sudo = ("sudo", "-n")
    if not shutil.which("sudo") or subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode:
        raise RackllamaError(
            "this needs root, and you are neither root nor allowed to use sudo without a password",
            "run it as root, or run `sudo -v` first, or allow yourself passwordless sudo",
        )
    return sudo


def _apt(*argv: str) -> list[str]:
    return as_root(["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", *argv])


def _apt_install(names: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    wait = f"DPkg::Lock::Timeout={LOCK_TIMEOUT_SECONDS}"
    argv = _apt("apt-get", "-q", "-y", "-o", wait, "install", "--no-install-recommends", "--", *names)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def _installed_packages(names: Sequence[str]) -> list[str]:
    """Those of `names` that dpkg has installed and configured. dpkg-query exits 1 where it knows nothing of one."""
    argv = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", "--", *names]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")]
