#!/usr/bin/python
"""Ansible module: who may use a gateway."""

DOCUMENTATION = r"""
module: gateway_keys
short_description: Add and revoke keys of a gateway
version_added: "0.1.0"
description:
  - Changes C(/var/lib/rackllama/keys.map), and tells the running gateway, without a reload, within a second.
  - A key itself never comes here, only its sha256.
options:
  added:
    description: The keys to let in.
    type: list
    elements: dict
    default: []
    suboptions:
      sha256:
        description: The sha256 of the key, in hexadecimal digits of lower case.
        type: str
        required: true
      user:
        description: Whose it is.
        type: str
        required: true
  revoked:
    description: Users whose keys are refused from now on, or the first digits, eight or more, of a key's sha256.
    type: list
    elements: str
    default: []
author: The rackllama maintainers
attributes:
  check_mode:
    support: none
    description: Keys are managed by commands, and never by a converge.
  diff_mode:
    support: none
    description: Keys are managed by commands, and never by a converge.
"""

EXAMPLES = r"""
- name: Let nobody named alice in any more
  rackllama.llm.gateway_keys:
    revoked: [alice]
"""

RETURN = r"""
present:
  description: The keys that are let in, each with C(sha256) and C(user).
  type: list
  elements: dict
  returned: always
revoked:
  description: The keys that were revoked, likewise.
  type: list
  elements: dict
  returned: always
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.gateway import keys
from ansible_collections.rackllama.llm.plugins.module_utils.module import failing_clearly

KEY = {"sha256": {"type": "str", "required": True}, "user": {"type": "str", "required": True}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "added": {"type": "list", "elements": "dict", "default": [], "options": KEY},
            "revoked": {"type": "list", "elements": "str", "default": []},
        }
    )
    given = module.params
    with failing_clearly(module, "keys"):
        added = [keys.add(keys.Key(**key)) for key in given["added"]]
        revoked = [key for name in given["revoked"] for key in keys.revoke(name)]
        present = keys.keys()
    module.exit_json(
        changed=bool(any(added) or revoked),
        present=[asdict(key) for key in present],
        revoked=[asdict(key) for key in revoked],
    )


if __name__ == "__main__":
    main()
