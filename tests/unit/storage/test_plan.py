"""What is done to disks so that they hold the volume for models, and above all what is not done to them."""

from dataclasses import replace

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.storage.declaration import WantedVolume
from rackllama.host.storage.plan import (
    Array,
    Child,
    Content,
    Disk,
    Found,
    Member,
    Record,
    Signature,
    plan,
    target_node,
)

GIB = 1 << 30
OURS = Content((Signature("xfs", "rackllama"),), zeros=False)
EXT4 = Content((Signature("ext4", "theirs"),), zeros=False)
UNKNOWN = Content(zeros=False)
HALF_MADE = Content((Signature("xfs", "rackllama"),), zeros=False, unfinished=True)
IN_ARRAY = Content((Signature("linux_raid_member", "gpu1:rackllama-raid0"),), zeros=False)
MEMBER = Member("rackllama-raid0", "aa:bb", 2)
MD = "/dev/md127"
ONE = WantedVolume(disks=("/dev/disk/by-id/nvme-1",))
TWO = WantedVolume(disks=("/dev/disk/by-id/nvme-1", "/dev/disk/by-id/nvme-2"))


def disk(number=1, content=Content(), **more):  # noqa: B008 - frozen
    return Disk(f"/dev/disk/by-id/nvme-{number}", f"/dev/nvme{number}n1", 100 * GIB, f"S{number}", content, **more)


def member(number=1, *, active=True, **more):
    children = (Child(MD, "raid0", more.pop("mounts", ())),) if active else ()
    return disk(number, IN_ARRAY, **{"member": MEMBER, "children": children, "busy": active, **more})


def found(*disks, **more):
    return Found(disks, **more)


def interrupted(*disks):
    return Record(finished=False, disks=tuple((each.identity, each.size) for each in disks))


def finished(*disks):
    return replace(interrupted(*disks), finished=True)


def actions(wanted, there):
    return [(step.action, step.nodes) for step in plan(wanted, there)]


def refusal(wanted, there):
    with pytest.raises(RackllamaError) as refused:
        plan(wanted, there)
    return refused.value


class TestOneDisk:
    def test_a_blank_disk_gets_a_file_system_and_is_mounted(self):
        steps = plan(ONE, found(disk()))
        assert [step.words for step in steps] == [
            "make the xfs file system rackllama on /dev/nvme1n1",
            "mount it at /srv/models by its label rackllama",
        ]

    def test_one_that_is_made_is_only_mounted_whoever_made_it(self):
        assert actions(ONE, found(disk(content=OURS))) == [("mount", ("/dev/nvme1n1",))]

    def test_one_that_is_mounted_is_left_alone(self):
        there = found(disk(content=OURS, mounts=("/srv/models",), busy=True), mounted="/dev/nvme1n1")
        assert plan(ONE, there) == []
        assert target_node(there) == "/dev/nvme1n1"

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (EXT4, "holds ext4 'theirs'"),
            (UNKNOWN, "holds data that no tool here knows"),
            (HALF_MADE, "holds xfs 'rackllama'"),
            (Content((Signature("dos"), Signature("ext4")), zeros=False), "holds dos, ext4"),
            (IN_ARRAY, "holds linux_raid_member"),
        ],
    )
    def test_data_is_refused_with_the_serial_to_tell(self, content, told):
        error = refusal(ONE, found(disk(content=content)))
        assert f"/dev/disk/by-id/nvme-1 (100.0 GiB, serial S1) {told}" in error.message
        assert error.remedy.endswith("or lose it: storage_overwrite_serials: [S1]")

    def test_partitions_are_data_also_where_nothing_is_in_them(self):
        parts = (Child("/dev/nvme1n1p1", "part"),)
        there = disk(content=Content((Signature("gpt"),)), children=parts)
        assert "holds partitions (/dev/nvme1n1p1)" in refusal(ONE, found(there)).message

    def test_a_volume_group_is_to_be_removed_first(self):
        there = disk(content=Content((Signature("LVM2_member"),), zeros=False))
        assert "remove its volume group (vgremove)" in refusal(ONE, found(there)).remedy

    @pytest.mark.parametrize("content", [EXT4, UNKNOWN, HALF_MADE, IN_ARRAY])
    def test_data_goes_where_the_serial_is_told(self, content):
        wanted = replace(ONE, overwrite=("S1",))
        node = ("/dev/nvme1n1",)
        expected = [("wipe", node), ("format", node), ("mount", node)]
        assert actions(wanted, found(disk(content=content))) == expected

    def test_a_serial_tells_of_its_own_disk_alone(self):
        wanted = replace(ONE, overwrite=("S2", "/dev/disk/by-id/nvme-1", ""))
        assert "holds ext4" in refusal(wanted, found(disk(content=EXT4))).message

    def test_a_disk_without_a_serial_is_told_by_its_declared_path(self):
        nameless = replace(disk(content=EXT4), serial="")
        assert refusal(ONE, found(nameless)).remedy.endswith("[/dev/disk/by-id/nvme-1]")
        assert actions(replace(ONE, overwrite=("/dev/disk/by-id/nvme-1",)), found(nameless))[0][0] == "wipe"

    def test_what_was_made_is_not_made_again_because_its_serial_is_still_told(self):
        assert actions(replace(ONE, overwrite=("S1",)), found(disk(content=OURS))) == [("mount", ("/dev/nvme1n1",))]

    @pytest.mark.parametrize(
        ("there", "told"),
        [
            (disk(content=EXT4, mounts=("/data",), busy=True), "in use: mounted at /data"),
            (disk(children=(Child("/dev/nvme1n1p1", "part", ("/",)),), busy=True), "/dev/nvme1n1p1 is mounted at /"),
            (disk(children=(Child("/dev/mapper/a", "crypt"),), busy=True), "it is part of /dev/mapper/a (crypt)"),
            (disk(children=(Child("/dev/md0", "raid1"),), busy=True), "it is part of /dev/md0 (raid1)"),
            (disk(busy=True), "another program or another namespace holds it"),
        ],
    )
    def test_a_disk_in_use_is_never_touched_not_even_by_its_serial(self, there, told):
        assert told in refusal(replace(ONE, overwrite=("S1",)), found(there)).message

    def test_an_image_that_took_the_instance_store_is_told_how_to_give_it_back(self):
        volume = Child("/dev/mapper/vg.01-lv_ephemeral", "lvm", ("/opt/dlami/nvme",))
        error = refusal(ONE, found(disk(children=(volume,), busy=True)))
        assert "systemctl disable --now dlami-nvme.service" in error.remedy

    def test_another_file_system_or_label_than_wanted_is_refused(self):
        there = found(disk(content=OURS))
        assert "holds xfs 'rackllama'" in refusal(replace(ONE, filesystem="ext4"), there).message
        assert "holds xfs 'rackllama'" in refusal(replace(ONE, label="models"), there).message


