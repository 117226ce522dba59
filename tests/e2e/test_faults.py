"""What goes wrong at a site, on purpose: told clearly, nothing half-installed, what runs untouched, repaired by a run.

Each fault meets a converge that has something to install: the lock names the same Ollama by another version.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rackllama.lab.depot.depot import default_depot
from rackllama.lab.hosts import network_gateway
from rackllama.mirror.lock import Artefact, read_lock, write_lock

OTHER_VERSION = "0.33.0-other"
ENGINES = ("--tags", "preflight,engines")  # the phases that the faults are of


@dataclass(frozen=True)
class Bench:
    """What a fault is made with: the site, and a folder of the test's own."""

    site: Any
    folder: Path

    @property
    def ollama(self) -> Artefact:
        """Ollama as the site's lock has it."""
        return read_lock(self.site.lock)["ollama"]

    @property
    def archive(self) -> bytes:
        """The archive of Ollama, as the site's mirror has it."""
        return (default_depot().mirror_root / self.ollama.file_for("x86_64").mirror_path).read_bytes()

    def lock(self, **changes: Any) -> str:
        """A copy of the site's lock with another version of Ollama, of whose file something is changed."""
        path = self.folder / "artefacts.lock"
        files = tuple(replace(file, **changes) for file in self.ollama.files)
        other = replace(self.ollama, version=OTHER_VERSION, files=files)
        write_lock(path, {**read_lock(self.site.lock), "ollama": other})
        return str(path)

    @contextmanager
    def mirror(self, archive: bytes) -> Iterator[str]:
        """The address of a mirror that has `archive` in the place of Ollama's."""
        path = self.folder / "mirror" / self.ollama.file_for("x86_64").mirror_path
        path.parent.mkdir(parents=True)
        path.write_bytes(archive)
        with ThreadingHTTPServer((network_gateway(), 0), partial(Quiet, directory=self.folder / "mirror")) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://{server.server_address[0]!s}:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()

    @contextmanager
    def small_disk(self, path: str, size: str) -> Iterator[None]:
        """A disk of that size, where the host has `path`."""
        self.site.run(f"mkdir -p {path} && mount -t tmpfs -o size={size} tmpfs {path}")
        try:
            yield
        finally:
            self.site.run(f"umount {path}")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and tells nobody."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass


Variables = dict[str, Any]


@contextmanager
def damaged_copy_at_the_mirror(bench: Bench) -> Iterator[Variables]:
    middle = len(bench.archive) // 2
    flipped = bytes([bench.archive[middle] ^ 1])
    with bench.mirror(bench.archive[:middle] + flipped + bench.archive[middle + 1 :]) as mirror:
        yield {"rackllama_lock": bench.lock(), "rackllama_mirror": mirror}


