"""From a description of hosts, the same whoever made them, to the groups of an Ansible inventory.

Pulumi stacks export it and `rackllama lab inventory` prints it:

    {"hosts": [{"name": "lab1", "address": "10.0.0.2", "user": "ops", "gpus": [], "roles": ["serving"]}]}
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError

GROUPS = ("serving", "gateway", "webui", "mirror")


@dataclass(frozen=True)
class InventoryGroups:
    """Host names by group, with every group of GROUPS, and variables by host name."""

    groups: dict[str, list[str]]
    variables: dict[str, dict[str, str]]

    def add_to(self, inventory: Any) -> None:
        """Add all of it to an `ansible.inventory.data.InventoryData`."""
        for group, hosts in self.groups.items():
            inventory.add_group(group)
            for host in hosts:
                inventory.add_host(host, group=group)
        for host, variables in self.variables.items():
            for name, value in variables.items():
                inventory.set_variable(host, name, value)

    def trusted(self) -> "InventoryGroups":
        """The same, with values that Ansible takes for our own, and no longer wraps in `ansible-inventory --list`.

        Without it testinfra, and whoever else reads that list, finds `{"__ansible_unsafe": …}` in the place of a text.
        """
        # Loading Ansible takes half a second, and most commands do without.
        from ansible.template import trust_as_template  # type: ignore[import-untyped]  # noqa: PLC0415

        variables = {
            host: {name: trust_as_template(value) for name, value in own.items()}
            for host, own in self.variables.items()
        }
        return replace(self, variables=variables)


def inventory_groups(document: Mapping[str, Any], connection: Mapping[str, str] | None = None) -> InventoryGroups:
    """The groups and host variables that follow from the document.

    `connection` holds variables that all hosts share, such as the key to log in with.
    Raises RackllamaError where the document is not of the schema, or two hosts have one name.
    """
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    variables: dict[str, dict[str, str]] = {}
    for host in document.get("hosts", []):
        missing = [key for key in ("name", "address", "user", "roles") if not host.get(key)]
        if missing:
            raise _malformed(f"host {host.get('name', '?')!r} has no {', '.join(missing)}")
        name = host["name"]
        if name in variables:
            raise _malformed(f"two hosts are named {name!r}")
        for role in host["roles"]:
            if role not in groups:
                raise _malformed(f"host {name!r} has the role {role!r}, which is none of {', '.join(GROUPS)}")
            groups[role].append(name)
        variables[name] = {"ansible_host": host["address"], "ansible_user": host["user"], **(connection or {})}
    return InventoryGroups(groups, variables)


def ssh_variables(key: Path, known_hosts: Path) -> dict[str, str]:
    """The variables that let Ansible log in with that key, to hosts whose own keys stand in `known_hosts` only."""
    options = {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{known_hosts}"',  # ssh takes a list of files, parted by spaces
        "GlobalKnownHostsFile": "none",
        "IdentitiesOnly": "yes",
    }
    arguments = [argument for name, value in options.items() for argument in ("-o", f"{name}={value}")]
    return {"ansible_ssh_private_key_file": str(key), "ansible_ssh_common_args": shlex.join(arguments)}


def _malformed(what: str) -> RackllamaError:
    return RackllamaError(f"the description of the hosts is not well-formed: {what}", "see docs/architecture.md")
