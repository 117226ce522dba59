"""What tools print about disks, and which bytes are looked at before a disk is called blank."""

import json
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.storage import state
from rackllama.host.storage.declaration import WantedVolume
from rackllama.host.storage.plan import Child, Member, Signature

GIB = 1 << 30
RECORDED = Path(__file__).parent / "recorded"


def device(path, kind="disk", *, size=GIB, model=None, children=(), **more):
    found = {"path": path, "type": kind, "size": size, "model": model, "serial": None, "label": None}
    return {**found, "mountpoint": None, **more, **({"children": list(children)} if children else {})}


def blocks(*devices):
    return state.parse_lsblk(json.dumps({"blockdevices": devices}))


@pytest.mark.parametrize(
    ("model", "wiped"),
    [
        ("Amazon EC2 NVMe Instance Storage", True),
        ("Amazon Elastic Block Store", False),
        ("nvme_card", True),
        ("nvme_card0", True),
        ("nvme_card-pd", False),
        ("Microsoft NVMe Direct Disk", True),
        ("Microsoft NVMe Direct Disk v2", True),
        ("MSFT NVMe Accelerator v1.0", False),
        ("Samsung SSD 990 PRO 4TB", False),
    ],
)
def test_an_instance_store_is_known_by_its_model(model, wiped):
    assert state.is_instance_store(blocks(device("/dev/nvme1n1", model=model))[0]) is wiped


def test_all_of_the_instance_store_is_taken_and_nothing_else():
    there = blocks(
        device("/dev/nvme0n1", model="Amazon Elastic Block Store"),
        device("/dev/nvme1n1", model="Amazon EC2 NVMe Instance Storage"),
        device("/dev/nvme2n1", model="Amazon EC2 NVMe Instance Storage"),
    )
    chosen = state.chosen_blocks(WantedVolume(instance_store=True), there)
    assert [path for path, _ in chosen] == ["/dev/nvme1n1", "/dev/nvme2n1"]
    with pytest.raises(RackllamaError, match="no NVMe instance store"):
        state.chosen_blocks(WantedVolume(instance_store=True), there[:1])


def test_a_disk_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RackllamaError, match="is not there"):
        state.chosen_blocks(WantedVolume(disks=(str(tmp_path / "nvme-gone"),)), [])
    with pytest.raises(RackllamaError, match="/dev/null is not there"):
        state.chosen_blocks(WantedVolume(disks=("/dev/null",)), [])


def test_signatures_are_told_once_a_kind():
    said = {
        "signatures": [
            {"device": "sdb", "offset": "0x200", "type": "gpt", "uuid": None, "label": None},
            {"device": "sdb", "offset": "0x1fffffe00", "type": "gpt", "uuid": None, "label": None},
            {"device": "sdb", "offset": "0x1fe", "type": "PMBR", "uuid": None, "label": None},
        ]
    }
    assert state.parse_wipefs(json.dumps(said)) == (Signature("gpt"), Signature("PMBR"))
    assert state.parse_wipefs("") == ()


def test_a_member_tells_the_name_of_its_array_after_that_of_its_host():
    found = state.parse_examine((RECORDED / "raid0-examine.txt").read_text("utf-8"))
    assert found == Member("rackllama-raid0", "2fc8b860:4fabb829:c89da579:e602286f", 2)
    assert state.parse_examine("") is None
    signatures = state.parse_wipefs((RECORDED / "raid0-wipefs.json").read_text("utf-8"))
    assert signatures == (Signature("linux_raid_member", "gpu1:rackllama-raid0"),)


def test_an_array_is_seen_on_each_of_its_members():
    there = state.parse_lsblk((RECORDED / "raid0-lsblk.json").read_text("utf-8"))
    members = [block for block in there if block.children]
    assert [(block.path, block.serial) for block in members] == [("/dev/nvme0n1", "S1"), ("/dev/nvme1n1", "S2")]
    array = Child("/dev/md127", "raid0", ("/srv/models",))
    assert [list(state._children(block)) for block in members] == [[array], [array]]


def test_what_is_in_partitions_and_on_top_of_them_is_seen():
    crypt = device("/dev/mapper/c", "crypt", mountpoint="/secret")
    part = device("/dev/sdb1", "part", children=[crypt])
    top = blocks(device("/dev/sdb", children=[part, device("/dev/sdb2", "part", mountpoint="[SWAP]")]))[0]
    assert top.mounts == ("/secret", "[SWAP]")
    assert [block.path for block in top.everything] == ["/dev/sdb", "/dev/sdb1", "/dev/mapper/c", "/dev/sdb2"]
    assert list(state._children(top)) == [
        Child("/dev/mapper/c", "crypt", ("/secret",)),
        Child("/dev/sdb1", "part"),
        Child("/dev/sdb2", "part", ("[SWAP]",)),
    ]


def test_lsblk_is_asked_for_a_tree():
    """Without NAME among the columns it tells of no children."""
    assert state.LSBLK[-1].split(",")[0] == "NAME"


@pytest.mark.parametrize("size", [4096, 16 << 20, 17 << 20, 20 << 20, GIB, 4000 * GIB])
def test_head_and_end_are_always_looked_at_and_never_beyond(size):
    looked = list(state.pieces(size))
    assert looked[0][0] == 0
    assert max(offset + length for offset, length in looked) == size
    assert sum(length for _, length in looked) <= 40 << 20


@pytest.mark.parametrize("offset", [0, 4242, (16 << 20) - 1, (64 << 20) - 1, (24 << 20) + 100])
def test_one_byte_is_enough_not_to_be_blank(tmp_path, offset):
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    assert state.reads_as_zeros(image)
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(b"x" * (1 << 20))
    assert not state.reads_as_zeros(image)


def test_the_mount_on_top_is_the_one_that_is_told(tmp_path):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "22 1 259:1 / / rw - ext4 /dev/root rw\n"
        "30 22 259:2 / /srv/models rw - xfs /dev/a rw\n31 30 9:127 / /srv/models rw - xfs /dev/md127 rw\n"
    )
    assert state.mounted_at("/srv/models", mountinfo) == "9:127"
    assert state.mounted_at("/srv", mountinfo) == ""
