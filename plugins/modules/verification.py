#!/usr/bin/python
"""Ansible module: verify what is deployed on a host."""

DOCUMENTATION = r"""
module: verification
short_description: Verify that a host runs what was declared
version_added: "0.1.0"
description:
  - The driver has every GPU that is on the PCI bus, of one version with its libraries and its fabric manager, as module
    M(rackllama.llm.gpu_health) tells.
  - For every service declared on the host - the running process has the declared environment, it answers, its sandbox
    scores within its limit, its ports are open to the host alone.
  - For the volume that models are declared to lie on - it is mounted, and is the declared one.
  - For every model - it is the one that was landed, its chat template fits its vocabulary, and it answers; see
    docs/templates.md.
  - For every model with a plan - once loaded, it takes what was planned, see docs/planning-in-the-playbook.md.
  - Changes nothing; fails where a check does.
options:
  models:
    description: The names of the models that ought to be served.
    type: list
    elements: str
    default: []
  reasoning_models:
    description: Those of them that must think before they answer.
    type: list
    elements: str
    default: []
  ollama_url:
    description: Where Ollama listens on this host.
    type: str
    default: http://127.0.0.1:11434
  scrubbed_store:
    description:
      - An OLLAMA_MODELS whose blobs are all read and hashed, to find what a disk has damaged. It takes a while.
    type: path
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Verify this host
  rackllama.llm.verification:
    models: [gemma3-270m:q4_k_m]
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

import platform
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.driver.health import settled_checks
from ansible_collections.rackllama.llm.plugins.module_utils.models import scrub
from ansible_collections.rackllama.llm.plugins.module_utils.module import exit_with_report, failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.report import report
from ansible_collections.rackllama.llm.plugins.module_utils.services import verification
from ansible_collections.rackllama.llm.plugins.module_utils.storage.checks import volume_checks


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "models": {"type": "list", "elements": "str", "default": []},
            "reasoning_models": {"type": "list", "elements": "str", "default": []},
            "ollama_url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "scrubbed_store": {"type": "path"},
        },
        supports_check_mode=True,
    )
    with failing_clearly(module, "verification"):
        checks = [*settled_checks(), *volume_checks(), *verification.service_checks()]
        if module.params["scrubbed_store"]:  # before a model is asked, and with it what is damaged
            checks += scrub.blob_checks(Path(module.params["scrubbed_store"]))
        if module.params["models"]:
            checks += verification.model_checks(
                module.params["models"], module.params["ollama_url"], module.params["reasoning_models"]
            )
    exit_with_report(module, "verification", report(platform.node(), checks))


if __name__ == "__main__":
    main()
