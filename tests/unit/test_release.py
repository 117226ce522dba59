"""Versions stand beside each other; `current` moves only to a whole one."""

import gzip
import hashlib
import io
import os
import tarfile

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.services.release import (
    InstalledReleases,
    Step,
    WantedRelease,
    carry_out,
    installed_releases,
    plan,
    tree_digest,
)


def archive_of(files, links=None, kind=tarfile.REGTYPE):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.type = len(text), 0o755, kind
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


def chain_of_links_that_leads_outside():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, target in (("a/b/l1", "../.."), ("a/b/c/l2", "../l1/.."), ("a/b/c/d/l3", "../../l1/../..")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("a/b/c/d/l3/evil"), io.BytesIO())
    return buffer.getvalue()


@pytest.fixture
def offer(mirror, tmp_path):
    """Publish an archive as a version of `tool`, and give the release that is wanted then."""

    def publish(version, archive, strip=0):
        mirror.files[f"/tool-{version}.tar.gz"] = archive
        return WantedRelease(
            name="tool",
            version=version,
            url=f"{mirror.url}/tool-{version}.tar.gz",
            sha256=hashlib.sha256(archive).hexdigest(),
            size=len(archive),
            strip=strip,
            root=tmp_path,
        )

    return publish


def install(wanted):
    installed = installed_releases(wanted.home)
    carry_out(wanted, installed, plan(wanted, installed))


def test_a_first_release_is_unpacked_and_activated(offer):
    wanted = offer("1.0", archive_of({"bin/tool": "one"}, links={"bin/t": "tool"}))
    assert plan(wanted, InstalledReleases({})) == [Step("unpack", "1.0"), Step("activate", "1.0")]
    install(wanted)
    assert (wanted.home / "current/bin/t").read_text() == "one"
    assert plan(wanted, installed_releases(wanted.home)) == []
    assert not (wanted.home / ".fetch").exists()


def test_a_release_can_be_put_beside_the_current_one(offer):
    install(offer("1.0", archive_of({"tool": "one"})))
    new = offer("2.0", archive_of({"tool": "two"}))
    installed = installed_releases(new.home)
    carry_out(new, installed, plan(new, installed, activate=False))
    assert installed_releases(new.home).current == "1.0"
    assert plan(new, installed_releases(new.home)) == [Step("activate", "2.0")]


def test_leading_folders_are_stripped(offer):
    wanted = offer("1.0", archive_of({"tool-1.0/bin/tool": "one"}), strip=1)
    install(wanted)
    assert (wanted.home / "1.0/bin/tool").read_text() == "one"


def test_an_upgrade_keeps_the_version_before_it_and_prunes_older_ones(offer):
    for version in ("1.0", "1.1", "2.0"):
        wanted = offer(version, archive_of({"tool": version}))
        install(wanted)
    assert installed_releases(wanted.home).current == "2.0"
    assert installed_releases(wanted.home).previous == "1.1"
    assert sorted(installed_releases(wanted.home).versions) == ["1.1", "2.0"]


def test_a_rollback_needs_no_download(offer, mirror):
    old, new = offer("1.0", archive_of({"tool": "1"})), offer("2.0", archive_of({"tool": "2"}))
    install(old)
    install(new)
    mirror.files.clear()
    assert plan(old, installed_releases(old.home)) == [Step("activate", "1.0")]
    install(old)
    assert (old.home / "current/tool").read_text() == "1"
    assert installed_releases(old.home).previous == "2.0"


def test_a_damaged_version_is_installed_again(offer):
    wanted = offer("1.0", archive_of({"tool": "one", "lib": "two"}))
    install(wanted)
    (wanted.home / "1.0/lib").unlink()
    assert plan(wanted, installed_releases(wanted.home)) == [Step("unpack", "1.0")]
    install(wanted)
    assert (wanted.home / "current/lib").read_text() == "two"


def test_another_archive_of_the_same_version_replaces_it(offer):
    install(offer("1.0", archive_of({"tool": "one"})))
    rebuilt = offer("1.0", archive_of({"tool": "rebuilt"}))
    install(rebuilt)
    assert (rebuilt.home / "current/tool").read_text() == "rebuilt"


@pytest.mark.parametrize(
    ("archive", "complaint"),
    [
        (archive_of({"../outside": "x"}), "outside its own folder"),
        (archive_of({"/etc/outside": "x"}), "outside its own folder"),
        (archive_of({}, links={"link": "/etc/passwd"}), "outside its own folder"),
        (archive_of({}, links={"bin/link": "../../outside"}), "outside its own folder"),
        (chain_of_links_that_leads_outside(), "outside its own folder"),
        (archive_of({"device": ""}, kind=tarfile.CHRTYPE), "no plain file"),
        (gzip.compress(b"no tar at all" * 100), "not a whole tar archive"),
        (archive_of({"tool": "one" * 10_000})[:-40], "not a whole tar archive"),
    ],
)
def test_a_bad_archive_changes_nothing(offer, archive, complaint):
    install(offer("1.0", archive_of({"tool": "one"})))
    bad = offer("2.0", archive)
    with pytest.raises(RackllamaError, match=complaint):
        install(bad)
    assert (bad.home / "current/tool").read_text() == "one"
    assert sorted(installed_releases(bad.home).versions) == ["1.0"]
    assert not (bad.home / "2.0").exists()
    assert not list((bad.home / ".fetch").iterdir())


def test_a_tree_is_told_by_the_names_and_sizes_in_it_whatever_the_names(tmp_path):
    (tmp_path / os.fsdecode(b"not utf-8: \xff")).write_text("one")
    before = tree_digest(tmp_path)
    assert tree_digest(tmp_path) == before
    (tmp_path / "more").touch()
    assert tree_digest(tmp_path) != before
