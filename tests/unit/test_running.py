"""A restart follows from what runs, not from what a play remembers."""

from rackllama.host.running import Running, Wanted, differences
from rackllama.host.unit import DIGEST_VARIABLE

WANTED = Wanted(digest="d1", environment={"PORT": "1"}, files_changed_at=100.0, health={})
AS_WANTED = {"PORT": "1", DIGEST_VARIABLE: "d1", "PATH": "/usr/bin"}


def test_a_process_as_declared_is_left_alone():
    assert differences(WANTED, Running(AS_WANTED, started_at=101.0)) == []


def test_a_service_that_does_not_run_is_started():
    assert differences(WANTED, Running()) == ["it does not run"]


def test_a_process_of_an_earlier_declaration_is_restarted():
    reasons = differences(WANTED, Running({**AS_WANTED, DIGEST_VARIABLE: "d0"}, started_at=101.0))
    assert reasons == ["it was started with an earlier declaration"]


def test_a_process_with_another_environment_is_restarted_and_the_variable_named():
    reasons = differences(WANTED, Running({**AS_WANTED, "PORT": "2"}, started_at=101.0))
    assert reasons == ["its PORT is '2' and ought to be '1'"]


def test_a_process_from_before_a_repair_is_restarted():
    reasons = differences(WANTED, Running(AS_WANTED, started_at=99.0))
    assert reasons == ["its unit files were repaired after it had started"]
