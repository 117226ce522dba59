"""A secret is made once and kept, for root alone."""

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.services.secret_file import change, read_secret


def test_it_is_made_once_and_kept(tmp_path):
    path = tmp_path / "secrets" / "key"
    change(path).carry_out()
    made = read_secret(path)
    assert len(made) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert change(path).reason == ""


def test_a_given_one_is_written_and_replaces_what_was_made(tmp_path):
    change(tmp_path / "key").carry_out()
    given = change(tmp_path / "key", "from a vault")
    assert given.reason == "it is another one"
    given.carry_out()
    assert read_secret(tmp_path / "key") == "from a vault"
    assert change(tmp_path / "key", "from a vault").reason == ""


def test_one_that_others_can_read_is_closed_and_stays_what_it_is(tmp_path):
    (tmp_path / "key").write_text("old\n")
    (tmp_path / "key").chmod(0o644)
    opened = change(tmp_path / "key")
    assert opened.reason == "others could read it"
    opened.carry_out()
    assert (read_secret(tmp_path / "key"), (tmp_path / "key").stat().st_mode & 0o777) == ("old", 0o600)


def test_a_missing_one_is_told(tmp_path):
    with pytest.raises(RackllamaError, match="there is no secret"):
        read_secret(tmp_path / "key")
