#!/usr/bin/python
"""Ansible module: what listens on a host."""

DOCUMENTATION = r"""
module: listening_sockets
short_description: Tell what listens on a host, TCP and UDP, and at which addresses others may find it
version_added: "0.1.0"
description:
  - Reads the kernel's own tables, for IPv4 and IPv6. As root, it names the program that holds each socket.
options: {}
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Learn what listens
  rackllama.llm.listening_sockets:
"""

RETURN = r"""
sockets:
  description: Each with C(protocol), C(address), C(port), C(program) and C(is_loopback).
  type: list
  elements: dict
  returned: always
addresses:
  description: The host's addresses, without loopback and the bridges to its containers.
  type: list
  elements: str
  returned: always
ssh_ports:
  description: The ports of SSH, as it listens and as it is configured.
  type: list
  elements: int
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.network import exposure, ssh


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    with failing_clearly(module, "listening sockets"):
        found = {
            "sockets": exposure.as_data(exposure.listening()),
            "addresses": exposure.addresses(),
            "ssh_ports": ssh.ports(),
        }
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
