"""Filling the depot: built once, published whole, resumed where it stopped, shared by two processes."""

import fcntl
import hashlib
import io
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot import depot as depot_module
from rackllama.lab.depot.depot import Depot, exclusive, fill, is_filled, require_machine
from rackllama.lab.depot.progress import Progress
from rackllama.lab.depot.workshop import Product, Workshop
from rackllama.mirror.lock import read_lock


@dataclass(frozen=True)
class Hello:
    """A recipe for files that are written down at once."""

    name: str = "hello"
    version: str = "1.0"
    licence: str = "MIT"
    texts: tuple[str, ...] = ("hello",)

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def url(self, number: int) -> str:
        return f"https://example.org/{self.name}/{self.version}/{number}.txt"


def build_hello(shop: Workshop, recipe: Hello) -> tuple[Product, ...]:
    stage = shop.empty_folder("stage")
    for number, text in enumerate(recipe.texts):
        (stage / f"{number}").write_text(text)
    return tuple(Product(recipe.url(number), stage / f"{number}", "amd64") for number in range(len(recipe.texts)))


def build_nothing(shop: Workshop, recipe: Hello) -> tuple[Product, ...]:
    raise AssertionError(f"{recipe.name} is built again")


@pytest.fixture
def depot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Depot:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(depot_module, "ensure_packages", lambda _names: None)
    return Depot(tmp_path / "rackllama" / "depot")


def quiet() -> Progress:
    return Progress(io.StringIO())


def test_what_is_built_lies_in_the_mirror_and_in_the_lock(depot):
    assert fill(quiet(), [(Hello(), build_hello)]) == depot
    published = depot.mirror_root / "example.org" / "hello" / "1.0" / "0.txt"
    assert published.read_text() == "hello"
    (file,) = read_lock(depot.lock_path)["hello"].files_for("x86_64")
    assert (file.size, file.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert read_lock(depot.lock_path)["hello"].origin == "lab-depot"


def test_a_filled_depot_is_left_untouched(depot):
    fill(quiet(), [(Hello(), build_hello)])
    before = {path: path.stat().st_mtime_ns for path in depot.root.rglob("*")}
    said = io.StringIO()
    fill(Progress(said), [(Hello(), build_nothing)])
    assert {path: path.stat().st_mtime_ns for path in depot.root.rglob("*")} == before
    assert said.getvalue() == ""


def test_another_recipe_is_built_and_replaces_the_files_of_the_one_before(depot):
    fill(quiet(), [(Hello(texts=("one", "two")), build_hello)])
    newer = Hello(version="2.0")
    assert not is_filled([(newer, build_hello)])
    fill(quiet(), [(newer, build_hello)])
    files = [path.relative_to(depot.mirror_root) for path in depot.mirror_root.rglob("*") if path.is_file()]
    assert files == [Path("example.org/hello/2.0/0.txt")]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("hell")], ids=["gone", "cut short"])
def test_a_harmed_file_is_built_again(depot, harm):
    fill(quiet(), [(Hello(), build_hello)])
    published = depot.mirror_root / "example.org" / "hello" / "1.0" / "0.txt"
    harm(published)
    assert not is_filled([(Hello(), build_hello)])
    fill(quiet(), [(Hello(), build_hello)])
    assert published.read_text() == "hello"


def test_after_a_failure_only_what_is_missing_is_built(depot):
    first, second = Hello(name="first"), Hello(name="second")

    def build_and_fail(shop: Workshop, recipe: Hello) -> tuple[Product, ...]:
        build_hello(shop, recipe)
        raise RackllamaError("the compiler failed", "read the log")

    with pytest.raises(RackllamaError, match="the compiler failed"):
        fill(quiet(), [(first, build_hello), (second, build_and_fail)])
    assert list(read_lock(depot.lock_path)) == ["first"]
    fill(quiet(), [(first, build_nothing), (second, build_hello)])
    assert list(read_lock(depot.lock_path)) == ["first", "second"]


