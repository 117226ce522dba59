"""An upgrade keeps the database as it was, and a rollback brings it back."""

import contextlib
import sqlite3

import pytest

from rackllama.host.webui.webui_data import Found, Step, make_ready, plan

OLD, NEW = "0.12.3-aaaaaaaa", "0.12.10-bbbbbbbb"


def write(data, words):
    """Say something in the database, as Open WebUI does: with a journal beside it."""
    with contextlib.closing(sqlite3.connect(data / "webui.db")) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table if not exists chat (words)")
        database.execute("insert into chat values (?)", [words])
        database.commit()


def chats(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [words for (words,) in database.execute("select words from chat")]


def test_a_first_start_and_a_restart_touch_nothing(tmp_path):
    assert make_ready(tmp_path, OLD) == []
    write(tmp_path, "hello")
    assert make_ready(tmp_path, OLD) == []
    assert chats(tmp_path / "webui.db") == ["hello"]
    assert list((tmp_path / "rackllama" / "before").iterdir()) == []


def test_an_upgrade_keeps_the_database_and_takes_it_along(tmp_path):
    make_ready(tmp_path, OLD)
    write(tmp_path, "before")
    assert make_ready(tmp_path, NEW) == [Step("keep", OLD)]
    write(tmp_path, "after")
    assert chats(tmp_path / "webui.db") == ["before", "after"]
    assert chats(tmp_path / "rackllama" / "before" / f"{OLD}.db") == ["before"]
    assert (tmp_path / "rackllama" / "before" / f"{OLD}.db").stat().st_mode & 0o777 == 0o600


def test_a_rollback_brings_the_database_back_and_loses_nothing(tmp_path):
    make_ready(tmp_path, OLD)
    write(tmp_path, "before")
    make_ready(tmp_path, NEW)
    write(tmp_path, "after")
    assert make_ready(tmp_path, OLD) == [Step("keep", NEW), Step("restore", OLD)]
    assert chats(tmp_path / "webui.db") == ["before"]
    assert chats(tmp_path / "rackllama" / "before" / f"{NEW}.db") == ["before", "after"]


def test_a_rollback_is_not_spoilt_by_the_journal_of_what_was_there(tmp_path):
    make_ready(tmp_path, OLD)
    write(tmp_path, "before")
    make_ready(tmp_path, NEW)
    killed = sqlite3.connect(tmp_path / "webui.db")  # never closed: its journal stays
    killed.execute("pragma journal_mode=wal")
    killed.execute("insert into chat values ('after')")
    killed.commit()
    assert (tmp_path / "webui.db-wal").stat().st_size > 0
    make_ready(tmp_path, OLD)
    assert chats(tmp_path / "webui.db") == ["before"]
    assert chats(tmp_path / "rackllama" / "before" / f"{NEW}.db") == ["before", "after"]
    killed.close()


def test_an_upgrade_after_a_rollback_takes_along_what_came_since():
    assert plan(NEW, Found(OLD, database=True, kept=frozenset({OLD, NEW}))) == [Step("keep", OLD)]


@pytest.mark.parametrize(
    "found",
    [
        Found(None, database=False, kept=frozenset()),
        Found(OLD, database=False, kept=frozenset({NEW})),
    ],
    ids=["nothing", "no database"],
)
def test_there_is_nothing_to_do_with(found):
    assert plan(NEW, found) == []


def test_a_database_that_somebody_else_made_is_kept_as_well():
    assert plan(NEW, Found(None, database=True, kept=frozenset())) == [Step("keep", "unknown")]


def test_the_same_version_with_other_packages_is_no_rollback():
    other = "0.12.3-cccccccc"
    assert plan(other, Found(OLD, database=True, kept=frozenset({other}))) == [Step("keep", OLD)]


def test_only_a_few_are_kept():
    kept = frozenset(f"0.{number}.0-aaaaaaaa" for number in range(5))
    steps = plan("0.6.0-a", Found("0.5.0-a", database=True, kept=kept))
    assert steps == [
        Step("keep", "0.5.0-a"),
        *(Step("forget", f"0.{number}.0-aaaaaaaa") for number in range(3)),
    ]
