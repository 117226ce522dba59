"""What the tests of converged hosts share: the knobs as they are for a host, and a few questions to it.

Run by molecule, or by hand against any host of an inventory, as root there:

    pytest tests/host --connection=ansible --ansible-inventory=inventories/lab --sudo
"""

import json
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from testinfra.host import Host

CHECKOUT = Path(__file__).parents[2]
ASK = """
import json, sys, urllib.request
url, body = sys.argv[1], sys.argv[2].encode() or None
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(url, body, timeout=300).read().decode())
"""


@dataclass(frozen=True)
class Server:
    """Ollama on one host, asked from that host itself, as nobody else can reach it."""

    host: Host
    port: int

    @property
    def pid(self) -> str:
        """The process that systemd takes for the server's; "0" where none runs."""
        return self.host.check_output("systemctl show ollama --property MainPID --value")

    @property
    def command(self) -> str:
        """The command line of the running process."""
        return self.host.check_output("tr '\\0' ' ' < /proc/%s/cmdline", self.pid).strip()

    @property
    def environment(self) -> dict[str, str]:
        """What the running process was really started with."""
        lines = self.host.check_output("tr '\\0' '\\n' < /proc/%s/environ", self.pid).splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def answers(self) -> bool:
        """Whether it serves its API."""
        url = f"http://127.0.0.1:{self.port}/api/version"
        return self.host.run("python3 -c %s %s ''", ASK, url).succeeded

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One answer of its API."""
        sent = json.dumps(body) if body else ""
        url = f"http://127.0.0.1:{self.port}{path}"
        return json.loads(self.host.check_output("python3 -c %s %s %s", ASK, url, sent))


@dataclass(frozen=True)
class Knobs:
    """Every knob by its name: the roles' defaults with the inventory's variables for a host above them."""

    templar: Templar
    variables: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.templar.template(self.variables[name])


@pytest.fixture(scope="session")
def _collection() -> None:
    """Let templates find the collection's filters, as defaults use them."""
    init_plugin_loader([str(CHECKOUT / "collections")])


@pytest.fixture(scope="module")
def knobs(host: Host, _collection: None) -> Knobs:
    """The knobs as they are for the host."""
    loader = DataLoader()
    paths = sorted(CHECKOUT.glob("roles/*/defaults/main.yml"))
    defaults = [loader.load_from_file(str(path), trusted_as_template=True) for path in paths]
    variables = dict(ChainMap(host.ansible.get_variables(), *defaults))
    return Knobs(Templar(loader, variables), variables)


@pytest.fixture(scope="module")
def ollama(host: Host, knobs: Knobs) -> Server:
    """The host's Ollama."""
    return Server(host, knobs["ollama_listen_port"])


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], str], None]:
    """Wait until a condition holds; `eventually(lambda: ..., "it is so")` fails with the words after a minute."""

    def wait(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
            time.sleep(0.5)

    return wait
