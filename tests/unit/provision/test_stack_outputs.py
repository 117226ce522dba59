"""What a stack exports, by a `pulumi` that says what the test wants; and what a user reads of its failures."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.provision.stack_outputs import Stack

HOST = {"name": "gpu1", "address": "10.0.1.12", "user": "ubuntu", "gpus": [], "roles": ["serving"]}


@dataclass
class Pulumi:
    """A folder with a project and a program called pulumi."""

    folder: Path

    def says(self, script: str) -> None:
        program = self.folder / "bin" / "pulumi"
        program.write_text(f'#!/bin/sh\necho "$@" > {self.folder}/asked\n{script}\n')
        program.chmod(0o755)

    def exports(self, outputs: object) -> None:
        self.says(f"cat <<'END'\n{json.dumps(outputs)}\nEND")

    def stack(self, name: str = "dev", seconds: float = 10) -> Stack:
        path = os.pathsep.join([str(self.folder / "bin"), "/usr/bin", "/bin"])
        return Stack(self.folder / "aws", name, seconds, {"PATH": path})


@pytest.fixture
def pulumi(tmp_path: Path) -> Pulumi:
    (tmp_path / "bin").mkdir()
    (tmp_path / "aws").mkdir()
    (tmp_path / "aws" / "Pulumi.yaml").write_text("name: rackllama-aws")
    return Pulumi(tmp_path)


def test_hosts_are_what_the_stack_exports(pulumi: Pulumi) -> None:
    pulumi.exports({"hosts": [HOST], "password": "[secret]"})
    assert pulumi.stack().hosts() == [HOST]


def test_no_secret_is_asked_for_and_nobody_is_waited_for(pulumi: Pulumi) -> None:
    pulumi.exports({"hosts": [HOST]})
    pulumi.stack().hosts()
    asked = (pulumi.folder / "asked").read_text().split()
    assert "--show-secrets" not in asked
    assert "--non-interactive" in asked
    assert asked[asked.index("--stack") + 1] == "dev"


def test_no_name_means_the_stack_that_is_selected(pulumi: Pulumi) -> None:
    pulumi.exports({"hosts": [HOST]})
    pulumi.stack(name="").hosts()
    assert "--stack" not in (pulumi.folder / "asked").read_text()


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({}, "exports nothing: it was never brought up, its first `up` failed, or it was destroyed.*pulumi up"),
        ({"plan": None}, "exports no `hosts`"),
        ({"hosts": []}, "has no host"),
        ({"hosts": "[secret]"}, "are marked as secret"),
        ([HOST], "no JSON object"),
    ],
)
def test_what_is_no_stack_with_hosts_is_told(pulumi: Pulumi, outputs: object, said: str) -> None:
    pulumi.exports(outputs)
    with pytest.raises(RackllamaError, match=said):
        pulumi.stack().hosts()


@pytest.mark.parametrize(
    ("complaint", "said"),
    [
        ("no stack named 'dev' found", "there is no stack dev of .*/aws.*pulumi up --cwd .*/aws --stack dev"),
        ("no stack selected; please use `pulumi stack select`", "none is selected. Remedy: .*RACKLLAMA_STACK"),
        ("passphrase must be set with PULUMI_CONFIG_PASSPHRASE", "without the right passphrase.*PASSPHRASE_FILE"),
        ("incorrect passphrase", "without the right passphrase"),
        ("PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions", "run `pulumi login URL`"),
        ("dial tcp: lookup state.example.com: no such host", "the backend .* cannot be reached.*PULUMI_BACKEND_URL"),
        ("something else", "pulumi cannot read stack dev of .*: something else"),
    ],
)
def test_why_a_stack_cannot_be_read_is_told_with_the_remedy(pulumi: Pulumi, complaint: str, said: str) -> None:
    pulumi.says(f"cat >&2 <<'END'\nerror: {complaint}\nEND\nexit 255")
    with pytest.raises(RackllamaError, match=said):
        pulumi.stack().hosts()


def test_a_pulumi_that_hangs_is_ended_with_all_it_has_started(pulumi: Pulumi) -> None:
    pulumi.says("sleep 600 & echo $! > $(dirname $0)/child; wait")
    started = time.monotonic()
    with pytest.raises(RackllamaError, match=r"has not answered for stack dev of .* in 0.5 s"):
        pulumi.stack(seconds=0.5).hosts()
    assert time.monotonic() - started < 10
    child = int((pulumi.folder / "bin" / "child").read_text())
    end = time.monotonic() + 10  # the kernel ends what was killed in its own time
    while runs(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not runs(child)


def runs(pid: int) -> bool:
    """Whether the process is there, and is more than what init has yet to clear away."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_pulumi_on_the_path(pulumi: Pulumi, tmp_path: Path) -> None:
    with pytest.raises(RackllamaError, match=r"pulumi is not on the PATH\. Remedy: run `make tools`"):
        Stack(tmp_path / "aws", "dev", environment={"PATH": str(tmp_path)}).hosts()


def test_a_folder_without_a_project(tmp_path: Path) -> None:
    with pytest.raises(RackllamaError, match=r"holds no Pulumi.yaml"):
        Stack(tmp_path, "dev").hosts()
