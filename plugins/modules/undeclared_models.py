#!/usr/bin/python
"""Ansible module: models that were landed on the host and are no longer declared."""

DOCUMENTATION = r"""
module: undeclared_models
short_description: Report the models of a host that are no longer declared, or remove them
version_added: "0.1.0"
description:
  - Looks at the jobs that M(rackllama.llm.gguf_model) has written on the host. Models that others have put into Ollama
    are never touched.
options:
  declared:
    description: The slugs of the models that are declared for the host.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(reported) warns of each, V(absent) removes them with their weights, unless another model has those too.
    type: str
    choices: [reported, absent]
    default: reported
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be removed and changes nothing.
  diff_mode:
    support: full
    description: Shows the names of the models before and after.
"""

EXAMPLES = r"""
- name: Remove what is no longer declared
  rackllama.llm.undeclared_models:
    declared: [gemma3-270m-q4-k-m]
    state: absent
"""

RETURN = r"""
undeclared:
  description: The names of the models that are there and not declared, as the engine serves them.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.models import landing_unit
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "declared": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["reported", "absent"], "default": "reported"},
        },
        supports_check_mode=True,
    )
    declared, remove = module.params["declared"], module.params["state"] == "absent"
    jobs = landing_unit.jobs()
    undeclared = {slug: job for slug, job in jobs.items() if slug not in declared}
    for slug, job in undeclared.items():
        with working_on(module, slug):
            if remove and not module.check_mode:
                landing_unit.remove(slug, job)
            elif not remove:
                module.warn(f"{job['name']} is on this host and no longer declared")
    names = [job["name"] for job in jobs.values()]
    kept = [job["name"] for slug, job in jobs.items() if slug in declared]
    module.exit_json(
        changed=remove and bool(undeclared),
        undeclared=[job["name"] for job in undeclared.values()],
        diff=difference(names, kept if remove else names, header="models"),
    )


if __name__ == "__main__":
    main()
