"""Crashes, full disks and flipped bits: what was landed survives them, and wrong bytes never get the final name."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import landing, part_file
from rackllama.host.lander.grains import GRAIN_BYTES
from rackllama.host.lander.journal import GONE, HERE, RECORD_BYTES, Journal, Record, decode, encode, replay
from rackllama.host.lander.landing import land

from .hub import Answer
from .model import FAST, MIB, make_model, seeded, sha256

# One landing in a process of its own, from the pickled job and options in a file.
LANDER = (
    "import pickle, sys; from rackllama.host.lander.landing import land; land(*pickle.load(open(sys.argv[1], 'rb')))"
)


def unfinished(model, hub, tmp_path, leave=1):
    """Land all but the last shards of `model`; gives the job, ready to go on."""
    names = [f"/{name}" for name in list(model.shards)[-leave:]]
    hub.fault = lambda request: Answer(404) if request.path in names else None
    job = model.job(tmp_path, hub.url)
    with pytest.raises(RackllamaError, match="answered 404"):
        land(job, tmp_path / "state", replace(FAST, connections=1))
    hub.fault = lambda _: None
    hub.requests.clear()
    hub.bytes_sent = 0
    return job


def flip_bit(path, dice, start=0, end=None):
    data = bytearray(path.read_bytes())
    place = dice.randrange(start, end or len(data))
    data[place] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def stored(model, *names):
    """The bytes of these shards that are stored, and those that are fetched again by each run."""
    return sum(model.placements[name].length for name in names), sum(
        len(model.shards[name]) - model.placements[name].length for name in model.shards
    )


def test_after_a_failure_only_what_is_missing_is_fetched(model, hub, tmp_path):
    job = unfinished(model, hub, tmp_path)
    landed = land(job, tmp_path / "state", FAST)
    weights, margins = stored(model, list(model.shards)[-1])
    assert landed.bytes_fetched == hub.bytes_sent == weights + margins
    assert job.destination.read_bytes() == model.merged


@pytest.mark.parametrize("seed", range(10))
def test_a_bit_flipped_in_the_part_file_costs_one_grain(model, hub, tmp_path, seed):
    job = unfinished(model, hub, tmp_path)
    last = model.placements[list(model.shards)[-1]].destination_offset
    flip_bit(next(tmp_path.glob("*.part")), seeded(seed), end=last)
    assert land(job, tmp_path / "state", FAST).verified
    assert job.destination.read_bytes() == model.merged
    weights, margins = stored(model, list(model.shards)[-1])
    assert hub.bytes_sent <= weights + margins + GRAIN_BYTES


@pytest.mark.parametrize("seed", range(10))
def test_a_bit_flipped_in_the_journal_costs_one_grain(model, hub, tmp_path, seed):
    job = unfinished(model, hub, tmp_path)
    flip_bit(next((tmp_path / "state/tiny-1b").glob("*.journal")), seeded(seed))
    assert land(job, tmp_path / "state", FAST).verified
    assert job.destination.read_bytes() == model.merged
    weights, margins = stored(model, list(model.shards)[-1])
    assert hub.bytes_sent <= weights + margins + GRAIN_BYTES


@pytest.mark.parametrize("what", ["removed", "emptied", "zeroed"])
def test_a_part_file_that_is_not_the_journals_is_not_believed(model, hub, tmp_path, what):
    job = unfinished(model, hub, tmp_path)
    part = next(tmp_path.glob("*.part"))
    size = part.stat().st_size
    part.unlink()
    if what != "removed":
        part.write_bytes(bytes(size) if what == "zeroed" else b"")
    assert land(job, tmp_path / "state", FAST).verified
    assert job.destination.read_bytes() == model.merged


def test_dead_between_the_rename_and_the_end_it_is_landed(model, hub, tmp_path, monkeypatch):
    class PowerCut(BaseException):
        pass

    def cut(*_):
        raise PowerCut

    job = model.job(tmp_path, hub.url)
    with monkeypatch.context() as patched:
        patched.setattr(landing, "_remove_journal", cut)
        with pytest.raises(PowerCut):
            land(job, tmp_path / "state", FAST)
    asked = len(hub.requests)
    assert land(job, tmp_path / "state", FAST).sha256 == sha256(model.merged)
    assert len(hub.requests) == asked
    assert list((tmp_path / "state/tiny-1b").glob("*.journal")) == []


def test_a_journal_line_stands_only_for_what_is_durable(model, hub, tmp_path, monkeypatch):
    """Order of a batch: writes, then fdatasync of the part file, then the journal."""
    events, part_files = [], set()
    write, sync = part_file.write_fully, os.fdatasync

    def written(descriptor, data, offset):
        part_files.add(os.fstat(descriptor).st_ino)
        write(descriptor, data, offset)
        events.append(("written", offset))

    def synced(descriptor):
        sync(descriptor)
        events.append(("synced", os.fstat(descriptor).st_ino in part_files))

    def append(journal, records):
        events.extend(("journaled", record.grain) for record in records)
        return real_append(journal, records)

    real_append = Journal.append
    monkeypatch.setattr(part_file, "write_fully", written)
    monkeypatch.setattr(os, "fdatasync", synced)
    monkeypatch.setattr(Journal, "append", append)
    land(model.job(tmp_path, hub.url), tmp_path / "state", FAST)
    journaled = [index for index, event in enumerate(events) if event[0] == "journaled"]
    assert journaled
    for index in journaled:
        before = events[:index]
        batch = next(place for place in reversed(range(index)) if events[place][0] != "journaled")
        assert events[batch] == ("synced", True)
        assert sum(event[0] == "written" for event in before) >= sum(event[0] == "journaled" for event in before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_told_and_what_came_is_kept(model, hub, tmp_path, monkeypatch, number):
    room, write = [2], part_file.write_fully

    def write_while_there_is_room(descriptor, data, offset):
        if not room[0]:
            raise OSError(number, os.strerror(number))
        room[0] -= 1
        write(descriptor, data, offset)

    job = model.job(tmp_path, hub.url)
    with monkeypatch.context() as patched:
        patched.setattr(part_file, "write_fully", write_while_there_is_room)
        with pytest.raises(RackllamaError, match="is full") as failure:
            land(job, tmp_path / "state", replace(FAST, connections=1))
    assert "what came is kept" in failure.value.remedy
    assert not job.destination.exists()
    landed = land(job, tmp_path / "state", FAST)
    assert landed.bytes_fetched <= sum(map(len, model.shards.values())) - 2 * MIB + 1_000
    assert job.destination.read_bytes() == model.merged


def test_a_limit_of_file_sizes_is_told(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url)
    process = lander(job, tmp_path, FAST, "ulimit -f 1024;")
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "is full" in complaint


def test_a_dying_disk_is_told(model, hub, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    job = model.job(tmp_path, hub.url)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(RackllamaError, match="Input/output error"):
            land(job, tmp_path / "state", FAST)
    assert not job.destination.exists()


def lander(job, tmp_path, options, before=""):
    given = tmp_path / "given"
    given.write_bytes(pickle.dumps((job, tmp_path / "state", options)))
    command = f'{before} exec "{sys.executable}" -c "{LANDER}" {given}'
    source = str(Path(landing.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": source}
    return subprocess.Popen(["bash", "-c", command], env=environment, stderr=subprocess.PIPE, text=True)


def kill_at(process, reached):
    """Kill once `reached` holds; whether it still ran then."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not reached() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def land_with_kills(model, hub, tmp_path, kills, seed):
    """Kill a landing each time another random share of it was sent; gives the bytes fetched twice for each kill."""
    dice = seeded(seed)
    job = model.job(tmp_path, hub.url)
    whole = sum(map(len, model.shards.values()))
    shares = sorted(dice.random() for _ in range(kills))
    killed = 0
    for share in shares:
        wanted = hub.bytes_sent + whole // kills * share
        process = lander(job, tmp_path, FAST)
        killed += kill_at(process, lambda wanted=wanted: hub.bytes_sent >= wanted)
        assert killed == 0 or not job.destination.exists() or job.destination.read_bytes() == model.merged
    landed = land(job, tmp_path / "state", FAST)
    assert landed.sha256 == sha256(model.merged)
    assert job.destination.read_bytes() == model.merged
    assert killed
    return (hub.bytes_sent - whole) / killed


