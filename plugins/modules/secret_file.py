#!/usr/bin/python
"""Ansible module: a secret in a file for root alone, made on the host where none is given."""

DOCUMENTATION = r"""
module: secret_file
short_description: Keep a secret in a file for root alone, made once on the host where none is given
version_added: "0.1.0"
description:
  - Without O(value), a secret that is there is kept, and one is made of 24 random bytes where none is; it never leaves
    the host.
options:
  path:
    description: The file; its mode becomes 0600.
    type: path
    required: true
  value:
    description: The secret, where it comes from a vault; empty to have it made.
    type: str
    default: ""
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be written and changes nothing.
  diff_mode:
    support: full
    description: Says why the file is written, and nothing of what is in it.
"""

EXAMPLES = r"""
- name: Make a key, once
  rackllama.llm.secret_file:
    path: /etc/rackllama/secrets/example.key
"""

RETURN = r"""# the common values only"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.services import secret_file


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "value": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    with working_on(module, path.name):
        change = secret_file.change(path, module.params["value"] or None)
        if not module.check_mode:
            change.carry_out()
    reasons = [change.reason] if change.reason else []
    module.exit_json(changed=bool(reasons), diff=difference([], reasons, header=str(path)))


if __name__ == "__main__":
    main()
