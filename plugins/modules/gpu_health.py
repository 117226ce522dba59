#!/usr/bin/python
"""Ansible module: whether a host's GPUs work as they ought to."""

DOCUMENTATION = r"""
module: gpu_health
short_description: Check that every GPU of a host works, by the driver that was installed
version_added: "0.1.0"
description:
  - The driver has every GPU that is on the PCI bus; it, its packages, the module of the next boot and the fabric
    manager are of one version; the fabric is complete, no memory is damaged, the kernel tells of no error, the device
    nodes are there.
  - The module fails where a check does. A host without GPUs passes.
options:
  version:
    description: The version of the driver that ought to run; empty for the one that was installed last.
    type: str
    default: ""
  power_limit_watts:
    description: The power limit that every GPU ought to have; 0 for any.
    type: float
    default: 0
  timeout_seconds:
    description: How long it may take until all is well.
    type: int
    default: 0
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Check the GPUs after a boot
  rackllama.llm.gpu_health:
    timeout_seconds: 120
"""

RETURN = r"""
report:
  description: The host's name and the checks, each with C(id), C(ok), C(wanted), C(found) and C(remedy).
  type: dict
  returned: always
words:
  description: The same as lines for people.
  type: list
  elements: str
  returned: always
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.driver.health import settled_checks
from ansible_collections.rackllama.llm.plugins.module_utils.module import exit_with_report, failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.report import report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "default": ""},
            "power_limit_watts": {"type": "float", "default": 0},
            "timeout_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    given = module.params
    with failing_clearly(module, "gpu_health"):
        checks = settled_checks(given["version"], given["power_limit_watts"], given["timeout_seconds"])
    exit_with_report(module, "gpu_health", report(platform.node(), checks))


if __name__ == "__main__":
    main()
