"""What the inventory plugin `rackllama.llm.pulumi_stack` does: from a stack to groups, through Ansible's cache."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError  # type: ignore[import-untyped]

from rackllama.host.errors import RackllamaError
from rackllama.paths import state_dir
from rackllama.provision.inventory import InventoryGroups, inventory_groups
from rackllama.provision.pulumi_cli import chosen_backend, find_pulumi, pulumi_environment
from rackllama.provision.stack_outputs import Stack


def parse_into(plugin: Any, path: Path, *, may_be_cached: bool) -> dict[str, dict[str, Any]]:
    """Fill the plugin's inventory from the stack that the file at `path` names; the variables of each host.

    Raises AnsibleParserError with the remedy.
    """
    project = (path.parent / plugin.get_option("project")).resolve()
    cache = plugin.cache if plugin.get_option("cache") else {}
    try:
        environment = pulumi_environment(os.environ, find_pulumi(os.environ, runs_programs=False), project)
        stack = Stack(project, plugin.get_option("stack"), plugin.get_option("timeout_seconds"), environment)
        groups = stack_groups(stack, cache, may_be_cached=may_be_cached, tell=plugin.display.warning)
    except RackllamaError as error:
        raise AnsibleParserError(str(error)) from error
    groups.add_to(plugin.inventory)
    return groups.variables


def stack_groups(
    stack: Stack,
    cache: MutableMapping[str, Any],
    *,
    may_be_cached: bool,
    tell: Callable[[str], None],
    now: float | None = None,
) -> InventoryGroups:
    """The groups of the stack's hosts, and how Ansible logs in to them.

    They are kept in `cache`, apart for each stack and backend, and taken from there with `may_be_cached`; `tell` then
    gets a sentence with their age, as a stack that was changed since is not noticed. Of a stack without a name nothing
    is kept, as another one may be selected next. Raises RackllamaError where the stack has no hosts, cannot be read, or
    its hosts are not of the schema.
    """
    now = time.time() if now is None else now
    key = _key(stack)
    kept = cache.get(key) if stack.name and may_be_cached else None
    if isinstance(kept, Mapping) and {"hosts", "read_at"} <= kept.keys():
        minutes = max(0, round((now - kept["read_at"]) / 60))
        tell(f"the hosts of {stack} are from the cache, read {minutes} min ago; --flush-cache reads them anew")
    else:
        kept = {"hosts": stack.hosts(), "read_at": now}
    known_hosts = state_dir() / "known_hosts" / "-".join([stack.project.name, *stack.name.split("/")]).rstrip("-")
    groups = inventory_groups({"hosts": kept["hosts"]}, known_hosts=known_hosts).trusted()
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # ssh makes the file, and no folder
    if stack.name:
        cache[key] = kept
    return groups


def _key(stack: Stack) -> str:
    backend = chosen_backend(stack.environment, stack.project)
    return "pulumi_stack_" + hashlib.sha256(f"{stack.project}\n{stack.name}\n{backend}".encode()).hexdigest()[:16]
