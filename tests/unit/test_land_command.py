"""`rackllama land`: what a user names, the file that comes of it, and what is told where none can."""

import hashlib
import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackllama.cli import main
from rackllama.host.lander import gguf
from rackllama.host.lander.progress import Progress, progress_text
from rackllama.host.lander.shards import slug_for
from rackllama.landing.amounts import byte_count
from rackllama.landing.cli import ProgressLine
from rackllama.mirror.lock import Artefact, LockedFile, write_lock

from .land_command import BEFORE_SPLIT, FIRST, SHARDS, landed, merged, refused, state
from .landing.hub import Answer, Hub, first, serve

__all__ = ["state"]  # a fixture

UPSTREAM = "https://hub.example/tiny/resolve/main"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Serves the shards, and as a mirror what lies upstream."""
    paths = ("/tiny", f"/{UPSTREAM.removeprefix('https://')}")
    hub = Hub({f"{path}/{name}": data for path in paths for name, data in SHARDS.items()})
    server = serve(hub)
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the shards."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, data in SHARDS.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Knows the shards' published digests."""
    files = tuple(
        LockedFile(f"{UPSTREAM}/{name}", len(data), hashlib.sha256(data).hexdigest()) for name, data in SHARDS.items()
    )
    unlocked = (LockedFile(f"{UPSTREAM}/other.gguf"),)
    tool = (LockedFile(f"{UPSTREAM}/tool.tar.gz", 1, "a" * 64),)
    path = tmp_path / "artefacts.lock"
    artefacts = {"tiny-q4-k-m": files, "other-q8": unlocked, "tool": tool}
    write_lock(path, {name: Artefact(name, "main", "MIT", "test", files) for name, files in artefacts.items()})
    return path


def test_from_a_folder(folder, tmp_path, capsys):
    out = tmp_path / "tiny.gguf"
    result = landed(capsys, folder / FIRST, "--out", out)
    assert out.read_bytes() == merged()
    assert result["sha256"] == hashlib.sha256(merged()).hexdigest()
    assert (result["file"], result["size"], result["verified"]) == (str(out), len(merged()), False)
    assert result["bytes_written"] < 1.01 * len(merged())


