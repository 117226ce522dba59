#!/usr/bin/python
"""Ansible module: whether a host has ended its boot."""

DOCUMENTATION = r"""
module: boot
short_description: Wait until a host lets us in, and has ended its boot
version_added: "0.1.0"
description:
  - Tries to log in by the host's own connection, again and again, until that works and Python runs there.
  - Then waits for cloud-init to end, for a reboot that is under way, and for whoever holds the locks of dpkg or apt.
  - A host without cloud-init is ready at once. Where cloud-init has failed, so does the task; its warnings are shown.
  - What is waited for is shown as it changes. Where the time is up, the end of the host's console log is shown as well.
options:
  wait_seconds:
    description: How long to wait for each host, from 1 to 86400. A last attempt may exceed it by some seconds.
    type: int
    default: 900
  described:
    description: What the host's maker tells of it, as in C(rackllama_host); its C(via) and C(console) are read.
    type: dict
    default: {}
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Wait until the host lets us in, and has ended its boot
  rackllama.llm.boot:
    wait_seconds: 1800
    described: "{{ rackllama_host | default({}) }}"
"""

RETURN = r"""
waited_seconds:
  description: How long it took.
  type: float
  returned: success
notes:
  description: What is worth knowing, such as warnings of cloud-init.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils import boot
from ansible_collections.rackllama.llm.plugins.module_utils.module import failing_clearly


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "wait_seconds": {"type": "int", "default": 900},
            "described": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    with failing_clearly(module, "boot"):
        found = boot.look(module.params["wait_seconds"])
    module.exit_json(changed=False, boot=found._asdict())


if __name__ == "__main__":
    main()
