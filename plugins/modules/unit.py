#!/usr/bin/python
"""Ansible module: the files of one systemd service."""

DOCUMENTATION = r"""
module: unit
short_description: Write a systemd service as a stub unit and a sandboxed drop-in
version_added: "0.1.0"
description:
  - Writes the unit, its drop-in, its secrets and the declaration that others compare with; checks them with
    C(systemd-analyze verify) before the first of them is in place; enables the unit. It never starts anything.
  - Sandbox directives are merged in; what O(service) says wins, and a null takes a directive out.
options:
  name:
    description: The service; its unit is C(NAME.service).
    type: str
    required: true
  user:
    description: The user and group it runs as. Defaults to O(name).
    type: str
  unit:
    description: Directives of the section C([Unit]).
    type: dict
    default: {}
  service:
    description: Directives of the section C([Service]); lists are repeated, booleans become yes or no.
    type: dict
    default: {}
  environment:
    description: Environment of the service, readable by all.
    type: dict
    default: {}
  secrets:
    description: Environment of the service that only root and the service may read.
    type: dict
    default: {}
  secret_files:
    description: The same, from files on the host that hold one secret each, by the name of the variable.
    type: dict
    default: {}
  release_digest:
    description: The sha256 of the release it runs; another one restarts it.
    type: str
    default: ""
  config_files:
    description: Files whose content restarts the service when it changes.
    type: list
    elements: path
    default: []
  reload_files:
    description: Files that the service reads again when it is reloaded.
    type: list
    elements: path
    default: []
  ports:
    description: The TCP ports it listens on, on loopback only.
    type: list
    elements: int
    default: []
  public_ports:
    description: The TCP ports on which it serves other hosts.
    type: list
    elements: int
    default: []
  health:
    description: How to know that it works - C(url) or C(port), and C(timeout_seconds).
    type: dict
    default: {}
  exposure_limit:
    description: The highest score of C(systemd-analyze security) that verification accepts.
    type: float
    default: 2.0
  state:
    description: V(absent) stops and disables the service and removes all its files.
    type: str
    choices: [present, absent]
    default: present
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be written and changes nothing.
  diff_mode:
    support: full
    description: Shows each file before and after, the secrets by their digest only.
"""

EXAMPLES = r"""
- name: Describe a service
  rackllama.llm.unit:
    name: hello
    unit: {Description: Says hello}
    service: {ExecStart: /usr/bin/python3 -m http.server --bind 127.0.0.1 8000}
    ports: [8000]
    health: {port: 8000, timeout_seconds: 20}
"""

RETURN = r"""
written:
  description: The files that were written or removed.
  type: list
  elements: str
  returned: always
"""

import hashlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import working_on
from ansible_collections.rackllama.llm.plugins.module_utils.services import secret_file, unit, unit_state


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "user": {"type": "str"},
            "unit": {"type": "dict", "default": {}},
            "service": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "secret_files": {"type": "dict", "default": {}, "no_log": False},
            "release_digest": {"type": "str", "default": ""},
            "config_files": {"type": "list", "elements": "path", "default": []},
            "reload_files": {"type": "list", "elements": "path", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "public_ports": {"type": "list", "elements": "int", "default": []},
            "health": {"type": "dict", "default": {}},
            "exposure_limit": {"type": "float", "default": 2.0},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    given = module.params
    with working_on(module, given["name"]):
        if given["state"] == "absent":
            change = unit_state.removal(given["name"])
        else:
            change = unit_state.change(declaration(given, module.check_mode))
        if not module.check_mode:
            change.carry_out()
    module.exit_json(changed=bool(change), written=[str(path) for path in change.paths], diff=change.diff())


def declaration(given: dict[str, Any], check_mode: bool) -> unit.ServiceDeclaration:
    config = [
        hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in given["config_files"] if Path(path).exists()
    ]
    # In check mode, a file that is not there yet is one that would have been made.
    files = {name: Path(path) for name, path in given["secret_files"].items() if not check_mode or Path(path).exists()}
    return unit.ServiceDeclaration(
        name=given["name"],
        user=given["user"] or given["name"],
        unit=given["unit"],
        service=given["service"],
        environment={name: str(value) for name, value in given["environment"].items()},
        secrets={
            **{name: str(value) for name, value in given["secrets"].items()},
            **{name: secret_file.read_secret(path) for name, path in files.items()},
        },
        restart_digests=(given["release_digest"], *config),
        reload_files=tuple(given["reload_files"]),
        ports=tuple(given["ports"]),
        public_ports=tuple(given["public_ports"]),
        health=given["health"],
        exposure_limit=given["exposure_limit"],
    )


if __name__ == "__main__":
    main()