def test_killed_it_goes_on_where_it_was(hub, tmp_path):
    model = make_model(60 * MIB, 60 * MIB)
    hub.files = {f"/{name}": data for name, data in model.shards.items()}
    assert land_with_kills(model, hub, tmp_path, kills=3, seed=1) < 64 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_over_and_over_it_goes_on_where_it_was(hub, tmp_path, seed):
    model = make_model(100 * MIB, 200 * MIB, 100 * MIB, seed=seed)
    hub.files = {f"/{name}": data for name, data in model.shards.items()}
    assert land_with_kills(model, hub, tmp_path, kills=10, seed=seed) < 64 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("where", ["part", "journal"])
def test_any_flipped_bit_is_found(model, hub, tmp_path, seed, where):
    job = unfinished(model, hub, tmp_path)
    paths = {"part": tmp_path.glob("*.part"), "journal": (tmp_path / "state/tiny-1b").glob("*.journal")}
    flip_bit(next(paths[where]), seeded(seed))
    assert land(job, tmp_path / "state", FAST).verified
    assert job.destination.read_bytes() == model.merged
    weights, margins = stored(model, list(model.shards)[-1])
    assert hub.bytes_sent <= weights + margins + 8 * MIB


def test_a_record_survives_its_line():
    record = Record(HERE, 42, 0x9AE0DAAF)
    assert len(encode(record)) == RECORD_BYTES
    assert decode(encode(record)) == record


def test_no_flipped_bit_of_a_line_is_believed():
    line = encode(Record(HERE, 42, 0x9AE0DAAF))
    for place in range(8 * len(line)):
        damaged = bytearray(line)
        damaged[place // 8] ^= 1 << place % 8
        assert decode(bytes(damaged)) is None


def test_later_records_win():
    records = [Record(HERE, grain, 1) for grain in range(4)] + [Record(GONE, 1, 2), Record(HERE, 2, 7)]
    assert replay(b"".join(map(encode, records))) == {0: 1, 2: 7, 3: 1}


def test_a_torn_end_is_written_over(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(encode(Record(HERE, 1, 1)) + encode(Record(HERE, 2, 2))[:10])
    journal = Journal(path)
    assert journal.grains == {1: 1}
    journal.append([Record(HERE, 3, 3)])
    journal.close()
    assert replay(path.read_bytes()) == {1: 1, 3: 3}
