"""Role `storage` on a real disk: a loop device of this machine, handed to a lab host of its own.

A lab host has no udev, so the test makes the one link that udev would make. There is no md in it either: what is seen
here is a volume of one disk. A loop device has no serial: its path stands for it.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rackllama.lab import hosts
from rackllama.lab.depot.progress import Progress
from rackllama.lab.machine import as_root, run
from rackllama.lab.podman import podman
from rackllama.lab.up import Stopwatch, changed_tasks, start_ansible, start_lab, stop_lab

LAB = "storagelab"
SIZE = 640 << 20
BLOCK = 1 << 20
EMPTY = bytes(BLOCK)
MODELS = "/srv/models/ollama"
UDEV = "mkdir -p /etc/tmpfiles.d && echo 'L /dev/disk/by-label/rackllama - - - - {node}' >/etc/tmpfiles.d/udev.conf"
FORGET = (
    "systemctl disable --now srv-models.mount rackllama-volume.service ollama.service; "
    "rm -rf /etc/rackllama/storage.json /var/lib/rackllama/storage /etc/systemd/system/srv-models.mount "
    "/etc/systemd/system/rackllama-volume.service /srv/models; systemctl daemon-reload; true"
)
AT_HEAD = "dd of={image} bs=1 conv=notrunc status=none"
TOOLS = "apt-get update -qq && apt-get install -y -qq --no-install-recommends xfsprogs"
PARTITIONED = (
    f"printf '\\0\\0\\0\\0\\203\\0\\0\\0\\0\\10\\0\\0\\0\\0\\20\\0\\0' | {AT_HEAD} seek=446; "
    f"printf '\\125\\252' | {AT_HEAD} seek=510"
)
DATA = {
    "ext4": "mkfs.ext4 -q -L theirs {image}",
    "partitions": PARTITIONED,
    "bytes at its head": "printf precious | dd of={image} bs=1 seek=4242 conv=notrunc status=none",
}
MORE_DATA = {
    "LVM": "printf 'LABELONE\\1\\0\\0\\0\\0\\0\\0\\0' | dd of={image} bs=512 seek=1 conv=notrunc status=none; "
    "printf 'LVM2 001' | dd of={image} bs=1 seek=536 conv=notrunc status=none",
    "LUKS": "printf 'LUKS\\272\\276\\0\\2' | dd of={image} conv=notrunc status=none",
    "bytes in its middle": "dd if=/dev/urandom of={image} bs=1M seek=300 count=8 conv=notrunc status=none",
    "bytes at its end": "printf precious | dd of={image} bs=1 seek=671088000 conv=notrunc status=none",
}


@dataclass(frozen=True)
class Said:
    """How a run of Ansible ended, and all it said."""

    code: int
    output: str

    @property
    def words(self) -> str:
        """What it said, in one line."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> dict[str, int]:
        """The number of changed tasks, by host."""
        return changed_tasks(self.output)