@contextmanager
def broken_archive_that_was_locked(bench: Bench) -> Iterator[Variables]:
    half = bench.archive[: len(bench.archive) // 2]
    with bench.mirror(half) as mirror:
        lock = bench.lock(size=len(half), sha256=hashlib.sha256(half).hexdigest())
        yield {"rackllama_lock": lock, "rackllama_mirror": mirror}


@contextmanager
def wrong_digest_in_the_lock(bench: Bench) -> Iterator[Variables]:
    yield {"rackllama_lock": bench.lock(sha256="0" * 64)}


@contextmanager
def digest_never_learnt(bench: Bench) -> Iterator[Variables]:
    yield {"rackllama_lock": bench.lock(sha256=None)}


@contextmanager
def file_missing_at_the_mirror(bench: Bench) -> Iterator[Variables]:
    yield {"rackllama_lock": bench.lock(url="https://github.com/ollama/ollama/releases/none.tar.zst")}


@contextmanager
def mirror_that_does_not_answer(bench: Bench) -> Iterator[Variables]:
    yield {"rackllama_lock": bench.lock(), "rackllama_mirror": f"http://{network_gateway()}:9"}


@contextmanager
def disk_too_small_from_the_start(bench: Bench) -> Iterator[Variables]:
    with bench.small_disk("/opt", "16m"):
        yield {"rackllama_lock": bench.lock()}


@contextmanager
def disk_full_while_fetching(bench: Bench) -> Iterator[Variables]:
    with bench.small_disk("/opt/ollama/.fetch", "8m"):
        yield {"rackllama_lock": bench.lock(size=None)}


@contextmanager
def disk_full_while_unpacking(bench: Bench) -> Iterator[Variables]:
    with bench.small_disk("/opt/ollama/.fetch", "32m"):
        yield {"rackllama_lock": bench.lock()}


@contextmanager
def unknown_model(bench: Bench) -> Iterator[Variables]:
    model = {"name": "no-such-model", "variant": "q4_k_m", "engine": "ollama"}
    yield {"rackllama_lock": bench.lock(), "rackllama_models": [model]}


@contextmanager
def bad_knob(bench: Bench) -> Iterator[Variables]:
    yield {"rackllama_lock": bench.lock(), "ollama_kv_cache_type": "q9"}


@contextmanager
def line_break_in_the_environment(bench: Bench) -> Iterator[Variables]:
    yield {"ollama_extra_env": {"OLLAMA_DEBUG": "two\nlines"}}


Fault = Callable[[Bench], AbstractContextManager[Variables]]
FAULTS: dict[Fault, tuple[str, ...]] = {
    damaged_copy_at_the_mirror: ("ollama on etoe1: ", "has sha256", "remedy: if the mirror holds a damaged copy"),
    broken_archive_that_was_locked: ("ollama on etoe1: ", "is not a whole tar archive", "remedy: "),
    wrong_digest_in_the_lock: ("ollama on etoe1: ", f"{'0' * 64} is locked", "remedy: "),
    digest_never_learnt: ("etoe1", "the checksum of ollama 0.33.0-other", "run: rackllama lock ollama"),
    file_missing_at_the_mirror: ("ollama on etoe1: ", "answered 404", "remedy: check the address in the lock"),
    mirror_that_does_not_answer: ("ollama on etoe1: ", "cannot be reached", "remedy: check rackllama_mirror"),
    disk_too_small_from_the_start: ("ollama on etoe1: ", "room at /opt", "remedy: free space"),
    disk_full_while_fetching: ("ollama on etoe1: ", "the disk of /opt/ollama/.fetch is full", "remedy: free space"),
    disk_full_while_unpacking: ("ollama on etoe1: ", "could not be unpacked", "remedy: free space"),
    unknown_model: ("etoe1", "no-such-model", "Remedy: "),
    bad_knob: ("etoe1", "ollama_kv_cache_type is 'q9'", "one of: f16, q8_0, q4_0"),
    line_break_in_the_environment: ("ollama on etoe1: ", "OLLAMA_DEBUG", "remedy: give it on one line"),
}


OFTEN = {
    damaged_copy_at_the_mirror,
    wrong_digest_in_the_lock,
    mirror_that_does_not_answer,
    disk_full_while_unpacking,
    unknown_model,
    bad_knob,
}


@pytest.fixture
def bench(converged: Any, tmp_path: Path) -> Bench:
    """The site, converged, and a folder."""
    return Bench(converged, tmp_path)


def installed_and_running(site: Any) -> dict[str, str]:
    """What a fault must not touch: releases with their links, unit files and declaration, the process."""
    return {
        "releases": site.run("find /opt ! -name .fetch -printf '%p %l %s\\n' | sort"),
        "files": site.run("find /etc/systemd/system/ollama.service* /etc/rackllama -type f -exec sha256sum {} +"),
        "process": site.pid(),
    }


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.__name__, marks=() if fault in OFTEN else pytest.mark.slow) for fault in FAULTS],
)
def test_a_fault_is_told_changes_nothing_and_is_gone_with_the_next_run(bench: Bench, fault: Fault) -> None:
    before = installed_and_running(bench.site)
    with fault(bench) as variables:
        faulty = bench.site.converge(*ENGINES, **variables)
    after = installed_and_running(bench.site)
    again = bench.site.converge(*ENGINES)

    assert faulty.code != 0
    told = re.sub(r"\s+", " ", faulty.output)
    assert [words for words in FAULTS[fault] if words not in told] == [], faulty.output
    assert after == before
    assert (again.code, again.changed) == (0, {"etoe1": 0}), again.output
    assert bench.site.answer()


def test_what_faults_kept_from_being_installed_is_installed_without_them_and_rolled_back(bench: Bench) -> None:
    installed = bench.site.converge(*ENGINES, rackllama_lock=bench.lock())
    assert installed.code == 0, installed.output
    assert bench.site.run("readlink /opt/ollama/current") == OTHER_VERSION

    rolled_back = bench.site.converge(*ENGINES)
    assert rolled_back.code == 0, rolled_back.output
    assert bench.site.run("readlink /opt/ollama/current") == bench.ollama.version
    assert bench.site.answer()
