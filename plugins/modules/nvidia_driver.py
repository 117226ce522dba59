#!/usr/bin/python
"""Ansible module: a GPU driver of one exact version, from NVIDIA's packages or runfile."""

DOCUMENTATION = r"""
module: nvidia_driver
short_description: Bring a host's GPU driver to one version, so that it can be taken back
version_added: "0.1.0"
description:
  - Locks the packages of the driver, of its libraries and of the fabric manager to one version, changes them in one
    transaction, and sees that the running kernel and the next boot's have the module.
  - A driver of the right version that others have installed is left as it is.
  - Where a step fails, the packages of before come back, and the error says how the host stands.
options:
  branch:
    description: The branch of the driver.
    type: str
    default: "580"
  version:
    description: The version of that branch; empty for the one that is installed by default.
    type: str
    default: ""
  kernel_modules:
    description: The kind of kernel modules; by default the open ones where they drive all GPUs.
    type: str
    choices: [open, proprietary]
  runfile:
    description: The runfile to install from instead of packages, as filter C(rackllama.llm.artefact) gives it.
    type: dict
    default: {}
  container_toolkit:
    description: Whether containers on this host use its GPUs.
    type: bool
    default: false
extends_documentation_fragment: rackllama.llm.fetches
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Install the driver
  rackllama.llm.nvidia_driver:
    version: 580.126.20
"""

RETURN = r"""
version:
  description: The version.
  type: str
  returned: always
steps:
  description: What was done, in words.
  type: list
  elements: str
  returned: always
reboot_needed:
  description: Whether the version runs only after a boot.
  type: bool
  returned: always
stopped:
  description: The services that were stopped, as they used the GPUs.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.driver import runfile, surgery
from ansible_collections.rackllama.llm.plugins.module_utils.driver.state import read_state
from ansible_collections.rackllama.llm.plugins.module_utils.driver.wanted import PACKAGES, RUNFILE, WantedDriver
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.proxies import behind


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "branch": {"type": "str", "default": "580"},
            "version": {"type": "str", "default": ""},
            "kernel_modules": {"type": "str", "choices": ["open", "proprietary"]},
            "runfile": {"type": "dict", "default": {}},
            "container_toolkit": {"type": "bool", "default": False},
            "proxy_env": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    with working_on(module, "nvidia_driver"), behind(given["proxy_env"]):
        wanted = WantedDriver(
            branch=given["branch"],
            version=given["version"],
            source=RUNFILE if given["runfile"] else PACKAGES,
            modules=given["kernel_modules"],
            container_toolkit=given["container_toolkit"],
        )
        state, locked = read_state(), given["runfile"]
        if state.was_cut_off and not locked and not module.check_mode:
            surgery.finish_what_was_cut_off(state)
            state = read_state()
        done = runfile.plan(state, wanted) if locked else surgery.plan_here(state, wanted, module.check_mode)
        if done and not module.check_mode:
            if locked:
                runfile.carry_out(done, state, runfile.Runfile(locked["url"], locked["sha256"], locked["size"]))
            else:
                surgery.carry_out(done, state)
        reboot_needed = surgery.reboot_is_needed(
            state, wanted.exact_version, replaces_modules=not locked and done.replaces_modules
        )
        loads = state.loaded_version is None and not reboot_needed
        if loads and not module.check_mode:
            surgery.load(wanted.exact_version)
    module.exit_json(
        changed=bool(done) or loads,
        version=wanted.exact_version,
        steps=done.words(),
        reboot_needed=reboot_needed,
        stopped=list(done.stop),
        diff=difference([state.loaded_version or "none"], [wanted.exact_version, *done.words()], "GPU driver"),
    )


if __name__ == "__main__":
    main()
