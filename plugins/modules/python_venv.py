#!/usr/bin/python
"""Ansible module: a Python package in a virtual environment below /opt."""

DOCUMENTATION = r"""
module: python_venv
short_description: Install one version of a Python package in its own environment beside the others
version_added: "0.1.0"
description:
  - Makes C(/opt/NAME/VERSION-DIGEST/) with all that a file of requirements names, each wheel checked by its hash, and
    moves the link C(/opt/NAME/current) to it. Nothing is compiled on the host, and nothing installed that is not named.
  - What runs is untouched until the new environment is whole. The one before it is kept behind the link C(previous).
options:
  version:
    description: The version of the package. Required unless O(state=absent).
    type: str
  package:
    description: The package as the index names it; O(name) by default.
    type: str
  requirements:
    description: The file of requirements on the host. Required unless O(state=absent).
    type: path
  pythons:
    description: Interpreters to choose from; the first that the host has, with its C(venv), is taken.
    type: list
    elements: str
    default: [python3]
  otherwise:
    description: What else can be done on a host that has none of them; told with the error.
    type: str
    default: ""
  index:
    description: Where packages come from, as pip takes it; empty for what pip is configured with on the host.
    type: str
    default: ""
extends_documentation_fragment: rackllama.llm.release
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Install Open WebUI
  rackllama.llm.python_venv:
    name: open_webui
    package: open-webui
    version: 0.12.4
    requirements: /etc/rackllama/requirements/open_webui.txt
    pythons: [python3.12, python3.11]
"""

RETURN = r"""
steps:
  description: What was done, in order.
  type: list
  elements: str
  returned: always
  sample: [unpack 0.12.4-1a2b3c4d, activate 0.12.4-1a2b3c4d]
sha256:
  description: The sha256 of the requirements; empty where they are not there yet, in check mode.
  type: str
  returned: always
folder:
  description: The folder of this version.
  type: str
  returned: always
home:
  description: The folder of all versions.
  type: str
  returned: always
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import working_on
from ansible_collections.rackllama.llm.plugins.module_utils.services import python_venv, release_module


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **release_module.ARGUMENTS,
            "package": {"type": "str"},
            "requirements": {"type": "path"},
            "pythons": {"type": "list", "elements": "str", "default": ["python3"]},
            "otherwise": {"type": "str", "default": ""},
            "index": {"type": "str", "default": "", "no_log": True},  # may hold a password
        },
        required_if=release_module.required("version", "requirements"),
        supports_check_mode=True,
    )
    given = module.params
    with working_on(module, given["name"]):
        wanted = None if given["state"] == "absent" else wanted_venv(given, module.check_mode)
        result = release_module.settle(module, wanted and wanted.release, lambda: python_venv.build(wanted))
        module.exit_json(**result)


def wanted_venv(given: dict[str, Any], check_mode: bool) -> python_venv.WantedVenv:
    requirements = Path(given["requirements"])
    return python_venv.WantedVenv(
        name=given["name"],
        version=given["version"],
        package=f"{given['package'] or given['name']}=={given['version']}",
        requirements=requirements,
        sha256=python_venv.digest_of(requirements, may_be_missing=check_mode),
        pythons=tuple(given["pythons"]),
        otherwise=given["otherwise"],
        index=given["index"],
        root=Path(given["root"]),
    )


if __name__ == "__main__":
    main()
