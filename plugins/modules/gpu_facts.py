#!/usr/bin/python
"""Ansible module: what hardware a host has, GPUs above all."""

DOCUMENTATION = r"""
module: gpu_facts
short_description: Tell what hardware a host has, GPUs above all, with a driver and without
version_added: "0.1.0"
description:
  - GPUs and NVSwitches are found on the PCI bus, so that they are known before there is a driver; memory, compute
    capability, links, ECC, MIG and health come from C(nvidia-smi) where it answers. Why it does not is told as well.
  - Tells memory and its modules, NUMA nodes, disks and the network too. Changes nothing.
options:
  measure:
    description: Read each disk for two seconds, past the page cache, to tell its rate.
    type: bool
    default: false
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: See what there is
  rackllama.llm.gpu_facts:

- name: Refuse a host without GPUs
  ansible.builtin.assert:
    that: ansible_facts.rackllama_hardware.gpus | length > 0
    fail_msg: "{{ inventory_hostname }} has no GPU"
"""

RETURN = r"""
ansible_facts:
  description: What there is, as C(rackllama_hardware).
  type: dict
  returned: always
  contains:
    rackllama_hardware:
      description: >-
        GPUs in the order of their addresses, the driver, NVSwitches, memory in MiB, NUMA nodes, disks in bytes and
        MB/s, and the fastest network in MB/s. What cannot be told is null.
      type: dict
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.hardware.description import describe
from ansible_collections.rackllama.llm.plugins.module_utils.module import failing_clearly


def main() -> None:
    module = AnsibleModule(argument_spec={"measure": {"type": "bool", "default": False}}, supports_check_mode=True)
    with failing_clearly(module, "gpu_facts"):
        hardware = describe(module.params["measure"])
    module.exit_json(changed=False, ansible_facts={"rackllama_hardware": hardware})


if __name__ == "__main__":
    main()
