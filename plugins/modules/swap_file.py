#!/usr/bin/python
"""Ansible module: a swap file."""

DOCUMENTATION = r"""
module: swap_file
short_description: Have a swap file of a given size
version_added: "0.1.0"
description:
  - Allocates it without holes, closes it to others, and uses it now and at each boot, by a unit of its own.
  - Another size is made by making it anew. What this module has not made is never touched.
options:
  size_gib:
    description: Its size; 0 takes away what this module has made before.
    type: float
    required: true
  path:
    description: Where it lies, on ext4 or xfs.
    type: path
    required: true
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: Shows the steps.
"""

EXAMPLES = r"""
- name: Have 16 GiB of swap
  rackllama.llm.swap_file:
    size_gib: 16
    path: /var/lib/rackllama/swapfile
"""

RETURN = r"""
steps:
  description: What was done, or would be, in words.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import working_on
from ansible_collections.rackllama.llm.plugins.module_utils.storage import swap


def main() -> None:
    module = AnsibleModule(
        argument_spec={"size_gib": {"type": "float", "required": True}, "path": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    with working_on(module, "swap_file"):
        change = swap.change(module.params["size_gib"], module.params["path"])
        if change and not module.check_mode:
            change.carry_out()
    module.exit_json(changed=bool(change), steps=change.words, diff=change.diff())


if __name__ == "__main__":
    main()
