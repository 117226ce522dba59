#!/usr/bin/python
"""Ansible module: the plans of a host's models, as files on it."""

DOCUMENTATION = r"""
module: model_plan_files
short_description: Have the plans of models on the host they were made for
version_added: "0.1.0"
description:
  - Writes each plan to C(/etc/rackllama/plans/SLUG.json), by which C(playbooks/verify.yml) compares what was planned
    with what the engine holds. A plan goes with its model, by M(rackllama.llm.undeclared_models).
options:
  plans:
    description: The plans by slug, as M(rackllama.llm.model_plans) makes them.
    type: dict
    required: true
  slugs:
    description: The models of this host; one without a plan is to have no file.
    type: list
    elements: str
    required: true
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be written and changes nothing.
  diff_mode:
    support: full
    description: Shows each file before and after.
"""

EXAMPLES = r"""
- name: Write what was planned
  rackllama.llm.model_plan_files:
    plans: "{{ ansible_facts.rackllama_plans.plans }}"
    slugs: [gemma3-270m-q4-k-m]
"""

RETURN = r"""
written:
  description: The files that differed.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.models import plan_files
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "plans": {"type": "dict", "required": True},
            "slugs": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    wanted = {slug: module.params["plans"].get(slug) for slug in module.params["slugs"]}
    with working_on(module, "plans"):
        files = plan_files.changed(wanted)
        if not module.check_mode:
            plan_files.write(files)
    module.exit_json(
        changed=bool(files),
        written=[str(path) for path in files],
        diff=[
            difference(before.splitlines(), after.splitlines(), str(path)) for path, (before, after) in files.items()
        ],
    )


if __name__ == "__main__":
    main()