@dataclass(frozen=True)
class DiskHost:
    """A lab host, and the one disk it was given, with the file behind it."""

    lab: hosts.Lab
    node: str
    image: Path

    def play(self, *arguments: str, playbook: str = "playbooks/hosts.yml", **knobs: Any) -> Said:
        """Run a playbook with the disk declared, and these knobs."""
        declared = {"storage_disks": [self.node], "ollama_models_dir": MODELS, **knobs}
        return self.ansible("ansible-playbook", playbook, "-e", json.dumps(declared), *arguments)

    def module(self, *arguments: str, **options: Any) -> Said:
        """Run the module alone, as the role does."""
        options = {"disks": [self.node], **options}
        module = ("--become", "--module-name", "rackllama.llm.models_volume", "--args", json.dumps(options))
        return self.ansible("ansible", "all", *module, *arguments)

    def ansible(self, program: str, *arguments: str) -> Said:
        """Run a program of Ansible's to its end."""
        with start_ansible(LAB, program, *arguments) as running:
            output, _ = running.communicate()
        return Said(running.returncode, output)

    def run(self, command: str) -> str:
        """What a shell command of root says on the host. A failing command fails the test."""
        return podman("exec", self.lab.hosts[0].container, "sh", "-c", command).strip()

    def fill(self, command: str) -> None:
        """Put something on the disk, by a shell command of this machine."""
        run(as_root(["sh", "-c", command.format(image=self.image)]))
        self.reattach()

    def attach(self) -> None:
        """Put the disk in."""
        run(as_root(["losetup", self.node, str(self.image)]))

    def detach(self) -> None:
        """Pull the disk out."""
        run(as_root(["losetup", "--detach", self.node]))

    def reattach(self) -> None:
        """Let the kernel see what was written to the file behind it."""
        self.detach()
        self.attach()

    def blank(self) -> None:
        """What a stop and start of a rented machine does to its instance store."""
        run(as_root(["truncate", "--size=0", str(self.image)]))
        run(as_root(["truncate", f"--size={SIZE}", str(self.image)]))
        self.reattach()

    def digest(self) -> str:
        """The sha256 of all bytes on the disk that are not zero, by block, and of where they lie."""
        hasher = hashlib.sha256()
        with self.image.open("rb") as file:
            for number in range(SIZE // BLOCK):
                block = os.pread(file.fileno(), BLOCK, number * BLOCK)
                if block != EMPTY:
                    hasher.update(f"{number} ".encode() + block)
        return hasher.hexdigest()

    def shut_down(self) -> None:
        """Shut the host down."""
        podman("stop", "--time=60", self.lab.hosts[0].container)

    def boot(self) -> None:
        """Boot it, until it is reached again."""
        start_lab(LAB, 1, "bookworm", Stopwatch(Progress()), [self.node])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskHost]:
    """A lab host with a disk; both are gone at the end, whatever happened."""
    image = tmp_path_factory.mktemp("disk") / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    node = run(as_root(["losetup", "--find", "--show", str(image)])).strip()
    try:
        lab = start_lab(LAB, 1, "bookworm", Stopwatch(Progress()), [node])
        made = DiskHost(lab, node, image)
        made.run(TOOLS)
        yield made
    finally:
        stop_lab(LAB)
        run(as_root(["losetup", "--detach", node]))
        image.unlink()


@pytest.fixture
def fresh(host: DiskHost) -> DiskHost:
    """The host as if never converged, with a blank disk."""
    host.run(FORGET)
    host.run(f"{UDEV.format(node=host.node)} && systemd-tmpfiles --create /etc/tmpfiles.d/udev.conf")
    host.blank()
    return host


def test_a_blank_disk_becomes_the_volume_and_a_second_run_changes_nothing(fresh: DiskHost) -> None:
    planned = fresh.module("--check", "--diff")
    assert (planned.code, fresh.run("wipefs --no-act " + fresh.node)) == (0, ""), planned.output
    assert "+make the xfs file system rackllama on" in planned.output

    first = fresh.play(storage_read_ahead_kib=2048)
    second = fresh.play("--check", "--diff", storage_read_ahead_kib=2048)

    assert (first.code, second.code, second.changed) == (0, 0, {f"{LAB}1": 0}), first.output + second.output
    assert fresh.run("findmnt --noheadings --output SOURCE,FSTYPE /srv/models").split() == [fresh.node, "xfs"]
    assert "noatime" in fresh.run("findmnt --noheadings --output OPTIONS /srv/models")
    assert fresh.run("blockdev --getra " + fresh.node) == "4096"


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(data, id=name) for name, data in DATA.items()),
        *(pytest.param(data, id=name, marks=pytest.mark.slow) for name, data in MORE_DATA.items()),
    ],
)
def test_a_disk_that_holds_anything_is_refused_and_stays_as_it_is(fresh: DiskHost, data: str) -> None:
    fresh.fill(data)
    before = fresh.digest()

    refused = fresh.module()

    assert refused.code != 0
    assert f"lose it: storage_overwrite_serials: [{fresh.node}]" in refused.words
    assert fresh.digest() == before
    assert fresh.run("ls /etc/rackllama /var/lib/rackllama/storage 2>&1 | grep --count json || true") == "0"


def test_a_disk_with_data_is_taken_once_it_is_told_and_then_never_again(fresh: DiskHost) -> None:
    fresh.fill(PARTITIONED)

    other = fresh.module(overwrite_serials=["S64ANE0T"])
    taken = fresh.module(overwrite_serials=[fresh.node])
    fresh.run("touch /srv/models/kept")
    again = fresh.module(overwrite_serials=[fresh.node])

    assert (other.code != 0, taken.code, again.code) == (True, 0, 0), other.output + taken.output + again.output
    assert "changed: false" in again.output
    assert fresh.run("ls /srv/models") == "kept"


