"""The command line as a whole: every command is there, and none waits for what another one needs."""

import subprocess
import sys

import pytest

from rackllama.cli import PARTS, build_parser, main


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert [name for name in PARTS if f"    {name} " not in shown] == []


@pytest.mark.parametrize("command", PARTS)
def test_each_command_is_of_the_part_that_is_loaded_for_it(command, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser(command).parse_args([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: rackllama {command}" in capsys.readouterr().out


def test_models_are_listed_without_loading_what_speaks_ssh():
    script = "import sys; from rackllama.cli import main; main(['models']); sys.exit('paramiko' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    assert "deepseek-r1" in listed.stdout


def test_an_unknown_command_is_told_with_all_that_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    assert ended.value.code == 2
    assert "choose from hardware, models, key, lab, land, lock" in capsys.readouterr().err.replace("'", "")
