"""What callers rely on of an engine. The tests pass on the real one too: they are what the double is held to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .engine.harness import Stack

PROGRAMS = Path(__file__).parent / "programs"
TOKEN = "hunter2-of-the-shelf"
FILES = ["a-base", "also-also", "top-top"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files of the program land."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def stack(stacks: Callable[..., Stack], folder: Path) -> Stack:
    """The stack, not yet up."""
    stack = stacks(PROGRAMS / "shelf")
    stack.config_set("folder", folder)
    stack.config_set("token", TOKEN, secret=True)
    return stack


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "journal")


def journal(folder: Path) -> list[str]:
    return (folder / "journal").read_text().splitlines()


def test_a_preview_makes_nothing(stack: Stack, folder: Path) -> None:
    preview = stack.preview()
    assert preview.ok, preview.output
    assert preview.created == 5
    assert files(folder) == []
    assert stack.state() == []


def test_up_creates_then_leaves_alone(stack: Stack, folder: Path) -> None:
    first = stack.up(preview=True)
    assert first.ok, first.output
    assert first.counts == {"created": 5}
    assert files(folder) == FILES
    assert stack.up().counts == {"unchanged": 5}
    assert stack.outputs() == {"path": str(folder / "a-base"), "token": "[secret]"}
    assert stack.outputs(show_secrets=True)["token"] == TOKEN


def test_a_change_updates_what_it_touches(stack: Stack, folder: Path) -> None:
    assert stack.up().ok
    stack.config_set("text", "two")
    assert stack.up().counts == {"updated": 1, "unchanged": 4}
    assert (folder / "a-base").read_text() == "two"


def test_a_replacement_is_made_before_the_old_one_goes(stack: Stack, folder: Path) -> None:
    assert stack.up().ok
    stack.config_set("place", "b")
    assert stack.up().counts == {"replaced": 1, "updated": 1, "unchanged": 3}
    assert files(folder) == ["also-also", "b-base", "top-top"]
    assert journal(folder)[-3:] == ["create b-base", "update top-top", "delete a-base"]


def test_a_replacement_waits_for_the_old_one_to_go_where_told(stack: Stack, folder: Path) -> None:
    stack.config_set("first", True)
    assert stack.up().ok
    stack.config_set("place", "b")
    assert stack.up().counts == {"replaced": 1, "updated": 1, "unchanged": 3}
    assert journal(folder)[-3:] == ["delete a-base", "create b-base", "update top-top"]


def test_what_the_program_drops_is_deleted(stack: Stack, folder: Path) -> None:
    assert stack.up().ok
    stack.config_set("also", False)
    assert stack.up().counts == {"deleted": 1, "unchanged": 4}
    assert files(folder) == ["a-base", "top-top"]


def test_a_failure_keeps_what_was_made_and_can_be_destroyed(stack: Stack, folder: Path) -> None:
    stack.config_set("also", False)
    stack.config_set("broken", True)
    failed = stack.up()
    assert not failed.ok
    assert "the shelf broke down" in failed.output
    assert "pulumi-python:dynamic:Resource (broken)" in failed.output
    assert set(stack.resources()) == {"shelf", "base", "top"}
    assert stack.destroy().ok
    assert files(folder) == []
    assert stack.state() == []


def test_destroy_deletes_the_last_made_first(stack: Stack, folder: Path) -> None:
    assert stack.up().ok
    assert stack.destroy().counts == {"deleted": 5}
    assert journal(folder)[-3:] == ["delete also-also", "delete top-top", "delete a-base"]


def test_refresh_finds_what_is_gone_and_up_makes_it_again(stack: Stack, folder: Path) -> None:
    assert stack.up().ok
    (folder / "top-top").unlink()
    assert stack.refresh().counts == {"deleted": 1, "unchanged": 4}
    assert "top" not in stack.resources()
    assert stack.up().counts == {"created": 1, "unchanged": 4}


def test_a_preview_that_refreshes_notes_nothing_and_an_up_does(stack: Stack, folder: Path) -> None:
    assert stack.up().ok
    (folder / "top-top").unlink()
    assert stack.run("preview", "--refresh", "--stack", stack.name).created == 1
    assert "top" in stack.resources()
    assert not (folder / "top-top").exists()
    refreshed = stack.run("up", "--refresh", "--yes", "--skip-preview", "--stack", stack.name)
    assert refreshed.counts == {"created": 1, "unchanged": 4}
    assert (folder / "top-top").exists()


def test_refresh_finds_what_changed(stack: Stack, folder: Path) -> None:
    assert stack.up().ok
    (folder / "a-base").write_text("by hand")
    assert stack.refresh().counts == {"updated": 1, "unchanged": 4}
    assert stack.up().ok
    assert (folder / "a-base").read_text() == "one"


def test_a_protected_resource_stays(stack: Stack, folder: Path) -> None:
    stack.config_set("protect", True)
    assert stack.up().ok
    destroyed = stack.destroy()
    assert not destroyed.ok
    assert "cannot be deleted\n    because it is protected" in destroyed.stdout
    assert files(folder) == FILES
    stack.config_set("place", "b")
    replaced = stack.up()
    assert not replaced.ok
    assert "unable to replace resource" in replaced.output
    assert files(folder) == FILES


def test_a_retained_resource_outlives_the_stack(stack: Stack, folder: Path) -> None:
    stack.config_set("retain", True)
    assert stack.up().ok
    assert stack.destroy().ok
    assert files(folder) == ["a-base"]
    assert stack.state() == []


def test_secrets_are_nowhere_in_plain_text(stack: Stack) -> None:
    said = stack.up(preview=True).output
    kept = "".join(path.read_text() for path in stack.folder.parent.glob("state/**/*.json"))
    assert TOKEN not in said + kept + stack.state_text() + (stack.folder / "Pulumi.test.yaml").read_text()


def test_a_missing_or_wrong_value_stops_everything(stack: Stack, stacks: Callable[..., Stack], folder: Path) -> None:
    bare = stacks(PROGRAMS / "shelf")
    assert "missing configuration value" in bare.up().output
    stack.config_set("also", "perhaps")
    assert "must be of type 'boolean'" in stack.preview().output
    assert files(folder) == []


def test_a_stack_that_is_not_there_is_named(stack: Stack) -> None:
    asked = stack.run("stack", "output", "--json", "--stack", "none")
    assert not asked.ok
    assert "no stack named 'none' found" in asked.stderr
