"""One lab host for all end-to-end tests: started once, converged by the playbook that every site runs, asked by SSH.

pytest tests/e2e                   the sample that is run all the time
pytest tests/e2e -m slow           the long ones
pytest tests/e2e --keep-lab -k …   the host stays, and the next run finds it converged
"""

import json
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rackllama.host.models.ollama import Ollama
from rackllama.lab import hosts
from rackllama.lab.depot.depot import default_depot
from rackllama.lab.depot.progress import Progress
from rackllama.lab.podman import podman
from rackllama.lab.tunnel import tunnel
from rackllama.lab.up import OLLAMA_PORT, Stopwatch, ask, changed_tasks, start_converge, start_lab, stop_lab

from ..gpu_host.bench import bench, gpu_host  # noqa: F401 - fixtures

LAB = "etoe"


@dataclass(frozen=True)
class Outcome:
    """How a converge ended: exit code, all it said, the number of changed tasks by host, and its seconds."""

    code: int
    output: str
    changed: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Site:
    """A lab of one host, and what can be done to it."""

    lab: hosts.Lab

    @property
    def host(self) -> hosts.Host:
        """The one host."""
        return self.lab.hosts[0]

    @property
    def lock(self) -> Path:
        """The lock of what the host installs."""
        return default_depot().lock_path

    def start_converge(self, *arguments: str, **extra_vars: Any) -> subprocess.Popen[str]:
        """Start playbooks/site.yml with these variables above all others, in a process group of its own."""
        return start_converge(self.lab.name, "-e", json.dumps(extra_vars), *arguments, new_session=True)

    def converge(self, *arguments: str, **extra_vars: Any) -> Outcome:
        """Run playbooks/site.yml to its end, with further arguments such as `--tags`."""
        started = time.monotonic()
        with self.start_converge(*arguments, **extra_vars) as play:
            output, _ = play.communicate()
        return Outcome(play.returncode, output, changed_tasks(output), time.monotonic() - started)

    def run(self, command: str) -> str:
        """What a shell command of root says on the host. A failing command fails the test."""
        with hosts.ssh_client(self.lab, self.host) as client:
            _, stdout, stderr = client.exec_command(f"sudo sh -c {shlex.quote(command)}")
            said, complaint = stdout.read().decode(), stderr.read().decode()
            assert stdout.channel.recv_exit_status() == 0, f"{command}: {complaint}"
        return said.strip()

    def reboot(self) -> None:
        """Shut the host down and boot it, until it is reached again."""
        podman("stop", "--time=60", self.host.container)
        start_lab(LAB, 1, "bookworm", Stopwatch(Progress()))

    def pid(self) -> str:
        """The process of the host's Ollama."""
        return self.run("systemctl show ollama --property MainPID --value")

    def environment(self) -> dict[str, str]:
        """What the host's Ollama was really started with."""
        lines = self.run(f"tr '\\0' '\\n' < /proc/{self.pid()}/environ").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def declared_environment(self) -> Mapping[str, str]:
        """What the host itself holds to be declared."""
        declared: Mapping[str, str] = json.loads(self.run("cat /etc/rackllama/services/ollama.json"))["environment"]
        return declared

    def served(self) -> list[str]:
        """The names of the models that the host's Ollama lists."""
        with tunnel(self.lab, self.host, OLLAMA_PORT) as url:
            return [model.name for model in Ollama(url).models()]

    def answer(self) -> str:
        """A real answer of the model."""
        return ask(self.lab, self.host)[1].text


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-lab", action="store_true", help=f"leave the lab {LAB} as it is at the end")


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The lab with its host; on it may be whatever a kept lab has, or nothing."""
    yield Site(start_lab(LAB, 1, "bookworm", Stopwatch(Progress())))
    if not request.config.option.keep_lab:
        stop_lab(LAB)


@pytest.fixture(scope="session")
def converged(site: Site) -> Site:
    """The lab with its host converged, as every test finds it and is to leave it."""
    outcome = site.converge()
    assert outcome.code == 0, outcome.output
    return site
