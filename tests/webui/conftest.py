"""One lab host with an engine, a real model and Open WebUI, reached as people reach it: through a tunnel, by a browser.

All of it takes minutes, so it runs by `make test-slow`, or by

pytest tests/webui -m slow [--lab NAME] [--keep-lab]

Screenshots are left in the folder that RACKLLAMA_ARTEFACTS names, or below the cache.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rackllama.host.webui.open_webui import Session
from rackllama.lab import hosts
from rackllama.lab.depot.depot import default_depot
from rackllama.lab.depot.progress import Progress
from rackllama.lab.machine import ensure_packages
from rackllama.lab.tunnel import tunnel
from rackllama.lab.up import Stopwatch, changed_tasks, start_ansible, start_converge, start_lab, stop_lab
from rackllama.paths import cache_dir

from .browser import Browser, browser

PORT = 8080
ADMIN = "admin@localhost"
PASSWORD = "Canary-4f6d1c-admin"  # planted, to be looked for where no secret may be


@dataclass(frozen=True)
class Outcome:
    """How a converge ended: exit code, all it said, and the number of changed tasks by host."""

    code: int
    output: str
    changed: dict[str, int]


@dataclass(frozen=True)
class Site:
    """The host, the address at which browsers reach its Open WebUI, and what makes it a host of the web UI."""

    lab: hosts.Lab
    url: str
    inventory: Path
    artefacts: Path

    @property
    def lock(self) -> Path:
        """The lock of what the host installs."""
        return default_depot().lock_path

    def converge(self, *arguments: str, **extra_vars: Any) -> Outcome:
        """Run playbooks/site.yml with these variables above all others, and all that it may ever say.

        A variable that is None is left to its default.
        """
        given = {"open_webui_public_url": self.url, "open_webui_admin_password": PASSWORD, **extra_vars}
        variables = self.inventory.with_name("variables.yml")
        variables.write_text(yaml.safe_dump({name: value for name, value in given.items() if value is not None}))
        with start_converge(
            self.lab.name, "-i", str(self.inventory), "-e", f"@{variables}", "-vvv", *arguments
        ) as play:
            output, _ = play.communicate()
        return Outcome(play.returncode, output, changed_tasks(output))

    def module(self, name: str, arguments: dict[str, Any]) -> str:
        """What Ansible says of one module, run as root on the host."""
        given = ["-i", str(self.inventory), "webui", "--become", "-m", name, "-a", json.dumps(arguments)]
        with start_ansible(self.lab.name, "ansible", *given) as ansible:
            output, _ = ansible.communicate()
        return output

    def run(self, command: str) -> str:
        """What a shell command of root says on the host. A failing command fails the test."""
        with hosts.ssh_client(self.lab, self.lab.hosts[0]) as client:
            _, stdout, stderr = client.exec_command(f"sudo sh -c {shlex.quote(command)}")
            said, complaint = stdout.read().decode(), stderr.read().decode()
            assert stdout.channel.recv_exit_status() == 0, f"{command}: {complaint}"
        return said.strip()

    def session(self, email: str = ADMIN, password: str = PASSWORD) -> Session:
        """The API, signed in."""
        account = Session(self.url).ask("POST", "/api/v1/auths/signin", {"email": email, "password": password})
        return Session(self.url, account["token"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", default="webui", metavar="NAME", help="the lab to use (default: %default)")
    parser.addoption("--keep-lab", action="store_true", help="leave the lab as it is at the end")


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The lab with its host; on it may be whatever a kept lab has, or nothing."""
    ensure_packages(["chromium", "chromium-driver", "fonts-dejavu-core"])
    lab = start_lab(request.config.option.lab, 1, "bookworm", Stopwatch(Progress()))
    inventory = tmp_path_factory.mktemp("inventory") / "webui.yml"
    inventory.write_text(yaml.safe_dump({"webui": {"hosts": {lab.hosts[0].name: {}}}}))
    artefacts = Path(os.environ.get("RACKLLAMA_ARTEFACTS") or cache_dir() / "artefacts" / "webui")
    with tunnel(lab, lab.hosts[0], PORT) as url:
        yield Site(lab, url, inventory, artefacts)
    if not request.config.option.keep_lab:
        stop_lab(lab.name)


@pytest.fixture(scope="session")
def converged(site: Site) -> Site:
    """The host converged, as every test finds it and is to leave it."""
    outcome = site.converge()
    assert outcome.code == 0, outcome.output
    return site


@pytest.fixture
def page(converged: Site, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """A browser in which the admin has signed in, with no notes of a release in the way; its last picture is kept."""
    settings = {"ui": {"version": str(Session(converged.url).ask("GET", "/api/config")["version"])}}
    converged.session().ask("POST", "/api/v1/users/user/settings/update", settings)
    with browser() as window:
        window.open(converged.url)
        window.write("#email", ADMIN)
        window.write("#password", PASSWORD)
        window.click("button[type=submit]")
        window.wait(lambda: window.count("#chat-input"), "the chat page after signing in")
        yield window
        window.screenshot(converged.artefacts / f"{request.node.name}.png")


@pytest.fixture(scope="session")
def requirements(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a version of Open WebUI to its requirements, made as those of the role are."""

    def compiled(version: str) -> Path:
        path = tmp_path_factory.mktemp("requirements") / f"open-webui-{version}.txt"
        excludes = Path(__file__).parents[2] / "roles" / "open_webui" / "files" / "excludes.txt"
        subprocess.run(
            [
                *(str(cache_dir() / "uv" / "bin" / "uv"), "pip", "compile", "-", "--quiet", "--universal"),
                *("--python-version", "3.11", "--only-binary", ":all:", "--generate-hashes", "--no-annotate"),
                *("--no-header", "--excludes", str(excludes), "--output-file", str(path)),
            ],
            input=f"open-webui=={version}\n",
            text=True,
            check=True,
            stdout=sys.stderr,
        )
        return path

    return compiled