def test_build_trees_go_and_the_compilers_cache_stays(depot):
    def build(shop: Workshop, recipe: Hello) -> tuple[Product, ...]:
        (shop.folder("ccache") / "object").write_text("")
        (shop.folder("source") / "main.c").write_text("")
        return build_hello(shop, recipe)

    fill(quiet(), [(Hello(), build)])
    build_root = depot.root.parent / "build" / "depot"
    assert [path.name for path in build_root.iterdir()] == ["ccache"]


def test_a_second_process_waits_and_says_so(tmp_path):
    said, entered = io.StringIO(), threading.Event()
    lock = tmp_path / "lock"

    def second() -> None:
        with exclusive(lock, Progress(said)):
            entered.set()

    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        while not said.getvalue():
            assert thread.is_alive()
        assert not entered.is_set()
    thread.join(timeout=10)
    assert entered.is_set()
    assert said.getvalue().startswith("waiting: another process")


def test_a_machine_that_cannot_build_is_told_why():
    require_machine("x86_64", 7 * 2**30)
    with pytest.raises(RackllamaError, match=r"5\.0 GiB are free"):
        require_machine("x86_64", 5 * 2**30)
    with pytest.raises(RackllamaError, match="this is aarch64"):
        require_machine("aarch64", 7 * 2**30)


def test_an_interrupted_build_finds_its_folder_again_and_another_recipe_an_empty_one(tmp_path):
    shop = Workshop(tmp_path, tmp_path / "mirror", quiet())
    (shop.folder_of(Hello()) / "object").write_text("")
    assert (shop.folder_of(Hello()) / "object").exists()
    assert not (shop.folder_of(Hello(version="2.0")) / "object").exists()


def test_a_failing_program_gives_its_last_line_and_its_log(tmp_path):
    shop = Workshop(tmp_path, tmp_path / "mirror", quiet())
    with pytest.raises(RackllamaError, match="x: compile failed with exit status 3: no such header") as caught:
        shop.run("x: compile", ["sh", "-c", "echo begun; echo no such header >&2; exit 3"])
    log = tmp_path / "logs" / "x-compile.log"
    assert str(log) in caught.value.remedy
    assert log.read_text() == "begun\nno such header\n"


def test_a_program_gets_its_environment_and_its_folder(tmp_path):
    shop = Workshop(tmp_path, tmp_path / "mirror", quiet())
    (tmp_path / "inside").mkdir()
    lines = shop.run("x", ["sh", "-c", "echo $GREETING; pwd"], env={"GREETING": "hello"}, cwd=tmp_path / "inside")
    assert lines == ["hello", str(tmp_path / "inside")]


def test_the_same_files_make_the_same_archive(tmp_path):
    shop = Workshop(tmp_path, tmp_path / "mirror", quiet())
    archives = []
    for seconds in (1_000, 2_000):
        folder = shop.empty_folder("stage")
        (folder / "tool").write_text("#!/bin/sh\n")
        os.utime(folder / "tool", (seconds, seconds))
        archives.append(shop.pack("pack", folder, ["tool"], "gzip -n").read_bytes())
    assert archives[0] == archives[1]


def test_progress_shows_the_count_while_a_step_goes_on_and_its_outcome():
    said = io.StringIO()
    progress = Progress(said, log_seconds=0.001)
    with progress.step("compile") as step:
        step.count = "63/133"
        while "63/133" not in said.getvalue():
            pass
    with pytest.raises(ZeroDivisionError), progress.step("divide"):
        1 / 0  # noqa: B018
    lines = said.getvalue().splitlines()
    assert lines[-1].split() == ["divide", "0.0", "s", "failed"]
    assert any(line.split()[:2] == ["compile", "63/133"] and line.endswith("s  done") for line in lines)


def test_progress_keeps_one_line_up_to_date_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = Terminal()
    with Progress(said).step("compile"):
        pass
    assert said.getvalue().startswith("\r\033[K  compile")
    assert said.getvalue().count("\n") == 1


def test_a_changed_recipe_replaces_a_file_of_the_same_address(depot):
    fill(quiet(), [(Hello(), build_hello)])
    changed = replace(Hello(), texts=("changed",))
    fill(quiet(), [(changed, build_hello)])
    (file,) = read_lock(depot.lock_path)["hello"].files
    assert (depot.mirror_root / file.mirror_path).read_text() == "changed"
