#!/usr/bin/python
"""Ansible module: what must be true of a host before anything on it is changed."""

DOCUMENTATION = r"""
module: preflight
short_description: Check that a host can take a service
version_added: "0.1.0"
description:
  - Checks systemd, Python and the room for what is to be installed, and that the service can have its ports.
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
  downloads:
    description: The releases to be installed, as filter P(rackllama.llm.artefact#filter) gives them.
    type: list
    elements: dict
    default: []
  models:
    description: The models to be landed, as filter P(rackllama.llm.models#filter) gives them.
    type: list
    elements: dict
    default: []
  models_dir:
    description: Where the engine keeps models.
    type: path
    default: /var/lib/ollama/models
  reserve_gib:
    description: What must stay free there beside them.
    type: float
    default: 1
  storage:
    description:
      - What role P(rackllama.llm.storage#role) is to make - C(disks), C(instance_store) and C(mount_dir) of the volume,
        C(swap_gib) and C(swap_path).
    type: dict
    default: {}
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
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
from ansible_collections.rackllama.llm.plugins.module_utils.models.model import wanted_model
from ansible_collections.rackllama.llm.plugins.module_utils.module import exit_with_report, failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.report import report
from ansible_collections.rackllama.llm.plugins.module_utils.services import preflight
from ansible_collections.rackllama.llm.plugins.module_utils.storage import checks as storage


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "downloads": {"type": "list", "elements": "dict", "default": []},
            "models": {"type": "list", "elements": "dict", "default": []},
            "models_dir": {"type": "path", "default": "/var/lib/ollama/models"},
            "reserve_gib": {"type": "float", "default": 1},
            "storage": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    name = given["name"]
    models = [wanted_model({**model, "store": given["models_dir"]}) for model in given["models"]]
    reserve = int(given["reserve_gib"] * 2**30)
    with failing_clearly(module, name):
        needed = preflight.bytes_for_models(models)
        checks = [
            *preflight.host_checks(),
            *(preflight.port_check(name, port) for port in given["ports"]),
            preflight.room_check(preflight.RELEASES, preflight.bytes_for_releases(given["downloads"])),
            *storage.room_checks(given["models_dir"], needed + reserve if needed else 0, given["storage"]),
        ]
    exit_with_report(module, name, report(platform.node(), checks))


if __name__ == "__main__":
    main()