class TestInterrupted:
    @pytest.mark.parametrize("content", [UNKNOWN, HALF_MADE])
    def test_what_our_killed_run_left_is_made_again(self, content):
        there = found(disk(content=content), record=interrupted(disk()))
        assert [step.action for step in plan(ONE, there)] == ["wipe", "format", "mount"]

    def test_what_it_had_finished_is_kept(self):
        there = found(disk(content=OURS), record=interrupted(disk()))
        assert [step.action for step in plan(ONE, there)] == ["mount"]

    @pytest.mark.parametrize("content", [EXT4, Content((Signature("xfs", "theirs"),), zeros=False)])
    def test_what_somebody_made_there_since_is_refused(self, content):
        assert "holds" in refusal(ONE, found(disk(content=content), record=interrupted(disk()))).message

    @pytest.mark.parametrize(
        "record", [None, finished(disk()), interrupted(disk(2)), interrupted(replace(disk(), size=GIB))]
    )
    def test_only_the_same_disk_of_a_run_that_did_not_end_is_known_again(self, record):
        assert "data that no tool here knows" in refusal(ONE, found(disk(content=UNKNOWN), record=record)).message

    def test_members_without_their_array_are_made_again(self):
        disks = member(1, active=False), disk(2, UNKNOWN)
        there = found(*disks, record=interrupted(*disks))
        assert [step.action for step in plan(TWO, there)] == ["wipe", "wipe", "create", "format", "mount"]

    def test_an_array_without_its_file_system_gets_one(self):
        disks = member(1), member(2)
        there = found(*disks, array=Array(MD, UNKNOWN), record=interrupted(*disks))
        assert actions(TWO, there) == [("format", (MD,)), ("mount", (MD,))]

    def test_half_a_file_system_on_an_array_is_wiped_first(self):
        disks = member(1), member(2)
        there = found(*disks, array=Array(MD, HALF_MADE), record=interrupted(*disks))
        assert actions(TWO, there)[:2] == [("wipe", (MD,)), ("format", (MD,))]


