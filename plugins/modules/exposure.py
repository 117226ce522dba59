#!/usr/bin/python
"""Ansible module: what of another host can be reached from this one."""

DOCUMENTATION = r"""
module: exposure
short_description: Try, from this host, what of another one can be reached
version_added: "0.1.0"
description:
  - Runs on a host other than the one in question. Connects to every TCP port that listens there, or to all there are,
    at each of its addresses, and sends a datagram to every UDP port that listens to others.
  - Changes nothing; fails where something answers that is not expected, where a loopback port answers, where a gateway
    lets somebody in without a key, and where nothing answers at all, as that would prove nothing.
  - A UDP port that stays silent counts as closed, although it may only have nothing to say.
options:
  host:
    description: The name of the host in question, for the report.
    type: str
    required: true
  addresses:
    description: Its names and addresses.
    type: list
    elements: str
    required: true
  sockets:
    description: What listens there, as M(rackllama.llm.listening_sockets) gives it.
    type: list
    elements: dict
    required: true
  expected_ports:
    description: The ports that may answer.
    type: list
    elements: int
    default: []
  gateway_ports:
    description: Those of them that are a gateway's, and must turn away who has no key.
    type: list
    elements: int
    default: []
  all_ports:
    description: Whether all TCP ports from 1 to 65535 are tried.
    type: bool
    default: false
  connections:
    description: How many are tried at a time.
    type: int
    default: 500
  timeout_seconds:
    description: How long to wait for an answer.
    type: float
    default: 3
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Try from gpu2 what of gpu1 can be reached
  rackllama.llm.exposure:
    host: gpu1
    addresses: [192.0.2.11]
    sockets: "{{ listening.sockets }}"
    expected_ports: [22, 443]
  delegate_to: gpu2
"""

RETURN = r"""
report:
  description: The host's name and the checks, each with C(id), C(ok), C(wanted), C(found) and C(remedy).
  type: dict
  returned: always
words:
  description: The same for people, line by line.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import exit_with_report, failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.network import exposure
from ansible_collections.rackllama.llm.plugins.module_utils.report import Check, report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "addresses": {"type": "list", "elements": "str", "required": True},
            "sockets": {"type": "list", "elements": "dict", "required": True},
            "expected_ports": {"type": "list", "elements": "int", "default": []},
            "gateway_ports": {"type": "list", "elements": "int", "default": []},
            "all_ports": {"type": "bool", "default": False},
            "connections": {"type": "int", "default": 500},
            "timeout_seconds": {"type": "float", "default": 3},
        },
        supports_check_mode=True,
    )
    given = module.params
    sockets = exposure.from_data(given["sockets"])
    with failing_clearly(module, "exposure"):
        effort = exposure.Effort(given["all_ports"], given["connections"], given["timeout_seconds"])
        found = exposure.probe(given["host"], given["addresses"], sockets, effort)
        checks = exposure.checks(found, sockets, {*given["expected_ports"], *given["gateway_ports"]})
        for port in given["gateway_ports"]:
            checks += exposure.gateway_checks(found, port)
        if not given["gateway_ports"]:
            checks.append(Check("gateway", True, "401 without a key", "not tried: none is declared on this host"))
    exit_with_report(module, "exposure", report(given["host"], checks))


if __name__ == "__main__":
    main()
