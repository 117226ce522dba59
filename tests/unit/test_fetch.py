"""A file arrives whole and checked, or not at all."""

import hashlib

import pytest

from rackllama.host import fetch as fetching
from rackllama.host.errors import RackllamaError
from rackllama.host.fetch import fetch

BODY = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch):
    monkeypatch.setattr(fetching.time, "sleep", lambda _: None)


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "downloads" / "file.bin"


def test_a_file_is_fetched_and_checked(mirror, destination):
    mirror.files["/file.bin"] = BODY
    fetch(f"{mirror.url}/file.bin", destination, SHA256, len(BODY))
    assert destination.read_bytes() == BODY
    assert list(destination.parent.iterdir()) == [destination]


def test_what_has_arrived_is_not_fetched_again(mirror, destination):
    mirror.files["/file.bin"] = BODY
    destination.parent.mkdir()
    destination.with_name("file.bin.part").write_bytes(BODY[:1000])
    fetch(f"{mirror.url}/file.bin", destination, SHA256, len(BODY))
    assert destination.read_bytes() == BODY
    assert mirror.requested_ranges == ["bytes=1000-"]


def test_a_connection_that_breaks_is_continued(mirror, destination):
    mirror.files["/file.bin"] = BODY
    mirror.cut_after = 100_000
    fetch(f"{mirror.url}/file.bin", destination, SHA256, len(BODY))
    assert destination.read_bytes() == BODY
    assert mirror.requested_ranges == [None, "bytes=100000-"]


def test_a_cut_answer_of_unknown_size_is_continued_too(mirror, destination):
    mirror.files["/file.bin"] = BODY
    mirror.cut_after = 100_000
    fetch(f"{mirror.url}/file.bin", destination, SHA256)
    assert destination.read_bytes() == BODY


def test_a_source_that_breaks_again_and_again_is_followed_as_long_as_it_gives_bytes(mirror, destination):
    mirror.files["/file.bin"] = BODY
    mirror.cut_after, mirror.cuts = 100_000, 12
    fetch(f"{mirror.url}/file.bin", destination, SHA256, len(BODY))
    assert len(mirror.requested_ranges) == 13


def test_a_file_shorter_than_locked_is_told(mirror, destination):
    mirror.files["/file.bin"] = BODY[:-1]
    with pytest.raises(RackllamaError, match=f"has {len(BODY) - 1} bytes, and {len(BODY)} are locked"):
        fetch(f"{mirror.url}/file.bin", destination, SHA256, len(BODY))


def test_a_source_without_ranges_is_started_over(mirror, destination):
    mirror.files["/file.bin"] = BODY
    mirror.serves_ranges = False
    destination.parent.mkdir()
    destination.with_name("file.bin.part").write_bytes(BODY[:1000])
    fetch(f"{mirror.url}/file.bin", destination, SHA256, len(BODY))
    assert destination.read_bytes() == BODY


def test_a_passing_fault_of_the_source_is_waited_out(mirror, destination):
    mirror.files["/file.bin"] = BODY
    mirror.statuses = [503, 429, 500]
    fetch(f"{mirror.url}/file.bin", destination, SHA256, len(BODY))
    assert destination.read_bytes() == BODY


def test_a_file_that_is_not_there_is_told_at_once(mirror, destination):
    with pytest.raises(RackllamaError, match="answered 404") as failure:
        fetch(f"{mirror.url}/file.bin", destination, SHA256)
    assert "lock" in failure.value.remedy
    assert len(mirror.requested_ranges) == 1


def test_wrong_bytes_are_refused_and_deleted(mirror, destination):
    mirror.files["/file.bin"] = BODY[:-1] + b"!"
    with pytest.raises(RackllamaError, match=f"but {SHA256} is locked"):
        fetch(f"{mirror.url}/file.bin", destination, SHA256, len(BODY))
    assert list(destination.parent.iterdir()) == []


def test_an_unreachable_mirror_names_the_settings_to_check(destination):
    with pytest.raises(RackllamaError, match="cannot be reached") as failure:
        fetch("http://127.0.0.1:9/file.bin", destination, SHA256)
    assert "rackllama_mirror" in failure.value.remedy


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(mirror, destination):
    with pytest.raises(RackllamaError, match="GiB are needed"):
        fetch(f"{mirror.url}/file.bin", destination, SHA256, size=1 << 60)
    assert mirror.requested_ranges == []
