#!/usr/bin/python
"""Ansible module: what must be true of a host before anything on it is changed."""

DOCUMENTATION = r"""
module: preflight
short_description: Check that a host can take a service
version_added: "0.1.0"
description:
  - Checks systemd, Python and free space of the host, and that the service can have its ports. Changes nothing.
  - The module fails where a check does; its report has one entry for each check, with the remedy.
options:
  name:
    description: The service.
    type: str
    required: true
  ports:
    description: The TCP ports it will listen on.
    type: list
    elements: int
    default: []
  needed_bytes:
    description: Space that its installation needs below C(/opt).
    type: int
    default: 0
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: The module never changes anything.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Check that Ollama can be installed
  rackllama.llm.preflight:
    name: ollama
    ports: [11434]
"""

RETURN = r"""
report:
  description: The host's name and the checks, each with C(id), C(ok), C(wanted), C(found) and C(remedy).
  type: dict
  returned: always
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils import preflight
from ansible_collections.rackllama.llm.plugins.module_utils.module import exit_with_report, failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.report import report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "needed_bytes": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    with failing_clearly(module, name):
        checks = preflight.host_checks(module.params["needed_bytes"])
        checks += [preflight.port_check(name, port) for port in module.params["ports"]]
    exit_with_report(module, name, report(platform.node(), checks))


if __name__ == "__main__":
    main()
