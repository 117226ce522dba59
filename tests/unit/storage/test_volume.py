"""The files that mount the volume, the commands that make it, what the boot may do, and the checks of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.storage import checks, state, units, volume
from rackllama.host.storage.declaration import Directory, wanted_volume
from rackllama.host.storage.plan import Array, Content, Disk, Found, Member, Record, Signature

GIB = 1 << 30
GIVEN = {"disks": ["/dev/sdb"], "mount_dir": "/srv/models", "filesystem": "xfs", "label": "rackllama"}
WANTED = wanted_volume(GIVEN)
BLANK = Disk("/dev/sdb", "/dev/sdb", 100 * GIB, "S1")
OURS = replace(BLANK, content=Content((Signature("xfs", "rackllama"),), zeros=False))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"instance_store": True}, "storage_instance_store takes others"),
        ({"label": "thirteen-long"}, "cannot be the label"),
        ({"label": "a b"}, "cannot be the label"),
        ({"mount_dir": "/"}, "cannot be mounted at /"),
        ({"mount_dir": "/var/lib/"}, "cannot be mounted at /var/lib"),
        ({"mount_dir": "/srv/my models"}, "cannot be mounted"),
        ({"mount_dir": "srv"}, "cannot be mounted"),
        ({"filesystem": "btrfs"}, "no btrfs can be made"),
        ({"disks": ["sdb"]}, "sdb is no disk"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_looked_at(wrong, told):
    with pytest.raises(RackllamaError, match=told):
        wanted_volume({**GIVEN, **wrong})


def test_nothing_declared_is_nothing_to_do():
    change = volume.change(wanted_volume({**GIVEN, "disks": []}), "/usr/bin/python3")
    assert (bool(change), change.words) == (False, [])


def test_a_boot_that_is_still_at_the_volume_is_waited_for_and_not_for_ever(monkeypatch):
    states = iter(["activating", "active", "active"])
    monkeypatch.setattr(volume.time, "sleep", lambda _: None)
    monkeypatch.setattr(volume.systemd, "active_state", lambda _: next(states))
    volume._await_boot(WANTED)
    monkeypatch.setattr(volume, "BOOT_SECONDS", -1)
    monkeypatch.setattr(volume.systemd, "active_state", lambda _: "activating")
    with pytest.raises(RackllamaError, match="is still at work"):
        volume._await_boot(WANTED)


def test_a_declaration_is_the_same_after_it_was_written_down_but_for_what_may_go():
    wanted = wanted_volume({**GIVEN, "overwrite_serials": ["S1"], "read_ahead_kib": 128})
    assert wanted_volume(wanted.as_data()) == replace(wanted, overwrite=())


def test_folders_elsewhere_are_passed_over():
    folders = [
        {"path": path, "owner": "ollama"} for path in ("/srv/models/ollama", "/var/lib/ollama", "", "/srv/models")
    ]
    assert wanted_volume({**GIVEN, "directories": folders}).directories == (Directory("/srv/models/ollama", "ollama"),)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/models", "srv-models"),
        ("/dev/disk/by-label/rackllama", r"dev-disk-by\x2dlabel-rackllama"),
        ("/.hidden", r"\x2ehidden"),
        ("/a_b.c", "a_b.c"),
    ],
)
def test_names_of_units_are_written_as_systemd_does(path, name):
    assert units.escaped(path) == name


def test_a_lost_volume_stops_neither_the_boot_nor_waits_for_ever():
    files = {path.name: text for path, text in units.files(WANTED, "/usr/bin/python3").items()}
    assert "Options=noatime,nofail" in files["srv-models.mount"]
    assert "What=/dev/disk/by-label/rackllama" in files["srv-models.mount"]
    assert "After=rackllama-volume.service" in files["srv-models.mount"]
    assert "JobRunningTimeoutSec=120" in files["90-rackllama.conf"]
    assert files["90-rackllama-volume.rules"] is None


def test_readahead_is_set_for_the_file_system_of_our_label_alone():
    rules = units.files(replace(WANTED, read_ahead_kib=4096), "python3")[units.RULES]
    assert 'ENV{ID_FS_USAGE}=="filesystem", ENV{ID_FS_LABEL}=="rackllama", ATTR{queue/read_ahead_kb}="4096"' in rules


def test_file_systems_are_made_without_a_discard_and_without_force():
    assert volume.mkfs(WANTED, "/dev/sdb", is_array=False) == ["mkfs.xfs", "-q", "-K", "-L", "rackllama", "/dev/sdb"]
    assert volume.mkfs(WANTED, "/dev/md127", is_array=True)[-3:] == ["-l", "su=8b", "/dev/md127"]
    assert "nodiscard" in volume.mkfs(replace(WANTED, filesystem="ext4"), "/dev/sdb", is_array=False)


class Host:
    """Commands change what is found, as they would on a host; the rest is recorded."""

    def __init__(self, monkeypatch, tmp_path, wanted, *found):
        self.found, self.commands = list(found), []
        monkeypatch.setattr(state, "RECORD", tmp_path / "volume.json")
        monkeypatch.setattr(state, "look", lambda _: self.now)
        monkeypatch.setattr(volume, "declared", lambda: wanted)
        monkeypatch.setattr(volume, "_zero_head", lambda _: None)
        monkeypatch.setattr(volume.systemd, "run", self.run)
        monkeypatch.setattr(volume.shutil, "which", lambda program: program)

    @property
    def now(self):
        return replace(self.found[0], record=state.record())

    def run(self, *argv, **_):
        self.commands.append(argv[0])
        if argv[0] in ("mkfs.xfs", "mdadm") and len(self.found) > 1:
            self.found.pop(0)


REBUILT = replace(WANTED, rebuilt_at_boot=True)


def test_a_wiped_disk_is_made_anew_at_boot_where_that_is_declared(monkeypatch, tmp_path):
    host = Host(monkeypatch, tmp_path, REBUILT, Found((BLANK,)), Found((OURS,)))
    assert volume.make_ready(0) == ["make the xfs file system rackllama on /dev/sdb"]
    assert host.commands == ["mkfs.xfs", "mount", "umount"]
    assert state.record() == Record(finished=True, disks=(("S1", 100 * GIB),))


def test_nothing_is_wiped_where_the_program_to_go_on_with_is_missing(monkeypatch, tmp_path):
    host = Host(monkeypatch, tmp_path, REBUILT, Found((BLANK,)))
    monkeypatch.setattr(volume.shutil, "which", lambda _: None)
    with pytest.raises(RackllamaError, match=r"mkfs\.xfs is not installed"):
        volume.make_ready(0)
    assert (host.commands, state.record()) == ([], None)


def test_a_wiped_disk_stays_blank_where_it_is_not(monkeypatch, tmp_path):
    host = Host(monkeypatch, tmp_path, WANTED, Found((BLANK,)))
    with pytest.raises(RackllamaError, match="which read as blank"):
        volume.make_ready(0)
    assert host.commands == []


def test_data_is_never_overwritten_at_boot(monkeypatch, tmp_path):
    theirs = replace(BLANK, content=Content((Signature("ext4"),), zeros=False))
    host = Host(monkeypatch, tmp_path, REBUILT, Found((theirs,)))
    with pytest.raises(RackllamaError, match="holds ext4"):
        volume.make_ready(0)
    assert host.commands == []


def test_an_instance_store_with_a_disk_less_than_before_is_not_made_anew(monkeypatch, tmp_path):
    host = Host(monkeypatch, tmp_path, replace(REBUILT, disks=(), instance_store=True), Found((BLANK,)))
    volume._write_record(Found((BLANK, replace(BLANK, serial="S2"))), finished=True)
    with pytest.raises(RackllamaError, match="1 of the disks for models are missing"):
        volume.make_ready(0)
    assert host.commands == []


def test_an_array_is_assembled_at_boot_whether_or_not_it_may_be_made_anew(monkeypatch, tmp_path):
    raid = Content((Signature("linux_raid_member", "h:rackllama-raid0"),), zeros=False)
    disks = tuple(
        replace(BLANK, node=f"/dev/sd{x}", content=raid, member=Member("rackllama-raid0", "u", 2)) for x in "bc"
    )
    there = Found(disks, array=Array("/dev/md127", OURS.content))
    host = Host(monkeypatch, tmp_path, WANTED, Found(disks), there)
    assert volume.make_ready(0) == ["assemble rackllama-raid0"]
    assert host.commands == ["mdadm"]


def test_the_record_says_that_work_began_until_it_has_ended(monkeypatch, tmp_path):
    host = Host(monkeypatch, tmp_path, REBUILT, Found((BLANK,)))

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(volume.systemd, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        volume.make_ready(0)
    assert host.now.record == Record(finished=False, disks=(("S1", 100 * GIB),))


@pytest.fixture
def no_mounts(monkeypatch):
    monkeypatch.setattr(state, "mounted_at", lambda _: "")


def test_room_for_models_is_that_of_the_volume_to_be(monkeypatch, no_mounts):
    monkeypatch.setattr(state, "bytes_to_be", lambda _: 100 * GIB)
    declared = {"disks": ["/dev/sdb"], "mount_dir": "/srv/models"}
    fits, too_much = (checks.room_checks("/srv/models/ollama", size * GIB, declared)[0] for size in (100, 101))
    assert (fits.ok, too_much.ok) == (True, False)
    assert too_much.found == "a volume of 100.0 GiB, which is still to be made"


def test_swap_counts_where_it_lies(monkeypatch, no_mounts):
    monkeypatch.setattr(state, "bytes_to_be", lambda _: 100 * GIB)
    declared = {"disks": ["/dev/sdb"], "mount_dir": "/srv/models", "swap_gib": 50}
    together = checks.room_checks("/srv/models/ollama", 60 * GIB, {**declared, "swap_path": "/srv/models/swap"})
    apart = checks.room_checks("/srv/models/ollama", 60 * GIB, {**declared, "swap_path": "/var/swap"})
    assert [check.ok for check in together] == [False]
    assert [check.id for check in apart] == ["room at /srv/models/ollama", "room at /var"]


def test_without_a_volume_room_is_what_is_free(no_mounts, tmp_path):
    checked = checks.room_checks(str(tmp_path / "models"), 1, {"disks": [], "mount_dir": "/srv/models"})
    assert [check.ok for check in checked] == [True]


def test_the_volume_that_was_declared_is_checked(monkeypatch):
    monkeypatch.setattr(volume, "declared", lambda: WANTED)
    monkeypatch.setattr(state, "mounted_at", {"/": "8:1", "/srv/models": "8:16"}.get)
    for found, ok in (
        ({"kind": "xfs", "label": "rackllama", "size": GIB}, True),
        ({"kind": "ext4", "label": "rackllama", "size": GIB}, False),
        (None, False),
    ):
        monkeypatch.setattr(checks, "mounted", lambda _, found=found: found)
        assert checks.volume_checks()[0].ok is ok
    monkeypatch.setattr(volume, "declared", lambda: None)
    assert checks.volume_checks() == []


def test_the_root_disk_is_no_volume_for_models(monkeypatch):
    monkeypatch.setattr(volume, "declared", lambda: WANTED)
    monkeypatch.setattr(state, "mounted_at", lambda _: "8:1")
    monkeypatch.setattr(checks, "mounted", lambda _: {"kind": "xfs", "label": "rackllama", "size": GIB})
    check = checks.volume_checks()[0]
    assert (check.ok, check.found) == (False, "xfs rackllama of 1.0 GiB, the root disk")


def test_engines_wait_for_the_mount_of_their_models():
    roles = Path(__file__).parents[3] / "roles"
    for role, knob in (("ollama", "ollama_models_dir"), ("gguf_model", "gguf_model_store_dir")):
        text = (roles / role / "vars" / "main.yml").read_text("utf-8")
        assert f'RequiresMountsFor: "{{{{ {knob} }}}}"' in text
