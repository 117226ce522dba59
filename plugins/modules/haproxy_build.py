#!/usr/bin/python
"""Ansible module: whether a host's HAProxy can be the gateway."""

DOCUMENTATION = r"""
module: haproxy_build
short_description: Check the version of HAProxy and what it is built with
version_added: "0.1.0"
description:
  - Checks the HAProxy that is installed or, where none is, the version that apt would install.
  - The module fails where a check does; its report has one entry for each check, with the remedy.
options: {}
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Check that HAProxy can be the gateway
  rackllama.llm.haproxy_build:
"""

RETURN = r"""
report:
  description: The host's name and the checks, each with C(id), C(ok), C(wanted), C(found) and C(remedy).
  type: dict
  returned: always
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.gateway import haproxy
from ansible_collections.rackllama.llm.plugins.module_utils.module import exit_with_report, failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.report import report


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    with failing_clearly(module, "gateway"):
        checks = haproxy.checks(haproxy.build_here())
    exit_with_report(module, "gateway", report(platform.node(), checks))


if __name__ == "__main__":
    main()