def test_relative_paths(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    landed(capsys, FIRST, "--out", "../tiny.gguf")
    assert (tmp_path / "tiny.gguf").read_bytes() == merged()


def test_as_it_was_before_it_was_split(folder, tmp_path, capsys):
    out = tmp_path / "tiny.gguf"
    landed(capsys, folder / FIRST, "--out", out, "--drop-split-keys")
    assert out.read_bytes() == merged(drop_split_keys=True)
    assert gguf.from_file(out).find("split.count") is None


def test_a_single_file_stays_as_it_is(folder, tmp_path, capsys):
    (folder / "whole.gguf").write_bytes(BEFORE_SPLIT.file)
    landed(capsys, folder / "whole.gguf", "--out", tmp_path / "copy.gguf")
    assert (tmp_path / "copy.gguf").read_bytes() == BEFORE_SPLIT.file


@pytest.mark.parametrize("serves_ranges", [True, False], ids=["ranges", "whole files only"])
def test_over_http(hub, tmp_path, capsys, serves_ranges):
    hub.serves_ranges = serves_ranges
    out = tmp_path / "tiny.gguf"
    assert not landed(capsys, f"{hub.url}/tiny/{FIRST}", "--out", out)["verified"]
    assert out.read_bytes() == merged()


@pytest.mark.parametrize("answer", [Answer(503), Answer(cut_after=100)], ids=["503", "cut"])
def test_a_passing_fault_before_the_headers_are_read(hub, tmp_path, capsys, answer):
    hub.fault = first(1, answer)
    landed(capsys, f"{hub.url}/tiny/{FIRST}", "--out", tmp_path / "tiny.gguf")
    assert (tmp_path / "tiny.gguf").read_bytes() == merged()


@pytest.mark.parametrize("name", ["tiny-q4-k-m", "tiny:q4_k_m"])
def test_from_the_lock_through_a_mirror(hub, lock, tmp_path, capsys, name):
    out = tmp_path / "tiny.gguf"
    assert landed(capsys, name, "--out", out, "--lock", lock, "--mirror", hub.url)["verified"]
    assert out.read_bytes() == merged()


def test_upstream_has_what_the_mirror_lacks(hub, lock, tmp_path, capsys):
    lock.write_text(lock.read_text().replace(UPSTREAM, f"{hub.url}/tiny"))
    out = tmp_path / "tiny.gguf"
    assert landed(capsys, "tiny:q4_k_m", "--out", out, "--lock", lock, "--mirror", f"{hub.url}/nothing")["verified"]
    assert out.read_bytes() == merged()


def test_words_say_whether_it_is_verified(hub, lock, folder, tmp_path, capsys):
    assert main(["land", "tiny:q4_k_m", "--out", f"{tmp_path}/a", "--lock", str(lock), "--mirror", hub.url]) == 0
    assert "(verified)" in capsys.readouterr().out
    assert main(["land", str(folder / FIRST), "--out", f"{tmp_path}/b"]) == 0
    assert "(unverified" in capsys.readouterr().out


def test_a_second_time_nothing_is_fetched(folder, tmp_path, capsys):
    once, twice = (landed(capsys, folder / FIRST, "--out", tmp_path / "tiny.gguf") for _ in range(2))
    assert once["sha256"] == twice["sha256"]
    assert twice["bytes_fetched"] == twice["bytes_written"] == 0


def test_a_damaged_shard_is_refused(hub, lock, tmp_path, capsys):
    path = f"/{UPSTREAM.removeprefix('https://')}/tiny-00004-of-00004.gguf"
    damaged = bytearray(hub.files[path])
    damaged[-1000] ^= 1
    hub.files[path] = bytes(damaged)
    # Upstream is not asked: the mirror is all that this lock knows.
    lock.write_text(lock.read_text().replace(UPSTREAM, f"{hub.url}{path.rpartition('/')[0]}"))
    told = refused(capsys, "tiny:q4_k_m", "--out", tmp_path / "tiny.gguf", "--lock", lock)
    assert "tiny-00004-of-00004.gguf has not the published sha256" in told
    assert not (tmp_path / "tiny.gguf").exists()


def test_a_damaged_header_at_the_mirror_is_found_and_read_from_upstream(hub, lock, tmp_path, capsys):
    lock.write_text(lock.read_text().replace(UPSTREAM, f"{hub.url}/tiny"))
    host = hub.url.removeprefix("http://")
    hub.files[f"/liar/{host}/tiny/{FIRST}"] = SHARDS[FIRST].replace(b"full-width", b"half-width")
    out = tmp_path / "tiny.gguf"
    result = landed(capsys, "tiny:q4_k_m", "--out", out, "--lock", lock, "--mirror", f"{hub.url}/liar")
    assert out.read_bytes() == merged()
    assert result["sha256"] == hashlib.sha256(merged()).hexdigest()


def test_a_damaged_header_and_no_other_source_is_told(hub, lock, tmp_path, capsys):
    lock.write_text(lock.read_text().replace(UPSTREAM, f"{hub.url}/tiny"))
    hub.files[f"/tiny/{FIRST}"] = SHARDS[FIRST].replace(b"full-width", b"half-width")
    told = refused(capsys, "tiny:q4_k_m", "--out", tmp_path / "tiny.gguf", "--lock", lock)
    assert "has not the published sha256" in told
    assert not (tmp_path / "tiny.gguf").exists()


def test_stopped_and_gone_on_with(hub, state, tmp_path, capsys):
    arguments = ["land", f"{hub.url}/tiny/{FIRST}", "--out", str(tmp_path / "tiny.gguf")]
    over, signals = threading.Event(), iter([signal.SIGINT])

    def stop_when_it_lands(_):
        if (state / slug_for(tmp_path / "tiny.gguf") / "lock").exists():
            for number in signals:
                os.kill(os.getpid(), number)
            over.wait(60)

    hub.fault = stop_when_it_lands
    assert main(arguments) == 130
    over.set()
    assert "give the same command again" in capsys.readouterr().err
    assert not (tmp_path / "tiny.gguf").exists()
    hub.fault = lambda _: None
    assert main(arguments) == 0
    assert (tmp_path / "tiny.gguf").read_bytes() == merged()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("unheard:of", "nothing named 'unheard-of' stands in the lock"),
        ("tool", "choose one of: other-q8, tiny-q4-k-m"),
        ("other-q8", "run: rackllama lock other-q8"),
    ],
)
def test_a_name_that_cannot_be_landed(lock, tmp_path, capsys, name, wanted):
    assert wanted in refused(capsys, name, "--out", tmp_path / "x.gguf", "--lock", lock)


