"""The console log of a host that does not answer, by programs that say what the test wants."""

from pathlib import Path

import pytest

from rackllama.provision.console import console_log

AWS = {"kind": "aws", "instance": "i-0a1", "region": "us-east-1"}


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "aws"


def says(program: Path, script: str) -> None:
    program.write_text(f'#!/bin/sh\necho "$@" >> {program}.asked\n{script}\n')
    program.chmod(0o755)


def test_the_end_of_the_log_is_told(aws: Path) -> None:
    says(aws, "seq 1 100")
    assert console_log(AWS, lines=3) == "98\n99\n100"
    asked = aws.with_name("aws.asked").read_text()
    assert asked.startswith("ec2 get-console-output --instance-id i-0a1 --region us-east-1 ")


def test_types_without_the_latest_log_tell_the_one_they_have(aws: Path) -> None:
    says(aws, 'case "$*" in *--latest*) echo "not supported" >&2; exit 254;; esac; echo "Kernel panic"')
    assert console_log(AWS) == "Kernel panic"


@pytest.mark.parametrize(("script", "said"), [("echo None", "it is empty"), ("echo denied >&2; exit 1", "denied")])
def test_no_log_says_why_and_where_to_look(aws: Path, script: str, said: str) -> None:
    says(aws, script)
    told = console_log(AWS)
    assert said in told
    assert "look at its console yourself" in told


def test_a_program_that_is_missing_is_no_further_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No such file or directory: 'aws'" in console_log(AWS)


def test_who_has_no_console_is_told_where_there_may_be_one() -> None:
    assert "remote console of its BMC" in console_log({})


def test_a_log_cannot_command_our_terminal(aws: Path) -> None:
    says(aws, r"printf '\033[31mred\033[0m \033]0;title\007bell\rback'")
    assert "\x1b" not in console_log(AWS)
    assert "\x07" not in console_log(AWS)
    assert "red" in console_log(AWS)
