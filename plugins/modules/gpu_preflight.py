#!/usr/bin/python
"""Ansible module: what must be true before a host's GPU driver is changed."""

DOCUMENTATION = r"""
module: gpu_preflight
short_description: Check that a host can take a GPU driver
version_added: "0.1.0"
description:
  - Looks for whatever is known to leave a host without its driver, or without a boot; changes nothing.
  - The module fails where a check does; its report has one entry for each check, with the remedy.
  - A host without GPUs passes.
options:
  branch:
    description: The branch of the driver that is wanted.
    type: str
    default: "580"
  version:
    description: The version of that branch; empty for the one that is installed by default.
    type: str
    default: ""
  source:
    description: Whether it comes from NVIDIA's packages or its runfile.
    type: str
    choices: [packages, runfile]
    default: packages
  kernel_modules:
    description: The kind of kernel modules; by default the open ones where they drive all GPUs.
    type: str
    choices: [open, proprietary]
  may_reboot:
    description: Whether the host may be rebooted.
    type: bool
    default: true
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Check that the driver can be installed
  rackllama.llm.gpu_preflight:
    branch: "580"
"""

RETURN = r"""
needed:
  description: Whether the driver is to be changed at all.
  type: bool
  returned: success
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
from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.driver import preflight
from ansible_collections.rackllama.llm.plugins.module_utils.driver.state import read_state
from ansible_collections.rackllama.llm.plugins.module_utils.driver.wanted import WantedDriver, is_needed
from ansible_collections.rackllama.llm.plugins.module_utils.module import exit_with_report, failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.report import report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "branch": {"type": "str", "default": "580"},
            "version": {"type": "str", "default": ""},
            "source": {"type": "str", "choices": ["packages", "runfile"], "default": "packages"},
            "kernel_modules": {"type": "str", "choices": ["open", "proprietary"]},
            "may_reboot": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    wanted = WantedDriver(
        branch=given["branch"],
        version=given["version"],
        source=given["source"],
        modules=given["kernel_modules"],
        may_reboot=given["may_reboot"],
    )
    with failing_clearly(module, "gpu_preflight"):
        state = read_state()
        checks = preflight.checks(state, wanted, datetime.now(timezone.utc).date())
        needed = is_needed(state, wanted)
    exit_with_report(module, "gpu_preflight", report(platform.node(), checks), needed=needed)


if __name__ == "__main__":
    main()