def test_a_missing_shard(folder, hub, tmp_path, capsys):
    missing = "tiny-00003-of-00004.gguf"
    (folder / missing).unlink()
    del hub.files[f"/tiny/{missing}"]
    told = refused(capsys, folder / FIRST, "--out", tmp_path / "tiny.gguf")
    assert f"{missing}: No such file" in told
    told = refused(capsys, f"{hub.url}/tiny/{FIRST}", "--out", tmp_path / "tiny.gguf")
    assert f"{missing} answered 404" in told


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"<html>", "this is no GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"", "the file ends"),
    ],
    ids=["page", "pointer", "empty"],
)
def test_no_gguf(folder, tmp_path, capsys, content, wanted):
    (folder / FIRST).write_bytes(content)
    assert wanted in refused(capsys, folder / FIRST, "--out", tmp_path / "tiny.gguf")


def test_no_such_number(folder, tmp_path, capsys):
    told = refused(capsys, folder / "tiny-00005-of-00004.gguf", "--out", tmp_path / "tiny.gguf")
    assert "there is no shard 00005 of 00004" in told


def test_files_of_one_name_in_two_folders_are_two_landings():
    one, other = Path("/a/Tiny (Q4).gguf"), Path("/b/Tiny (Q4).gguf")
    assert slug_for(one) != slug_for(other)
    assert slug_for(one).startswith("tiny-q4-.gguf-")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line():
    stream = Terminal()
    line = ProgressLine(stream, "tiny.gguf")
    for here in (0, 50):
        line(Progress("fetching", here << 20, 100 << 20, 5 << 20, 10.0))
    line.close()
    last = stream.getvalue().split("\r\033[K")[-1]
    assert last == "tiny.gguf [############............]  50%  50 of 100 MiB  5.0 MiB/s  0:00:10 left  fetching\n"
    assert stream.getvalue().count("\n") == 1


def test_progress_elsewhere_is_a_line_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rackllama.landing.cli.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    line, progress = ProgressLine(stream, "tiny.gguf"), Progress("fetching", 0, 100)
    for seconds in (1, 18, 2, 19, 2):
        now[0] += seconds
        line(progress)
    line.close()
    assert stream.getvalue() == 2 * f"{progress_text(progress, 'tiny.gguf')}\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("500000", 500_000),
        ("200M", 200_000_000),
        ("200mb", 200_000_000),
        ("1.5 k", 1_500),
        ("20GiB", 20 << 30),
        ("20Gi", 20 << 30),
        ("2T", 2 * 10**12),
    ],
)
def test_amounts_of_bytes(text, count):
    assert byte_count(text) == count


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--reserve", "-1"), "'-1' is no amount of bytes"),
        (("--reserve", "20X"), "'20X' is no amount of bytes: write 500000, 200M, 20G or 20GiB"),
        (("--rate-limit", "1i"), "'1i' is no amount of bytes"),
        (("--rate-limit", "٣"), "'٣' is no amount of bytes"),
        (("--connections", "0"), "'0' is no number from 1 on"),
        (("--connections", "many"), "'many' is no number from 1 on"),
    ],
)
def test_options_that_make_no_sense(tmp_path, capsys, option, told):
    with pytest.raises(SystemExit) as left:
        main(["land", "x.gguf", "--out", f"{tmp_path}/x.gguf", *option])
    assert left.value.code == 2
    assert told in capsys.readouterr().err


def test_more_is_to_stay_free_than_there_is(folder, tmp_path, capsys):
    told = refused(capsys, folder / FIRST, "--out", tmp_path / "tiny.gguf", "--reserve", "900T")
    assert f"{900e12 / 2**30:.2f} of them to stay free" in told


def test_a_rate_limit_holds(folder, tmp_path, capsys):
    size = len(merged())
    result = landed(capsys, folder / FIRST, "--out", tmp_path / "tiny.gguf", "--rate-limit", str(size))
    assert result["seconds"] > 0.9


def test_as_many_connections_as_are_allowed(hub, tmp_path, capsys):
    landed(capsys, f"{hub.url}/tiny/{FIRST}", "--out", tmp_path / "tiny.gguf", "--connections", "1")
    assert len({request.connection for request in hub.requests}) == 2  # one for the headers before


def test_help_names_what_can_be_given(capsys):
    with pytest.raises(SystemExit):
        main(["land", "--help"])
    told = capsys.readouterr().out
    assert all(kind in told for kind in ("hf:OWNER/REPO", "ms:", "ollama:NAME:TAG", "s3://BUCKET/KEY"))
