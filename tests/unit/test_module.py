"""What our modules share: failures that name host and remedy, and one run at a time."""

import os
import platform

import pytest

from rackllama.host import module
from rackllama.host.errors import RackllamaError
from rackllama.host.module import alone, failing_clearly
from rackllama.host.report import Check, report


class StandInModule:
    """Ends as an AnsibleModule does, by an exception that carries what it would have printed."""

    def fail_json(self, **result):
        raise SystemExit(("failed", result))

    def exit_json(self, **result):
        raise SystemExit(("ended", result))


def ending(action):
    with pytest.raises(SystemExit) as end:
        action()
    return end.value.code


def test_a_failure_names_the_thing_the_host_and_the_remedy():
    def fail():
        with failing_clearly(StandInModule(), "ollama"):
            raise RackllamaError("the disk is full", "free space")

    outcome, result = ending(fail)
    assert outcome == "failed"
    assert result["msg"] == f"ollama on {platform.node()}: the disk is full\n  remedy: free space"


def test_a_mistake_of_ours_stays_a_traceback():
    with pytest.raises(ZeroDivisionError), failing_clearly(StandInModule(), "ollama"):
        _ = 1 / 0


def test_a_report_with_a_failed_check_fails_and_shows_only_what_failed():
    checks = [Check("disk", True, "10 GiB", "20 GiB"), Check("port", False, "free", "taken", "stop it")]
    outcome, result = ending(lambda: module.exit_with_report(StandInModule(), "preflight", report("gpu1", checks)))
    assert outcome == "failed"
    assert "1 of 2 checks failed" in result["msg"]
    assert "remedy: stop it" in result["msg"]
    assert "20 GiB" not in result["msg"]


def test_a_report_without_one_ends_unchanged():
    outcome, result = ending(lambda: module.exit_with_report(StandInModule(), "preflight", report("gpu1", [])))
    assert (outcome, result["changed"]) == ("ended", False)


def test_one_run_at_a_time_works_on_a_thing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(module, "LOCK_SECONDS", 0)
    with alone("ollama"), pytest.raises(RackllamaError, match=f"process {os.getpid()}"), alone("ollama"):
        pass
    with alone("ollama"):
        pass
