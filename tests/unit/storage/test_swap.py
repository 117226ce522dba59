"""The swap file: made once, made anew in another size, taken away only where it is ours."""

import subprocess

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.storage import swap
from rackllama.host.storage.swap import FoundSwap, SwapFile, plan
from rackllama.host.systemd import UnitState

GIB = 1 << 30
WANTED = SwapFile("/swap", 16 * GIB)
READY = FoundSwap(16 * GIB, marked=True, closed=True, used=True)


@pytest.mark.parametrize(
    ("wanted", "ours", "found", "steps"),
    [
        (None, None, FoundSwap(), []),
        (WANTED, None, FoundSwap(), ["make", "use"]),
        (WANTED, WANTED, READY, []),
        (WANTED, WANTED, FoundSwap(16 * GIB, marked=True, closed=True), ["use"]),
        (WANTED, WANTED, FoundSwap(8 * GIB, marked=True, closed=True, used=True), ["drop", "make", "use"]),
        (WANTED, WANTED, FoundSwap(16 * GIB, closed=True), ["drop", "make", "use"]),  # killed before mkswap
        (WANTED, WANTED, FoundSwap(16 * GIB, marked=True), ["drop", "make", "use"]),  # open to others
        (WANTED, WANTED, FoundSwap(), ["make", "use"]),  # went with an instance store
        (WANTED, SwapFile("/old", GIB), FoundSwap(), ["drop", "make", "use"]),
        (None, WANTED, READY, ["drop"]),
        (None, None, READY, []),  # somebody else's
    ],
)
def test_what_is_done(wanted, ours, found, steps):
    assert plan(wanted, ours, found) == steps


def test_a_file_of_somebody_elses_is_never_made_swap():
    with pytest.raises(RackllamaError, match="/swap is there, and this role has not made it"):
        plan(WANTED, None, FoundSwap(5))


def test_a_file_is_looked_at_by_its_content_and_mode(tmp_path, monkeypatch):
    file, swaps = tmp_path / "swapfile", tmp_path / "swaps"
    swaps.write_text(f"Filename Type Size Used Priority\n{file} file 1024 0 -2\n")
    monkeypatch.setattr(swap, "SWAPS", swaps)
    assert not swap.look(str(file)).is_there
    file.write_bytes(bytes(1 << 16))
    subprocess.run(["mkswap", str(file)], check=True, capture_output=True)
    file.chmod(0o644)
    found = swap.look(str(file))
    assert (found.size, found.marked, found.closed, found.used) == (1 << 16, True, False, True)
    with pytest.raises(RackllamaError, match="is no plain file"):
        swap.look(str(tmp_path))


def test_only_what_is_still_missing_needs_room(tmp_path, monkeypatch):
    file = tmp_path / "swapfile"
    file.write_bytes(bytes(4096))
    monkeypatch.setattr(swap, "recorded", lambda: SwapFile(str(file), 4096))
    assert swap.room_needed(1, str(file)) == GIB - 4096
    assert swap.room_needed(1, str(tmp_path / "other")) == GIB


@pytest.fixture
def units(tmp_path, monkeypatch):
    """A host that had a swap file of 64 KiB, with its unit; systemd is asked nothing."""
    monkeypatch.setattr(swap, "UNITS", tmp_path)
    monkeypatch.setattr(swap, "RECORD", tmp_path / "swap.json")
    monkeypatch.setattr(swap, "ask", lambda *_: "ext4")
    monkeypatch.setattr(swap.systemd, "run", lambda *_, **__: subprocess.CompletedProcess((), 0, ""))
    monkeypatch.setattr(swap.systemd, "unit_state", lambda _: UnitState(True, False, True, False, 0, 0))
    swap.change((1 << 16) / GIB, str(tmp_path / "swapfile")).carry_out()
    return tmp_path


def test_another_size_gets_its_unit_as_well(units):
    change = swap.change((1 << 17) / GIB, str(units / "swapfile"))
    change.carry_out()
    assert change.steps == ["drop", "make", "use"]
    assert (units / "swapfile").stat().st_size == 1 << 17
    assert [path.name for path in units.glob("*.swap")] == [swap._unit(swap.recorded())]


def test_what_is_taken_away_leaves_nothing(units):
    change = swap.change(0, str(units / "swapfile"))
    change.carry_out()
    assert (change.words, list(units.iterdir())) == ([f"take away the swap file {units}/swapfile"], [])
