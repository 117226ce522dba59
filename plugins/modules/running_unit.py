#!/usr/bin/python
"""Ansible module: a service runs as declared and answers."""

DOCUMENTATION = r"""
module: running_unit
short_description: Bring a service to run what its files declare, and wait until it answers
version_added: "0.1.0"
description:
  - Compares the environment of the running process with what M(rackllama.llm.unit) declared on this host, restarts
    the service only where they differ, and waits for its health check. A failure shows the journal.
  - Where no restart is needed, but files that a reload reads have changed since they were read, reloads it.
options:
  name:
    description: The service.
    type: str
    required: true
  state:
    description: V(healthy) runs and answers, V(stopped) does not run.
    type: str
    choices: [healthy, stopped]
    default: healthy
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says why it would restart or reload and changes nothing.
  diff_mode:
    support: full
    description: Shows the reasons for a restart or reload.
"""

EXAMPLES = r"""
- name: Run Ollama as declared
  rackllama.llm.running_unit:
    name: ollama
"""

RETURN = r"""
reasons:
  description: Why it was restarted or reloaded; empty where nothing was to do.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils import systemd
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.services import running


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["healthy", "stopped"], "default": "healthy"},
        },
        supports_check_mode=True,
    )
    name, state = module.params["name"], module.params["state"]
    with working_on(module, name):
        if state == "stopped":
            reasons = ["it runs"] if systemd.unit_state(f"{name}.service").active else []
            if reasons and not module.check_mode:
                systemd.run("systemctl", "stop", f"{name}.service")
        else:
            reasons = running.reasons_to_restart(name)
            if reasons and not module.check_mode:
                running.restart_until_healthy(name)
            unread = [] if reasons else running.reasons_to_reload(name)
            if unread and not module.check_mode:
                running.reload_until_read(name)
            reasons += unread
    module.exit_json(changed=bool(reasons), reasons=reasons, diff=difference([], reasons, header=f"{name}.service"))


if __name__ == "__main__":
    main()
