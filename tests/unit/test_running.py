"""A restart follows from what runs, not from what a play remembers."""

from dataclasses import replace

from rackllama.host.services.running import Wanted, differences, native_program, script_interpreter, unread_files
from rackllama.host.services.unit import DIGEST_VARIABLE
from rackllama.host.systemd import Process

NOW = 200.0
PROGRAM = "/opt/hello/2.0/bin/hello"
WANTED = Wanted(digest="d1", environment={"PORT": "1"}, uid=999, program=PROGRAM, files_changed_at=100.0, health={})
AS_WANTED = Process({"PORT": "1", DIGEST_VARIABLE: "d1", "PATH": "/usr/bin"}, PROGRAM, 999, started_at=101.0)


def reasons(found, wanted=WANTED):
    return differences(wanted, found, NOW)


def test_a_process_as_declared_is_left_alone():
    assert reasons(AS_WANTED) == []


def test_a_service_that_does_not_run_is_started():
    assert reasons(None) == ["it does not run"]


def test_a_process_of_an_earlier_declaration_is_restarted():
    earlier = replace(AS_WANTED, environment={**AS_WANTED.environment, DIGEST_VARIABLE: "d0"})
    assert reasons(earlier) == ["it was started with an earlier declaration"]


def test_a_process_with_another_environment_is_restarted_and_the_variable_named():
    other = replace(AS_WANTED, environment={**AS_WANTED.environment, "PORT": "2"})
    assert reasons(other) == ["its PORT is '2' and ought to be '1'"]


def test_the_program_of_a_release_that_is_no_longer_current_is_restarted():
    old = replace(AS_WANTED, program="/opt/hello/1.0/bin/hello")
    assert reasons(old) == [f"it runs /opt/hello/1.0/bin/hello and ought to run {PROGRAM}"]


def test_a_process_of_another_user_is_restarted():
    assert reasons(replace(AS_WANTED, uid=0)) == ["it runs as the user id 0 and ought to run as 999"]


def test_a_script_is_not_told_by_its_interpreter(tmp_path):
    script, program = tmp_path / "script", tmp_path / "program"
    script.write_text("#!/bin/sh\n")
    program.write_bytes(b"\x7fELF")
    (tmp_path / "current").symlink_to(program)
    assert native_program(script) is None
    assert native_program(tmp_path / "current") == str(program)
    assert reasons(replace(AS_WANTED, program="/usr/bin/dash"), replace(WANTED, program=None)) == []


def test_a_script_of_an_environment_that_is_no_longer_current_is_restarted(tmp_path):
    script = tmp_path / "2.0" / "bin" / "hello"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{script.parent}/python3.11 -I\nprint()\n")
    (tmp_path / "current").symlink_to("2.0")
    interpreter = script_interpreter(tmp_path / "current" / "bin" / "hello")
    assert interpreter == f"{script.parent}/python3.11"
    wanted = replace(WANTED, program=None, interpreter=interpreter)
    assert reasons(replace(AS_WANTED, command=interpreter), wanted) == []
    assert reasons(replace(AS_WANTED, command=f"{tmp_path}/1.0/bin/python3.11"), wanted) == [
        f"it runs by {tmp_path}/1.0/bin/python3.11 and ought to run by {interpreter}"
    ]


def test_other_scripts_and_programs_are_not_told_by_their_interpreter(tmp_path):
    script = tmp_path / "script"
    for content in ("#!/usr/bin/env python3\n", "#!/bin/sh\n", "\x7fELF", ""):
        script.write_text(content)
        assert script_interpreter(script) is None
    assert script_interpreter(tmp_path / "missing") is None


def test_a_process_from_before_a_repair_is_restarted():
    assert reasons(replace(AS_WANTED, started_at=99.0)) == ["its unit files were repaired after it had started"]


def test_files_from_the_future_restart_nothing():
    assert reasons(AS_WANTED, replace(WANTED, files_changed_at=NOW + 3600)) == []


def test_files_that_changed_after_they_were_read_are_read_again():
    declared = replace(WANTED, reload_files={"/etc/a": 150.0, "/etc/b": 120.0, "/etc/from-the-future": NOW + 3600})
    assert unread_files(declared, loaded_at=140.0, now=NOW) == ["/etc/a changed after it was read"]
    assert unread_files(declared, loaded_at=160.0, now=NOW) == []
