"""From a description of hosts, the same whoever made them, to the groups of an Ansible inventory.

Pulumi stacks export it and `rackllama lab inventory` prints it:

    {"hosts": [{"name": "lab1", "address": "10.0.0.2", "user": "ops", "gpus": [], "roles": ["serving"]}]}
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError

GROUPS = ("serving", "gateway", "webui", "mirror")
INSTANCE = re.compile(r"m?i-[0-9a-f]+")
TEMPLATE = re.compile(r"\{[{%#]")


@dataclass(frozen=True)
class InventoryGroups:
    """Host names by group, with every group of GROUPS, and variables by host name."""

    groups: dict[str, list[str]]
    variables: dict[str, dict[str, Any]]

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
        A text that is a template stays untrusted, and is never evaluated: tags and names may be somebody else's.
        """
        # Loading Ansible takes half a second, and most commands do without.
        from ansible.template import trust_as_template  # type: ignore[import-untyped]  # noqa: PLC0415

        def trust(value: Any) -> Any:
            if isinstance(value, str):
                return value if TEMPLATE.search(value) else trust_as_template(value)
            if isinstance(value, Mapping):
                return {name: trust(inner) for name, inner in value.items()}
            return [trust(inner) for inner in value] if isinstance(value, list | tuple) else value

        return replace(self, variables={host: trust(own) for host, own in self.variables.items()})


def inventory_groups(
    document: Mapping[str, Any], connection: Mapping[str, str] | None = None, known_hosts: Path | None = None
) -> InventoryGroups:
    """The groups and host variables that follow from the document.

    `connection` holds variables that all hosts share, such as the key to log in with. With `known_hosts`, each host is
    logged in to as it says itself, and that file learns the keys of those that name no file of known ones. What a host
    tells of itself is its variable `rackllama_host`: `gpus`, `labels`, `via` and `console`, as far as they are there;
    its `variables` are set as they are.
    Raises RackllamaError where the document is not of the schema, or two hosts have one name.
    """
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    variables: dict[str, dict[str, Any]] = {}
    for host in _described_hosts(document):
        name = host["name"]
        if name in variables:
            raise _malformed(f"two hosts are named {name!r}")
        for role in host["roles"]:
            if role not in groups:
                raise _malformed(f"host {name!r} has the role {role!r}, which is none of {', '.join(GROUPS)}")
            groups[role].append(name)
        told = {key: host[key] for key in ("gpus", "labels", "via", "console") if host.get(key)}
        variables[name] = {
            "ansible_host": host["address"],
            "ansible_user": host["user"],
            **(connection or {}),
            **({"ansible_port": host["login"]["port"]} if (host.get("login") or {}).get("port") else {}),
            **(_login(host, known_hosts) if known_hosts else {}),
            **({"rackllama_host": told} if told else {}),
            **(host.get("variables") or {}),
        }
    return InventoryGroups(groups, variables)


def ssh_variables(
    key: Path | None, known_hosts: Path, *, learns: bool = False, options: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables that let Ansible log in with that key, to hosts whose own keys stand in `known_hosts` only.

    Without a key it is whichever ssh has. With `learns`, a host that is new is believed once, and its key kept there.
    `options` are further ones of ssh.
    """
    told = {
        "StrictHostKeyChecking": "accept-new" if learns else "yes",
        "UserKnownHostsFile": f'"{known_hosts}"',  # ssh takes a list of files, parted by spaces
        "GlobalKnownHostsFile": "none",
        **({"HashKnownHosts": "no"} if learns else {}),
        **({"IdentitiesOnly": "yes"} if key else {}),
        **(options or {}),
    }
    arguments = [argument for name, value in told.items() for argument in ("-o", f"{name}={value}")]
    own = {"ansible_ssh_private_key_file": str(key)} if key else {}
    return {**own, "ansible_ssh_common_args": shlex.join(arguments)}


def session_manager_command(instance: str, region: str) -> str:
    """The command that ssh runs to reach the instance through AWS Session Manager; ssh puts the port for `%p`."""
    command = ["aws", "ssm", "start-session", "--target", instance, "--region", region]
    return shlex.join([*command, "--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=%p"])


def _described_hosts(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    hosts = document.get("hosts", [])
    if not isinstance(hosts, list):
        raise _malformed(f"hosts is no list, but {hosts!r}")
    for host in hosts:
        if not isinstance(host, Mapping):
            raise _malformed(f"a host is no mapping, but {host!r}")
        missing = [key for key in ("name", "address", "user", "roles") if not host.get(key)]
        if missing:
            raise _malformed(f"host {host.get('name', '?')!r} has no {', '.join(missing)}")
        yield host


def _login(host: Mapping[str, Any], known_hosts: Path) -> dict[str, str]:
    """The variables by which Ansible logs in to the host as it says: by its address, or through Session Manager."""
    via, login = host.get("via") or {"kind": "ssh"}, host.get("login") or {}
    given = login.get("known_hosts")
    kind, instance = via.get("kind"), via.get("instance") or (host.get("console") or {}).get("instance") or ""
    if kind not in ("ssh", "session-manager"):
        raise _malformed(f"host {host['name']!r} is reached by {kind!r}, which is neither ssh nor session-manager")
    if (instance or kind == "session-manager") and not INSTANCE.fullmatch(instance):
        raise _malformed(f"host {host['name']!r} has the instance {instance!r}, which is no id of one")
    options, more = {}, {}
    if instance:
        # Addresses repeat, from network to network and from one instance to the next; instances do not. So each has
        # its own place among the known keys, and a connection that is kept open is never taken for that of another.
        options["HostKeyAlias"] = instance
        more["ansible_control_path"] = f"%(directory)s/{instance}-%%r"
    if kind == "session-manager":
        options["ProxyCommand"] = session_manager_command(instance, via.get("region", ""))
    key = Path(login["key"]) if login.get("key") else None
    return {**ssh_variables(key, Path(given or known_hosts), learns=not given, options=options), **more}


def _malformed(what: str) -> RackllamaError:
    return RackllamaError(f"the description of the hosts is not well-formed: {what}", "see docs/architecture.md")