class TestRaid0:
    def test_blank_disks_become_one(self):
        steps = plan(TWO, found(disk(1), disk(2)))
        assert [step.words for step in steps] == [
            "make the RAID 0 rackllama-raid0 of /dev/disk/by-id/nvme-1, /dev/disk/by-id/nvme-2",
            "make the xfs file system rackllama on rackllama-raid0",
            "mount it at /srv/models by its label rackllama",
        ]

    def test_one_that_is_there_is_left_alone_under_whatever_node(self):
        there = found(member(1), member(2), array=Array(MD, OURS, ("/srv/models",)), mounted=MD)
        assert plan(TWO, there) == []

    def test_members_that_nobody_assembled_are_assembled_and_then_looked_at(self):
        there = found(member(1, active=False), member(2, active=False))
        assert actions(TWO, there) == [("assemble", ("", "/dev/nvme1n1", "/dev/nvme2n1"))]

    def test_an_inactive_array_is_stopped_and_assembled(self):
        there = found(member(1), member(2), array=Array(MD, active=False))
        assert actions(TWO, there)[0] == ("assemble", (MD, "/dev/nvme1n1", "/dev/nvme2n1"))

    def test_a_blank_array_of_ours_gets_its_file_system(self):
        there = found(member(1), member(2), array=Array(MD))
        assert actions(TWO, there) == [("format", (MD,)), ("mount", (MD,))]

    def test_data_on_an_array_of_our_name_is_refused(self):
        there = found(member(1), member(2), array=Array(MD, EXT4))
        assert "holds linux_raid_member" in refusal(TWO, there).message

    def test_it_is_made_anew_where_all_serials_are_told(self):
        there = found(member(1), member(2), array=Array(MD, EXT4))
        expected = ["stop", "wipe", "wipe", "create", "format", "mount"]
        assert [step.action for step in plan(replace(TWO, overwrite=("S1", "S2")), there)] == expected

    def test_it_is_never_stopped_while_it_is_mounted(self):
        array = Array(MD, EXT4, mounts=("/srv/models",))
        there = found(member(1, mounts=("/srv/models",)), member(2, mounts=("/srv/models",)), array=array, mounted=MD)
        assert f"{MD} is mounted at /srv/models" in refusal(replace(TWO, overwrite=("S1", "S2")), there).message

    def test_a_lost_member_is_told_and_nothing_is_made(self):
        error = refusal(TWO, found(member(1, active=False), disk(2)))
        assert "1 of the 2 members of the RAID 0 rackllama-raid0, /dev/disk/by-id/nvme-2 is none" in error.message
        assert "a RAID 0 is lost without one" in error.remedy
        assert error.remedy.endswith("storage_overwrite_serials: [S1]")

    def test_another_number_of_disks_than_it_was_made_of_is_refused(self):
        three = replace(TWO, disks=(*TWO.disks, "/dev/disk/by-id/nvme-3"))
        there = found(member(1), member(2), disk(3), array=Array(MD, OURS))
        assert "2 of the 2 members" in refusal(three, there).message
        fewer = found(replace(member(1, active=False), member=replace(MEMBER, devices=3)), member(2, active=False))
        assert "of the 3 members" in refusal(TWO, fewer).message

    def test_all_that_is_in_the_way_is_told_at_once_and_nothing_is_half_done(self):
        message = refusal(replace(TWO, overwrite=("S1",)), found(disk(1, EXT4), disk(2, UNKNOWN))).message
        both = refusal(TWO, found(disk(1, EXT4), disk(2, UNKNOWN))).message
        assert "nvme-1" not in message
        assert "nvme-2" in message
        assert both.count("holds") == 2

    def test_an_array_of_another_name_is_not_ours(self):
        foreign = replace(member(1, active=False), member=replace(MEMBER, name="data"))
        assert "holds linux_raid_member" in refusal(TWO, found(foreign, disk(2))).message


class TestMount:
    def test_what_is_mounted_elsewhere_is_told(self):
        there = found(disk(content=OURS, mounts=("/data",), busy=True))
        assert "mounted at /data" in refusal(ONE, there).message

    def test_what_is_mounted_there_is_told(self):
        assert "/dev/sdb1 is mounted at /srv/models" in refusal(ONE, found(disk(), mounted="/dev/sdb1")).message

    def test_files_that_the_mount_would_hide_are_told(self):
        assert "holds files that the mount would hide" in refusal(ONE, found(disk(), hidden=True)).message

    def test_two_devices_of_one_label_are_told(self):
        assert "/dev/sdc carries the label" in refusal(ONE, found(disk(content=OURS), namesakes=("/dev/sdc",))).message
