"""How pieces get to the disk and to the digests."""

import errno
import fcntl
import os

import pytest

from rackllama.host.lander import landing, part_file
from rackllama.host.lander.buffers import Buffers
from rackllama.host.lander.grains import GRAIN_BYTES, Tiling
from rackllama.host.lander.landing import land
from rackllama.host.lander.landing_job import Placement
from rackllama.host.lander.part_file import PartFile
from rackllama.host.lander.schedule import Schedule

from .hub import Answer
from .model import FAST, MIB, make_model, seeded, sha256


@pytest.fixture
def part(tmp_path):
    descriptor = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 3 * GRAIN_BYTES)
    file = PartFile(descriptor)
    yield file
    file.close()
    os.close(descriptor)


def is_direct(descriptor):
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def full_buffer(seed=1):
    buffer = Buffers(workers=1, most_kept=0).take()
    buffer[:] = seeded(seed).randbytes(GRAIN_BYTES)
    return buffer


def bytes_at(part, offset):
    found = memoryview(bytearray(GRAIN_BYTES))
    part.read(found, offset)
    return found


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("offset", [0, GRAIN_BYTES, GRAIN_BYTES + 1])
def test_a_piece_is_read_as_it_was_written(part, offset, is_kept):
    buffer = full_buffer()
    part.write(buffer, offset, is_kept)
    assert bytes_at(part, offset) == buffer


@pytest.fixture
def direct_part(part):
    if part._direct is None:
        pytest.skip("the file system of the temporary files has no O_DIRECT")
    return part


def test_only_whole_grains_that_are_kept_pass_by_the_page_cache(direct_part, monkeypatch):
    written, write = [], part_file.write_fully

    def watched(descriptor, data, offset):
        written.append(is_direct(descriptor))
        write(descriptor, data, offset)

    monkeypatch.setattr(part_file, "write_fully", watched)
    buffer = full_buffer()
    direct_part.write(buffer, GRAIN_BYTES, True)
    direct_part.write(buffer[:512], 0, True)
    direct_part.write(buffer, 1, True)
    direct_part.write(buffer, GRAIN_BYTES, False)
    assert written == [True, False, False, False]


def test_a_file_system_that_refuses_direct_writes_is_written_through_the_cache(direct_part, monkeypatch):
    write, tried = part_file.write_fully, []

    def refuse(descriptor, data, offset):
        tried.append(is_direct(descriptor))
        if is_direct(descriptor):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        write(descriptor, data, offset)

    monkeypatch.setattr(part_file, "write_fully", refuse)
    buffer = full_buffer()
    direct_part.write(buffer, 0, True)
    direct_part.write(buffer, GRAIN_BYTES, True)
    assert bytes_at(direct_part, 0) == bytes_at(direct_part, GRAIN_BYTES) == buffer
    assert tried == [True, False, False]


@pytest.mark.parametrize("merged", [True, False])
def test_what_was_just_received_is_not_read_from_the_disk(hub, tmp_path, monkeypatch, merged):
    model = make_model(5 * MIB, 3 * MIB)
    hub.files = {f"/{name}": data for name, data in model.shards.items()}
    monkeypatch.setattr(PartFile, "read", None)
    assert land(model.job(tmp_path, hub.url, merged=merged), tmp_path / "state", FAST).sha256 == sha256(model.merged)


def test_all_that_was_handed_out_is_accounted_for_at_the_end(model, hub, mirror, tmp_path, monkeypatch):
    """A rejected shard and two faults leave nothing behind that would slow down what comes after them."""
    schedules = []

    def remembered(*arguments):
        schedules.append(Schedule(*arguments))
        return schedules[-1]

    monkeypatch.setattr(landing, "Schedule", remembered)
    corrupt = list(model.shards)[1]
    good = model.shards[corrupt]
    mirror.files[f"/{corrupt}"] = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    faults = [Answer(500), Answer(cut_after=100_000)]
    mirror.fault = lambda _: faults.pop() if faults else None
    land(model.job(tmp_path, mirror.url, hub.url), tmp_path / "state", FAST)
    (schedule,) = schedules
    assert (schedule._unhashed, schedule._unread, schedule._remaining) == (0, 0, 0)
    assert not any(shard.kept for shard in schedule.shards)


@pytest.mark.parametrize("destination", [0, 5, GRAIN_BYTES - 1, GRAIN_BYTES, 3 * GRAIN_BYTES + 7])
@pytest.mark.parametrize("length", [0, 1, GRAIN_BYTES, 2 * GRAIN_BYTES + 3])
def test_pieces_cover_a_shard_once_and_grains_end_at_multiples_of_their_size(destination, length):
    tiling = Tiling(1_000 + length + 7, Placement(1_000, length, destination))
    pieces = [tiling.piece(number) for number in range(tiling.count)]
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == tiling.size
    grains = [piece for piece in pieces if piece.destination is not None]
    assert len(grains) == tiling.grains
    for grain in grains:
        assert grain.destination == grain.start - 1_000 + destination
        assert grain.destination // GRAIN_BYTES == (grain.destination + grain.end - grain.start - 1) // GRAIN_BYTES
