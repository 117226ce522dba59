"""Change the keys of all gateways of an inventory, by the playbook that does it: playbooks/keys.yml."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.host.gateway.keys import Key

CHECKOUT = Path(__file__).resolve().parents[3]
PLAYBOOK = "playbooks/keys.yml"
SAID_LINES = 15

KeysByHost = dict[str, list[Key]]


@dataclass(frozen=True)
class Answers:
    """What the gateways said: the keys that each has, those that it revoked, and which of them did not answer."""

    present: KeysByHost
    revoked: KeysByHost
    failed: tuple[str, ...]
    said: str = ""

    def error(self, message: str, remedy: str = "mend what it names and give the command again") -> RackllamaError:
        """That something failed, naming the gateways where it did."""
        return RackllamaError(f"{message}: {', '.join(self.failed)} failed:\n{self.said}", remedy)


def ask_gateways(inventory: Sequence[str], added: Sequence[Key] = (), revoked: Sequence[str] = ()) -> Answers:
    """Add and revoke keys on every gateway, and learn which there are. Raises RackllamaError where there is none."""
    with tempfile.TemporaryDirectory(prefix="rackllama-keys-") as folder:
        variables = {
            "keys_added": [asdict(key) for key in added],
            "keys_revoked": list(revoked),
            "keys_folder": folder,
        }
        # As a file: a command line is for everybody to read.
        given = Path(folder) / "given.json"
        given.write_text(json.dumps(variables), encoding="utf-8")
        done = _ansible("ansible-playbook", inventory, playbook(), "-e", f"@{given}")
        return read_answers(Path(folder), "\n".join((done.stdout + done.stderr).splitlines()[-SAID_LINES:]))


def read_answers(folder: Path, said: str) -> Answers:
    """What the gateways left in a folder, a JSON file each; who left none failed. Their names are in `gateways`.

    Raises RackllamaError with what Ansible `said` where there are none.
    """
    listed = folder / "gateways"
    hosts: list[str] = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else []
    if not hosts:
        raise RackllamaError(
            f"no host is in the group gateway:\n{said}", "name the inventory: rackllama key … -i inventories/NAME"
        )
    answers = {
        host: json.loads(path.read_text(encoding="utf-8"))
        for host in hosts
        for path in [folder / f"{host}.json"]
        if path.exists()
    }
    return Answers(
        present={host: [Key(**key) for key in answer["keys"]] for host, answer in answers.items()},
        revoked={host: [Key(**key) for key in answer["revoked"]] for host, answer in answers.items()},
        failed=tuple(host for host in hosts if host not in answers),
        said=said,
    )


def playbook() -> str:
    """The playbook: that of the checkout, or of the installed collection."""
    path = CHECKOUT / PLAYBOOK
    return str(path) if path.exists() else "rackllama.llm.keys"


def _ansible(program: str, inventory: Sequence[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    configuration = CHECKOUT / "ansible.cfg"
    own = {"ANSIBLE_CONFIG": str(configuration)} if configuration.exists() else {}
    inventories = [argument for path in inventory for argument in ("-i", path)]
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *inventories, *arguments],
        env={**own, **os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