@pytest.mark.slow
def test_another_file_system_than_there_is_needs_the_disk_unmounted_and_told(fresh: DiskHost) -> None:
    made = fresh.module(filesystem="ext4")
    mounted = fresh.module(filesystem="xfs", overwrite_serials=[fresh.node])
    fresh.run("systemctl stop srv-models.mount")
    untold = fresh.module(filesystem="xfs")
    told = fresh.module(filesystem="xfs", overwrite_serials=[fresh.node])

    assert (made.code, told.code) == (0, 0), made.output + told.output
    assert "is in use: mounted at /srv/models" in mounted.words
    assert "holds ext4 'rackllama'" in untold.words
    assert fresh.run("findmnt --noheadings --output FSTYPE /srv/models") == "xfs"


@pytest.mark.slow
def test_what_is_mounted_elsewhere_or_would_be_hidden_is_told(fresh: DiskHost) -> None:
    fresh.run("mkdir -p /srv/models && touch /srv/models/theirs")
    hidden = fresh.module()
    fresh.run("rm -r /srv/models && mkdir -p /mnt/elsewhere && mkfs.ext4 -q " + fresh.node)
    fresh.run(f"mount {fresh.node} /mnt/elsewhere")
    elsewhere = fresh.module(overwrite_serials=[fresh.node])
    fresh.run("umount /mnt/elsewhere")

    assert "/srv/models holds files that the mount would hide" in hidden.words
    assert "is in use: mounted at /mnt/elsewhere" in elsewhere.words


@pytest.mark.slow
def test_a_run_that_was_killed_between_its_steps_is_gone_on_with(fresh: DiskHost) -> None:
    """Between wiping and making the file system, and between that and the mount."""
    fresh.fill("dd if=/dev/urandom of={image} bs=1M seek=100 count=64 conv=notrunc status=none")
    disk = {"identity": fresh.node, "size": SIZE}
    record = json.dumps({"finished": False, "disks": [disk]})
    fresh.run(f"mkdir -p /var/lib/rackllama/storage && echo '{record}' >/var/lib/rackllama/storage/volume.json")
    after_wipe = fresh.module()
    fresh.run("touch /srv/models/kept")
    fresh.run(FORGET)
    fresh.run(f"mkdir -p /var/lib/rackllama/storage && echo '{record}' >/var/lib/rackllama/storage/volume.json")
    after_mkfs = fresh.module()

    assert (after_wipe.code, after_mkfs.code) == (0, 0), after_wipe.output + after_mkfs.output
    assert fresh.run("ls /srv/models") == "kept"


@pytest.mark.slow
def test_a_wiped_instance_store_is_made_anew_at_boot_and_a_missing_one_stops_only_the_engine(fresh: DiskHost) -> None:
    """With the real engine: its folder is made again, and its model lands again by itself."""
    site = fresh.play(playbook="playbooks/site.yml", storage_rebuilt_at_boot=True, gguf_model_reserve_gib=0)
    verified = fresh.play(playbook="playbooks/verify.yml")
    fresh.shut_down()
    fresh.blank()
    fresh.boot()
    told = fresh.run("journalctl -b -u rackllama-volume --output cat")
    landed = _eventually(fresh, f"find {MODELS}/manifests", "library/gemma3")
    owner = fresh.run(f"stat --format '%U %a' {MODELS}")

    fresh.shut_down()
    fresh.detach()
    try:
        fresh.boot()
        states = fresh.run("systemctl is-active srv-models.mount ollama.service sshd.service || true").split()
        on_root = fresh.run("find /srv/models")
        broken = fresh.play(playbook="playbooks/verify.yml")
    finally:
        fresh.attach()

    assert (site.code, verified.code) == (0, 0), site.output + verified.output
    assert "volume at /srv/models" in verified.output
    assert "make the xfs file system rackllama" in told
    assert landed
    assert owner == "ollama 750"
    assert states == ["failed", "inactive", "active"]
    assert on_root == "/srv/models"
    assert "not mounted" in broken.words


@pytest.mark.slow
def test_blank_disks_stay_blank_at_boot_where_that_is_not_declared(fresh: DiskHost) -> None:
    assert fresh.module().code == 0
    fresh.shut_down()
    fresh.blank()
    fresh.boot()

    assert fresh.run("systemctl is-active srv-models.mount || true") == "failed"
    assert "set storage_rebuilt_at_boot" in fresh.run("journalctl -b -u rackllama-volume --output cat")
    assert fresh.run("wipefs --no-act " + fresh.node) == ""


def _eventually(host: DiskHost, command: str, wanted: str, seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while wanted not in host.run(command):
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True
