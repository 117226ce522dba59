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
  name:
    description: The program; its versions lie in C(root)/C(name).
    type: str
    required: true
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
  index:
    description: Where packages come from, as pip takes it; empty for what pip is configured with on the host.
    type: str
    default: ""
  proxy_env:
    description: C(http_proxy), C(https_proxy) and C(no_proxy) to fetch by. Passwords in them are shown nowhere.
    type: dict
    default: {}
  root:
    description: The folder below which all programs are installed.
    type: path
    default: /opt
  state:
    description:
      - V(current) installs and activates, V(present) only installs beside what is current, V(absent) removes all.
    type: str
    choices: [present, current, absent]
    default: current
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: Shows the version before and after.
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
home:
  description: The folder of all versions.
  type: str
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils import python_venv, release
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.proxies import behind


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str"},
            "package": {"type": "str"},
            "requirements": {"type": "path"},
            "pythons": {"type": "list", "elements": "str", "default": ["python3"]},
            "index": {"type": "str", "default": "", "no_log": True},  # may hold a password
            "proxy_env": {"type": "dict", "default": {}, "no_log": True},
            "root": {"type": "path", "default": "/opt"},
            "state": {"type": "str", "choices": ["present", "current", "absent"], "default": "current"},
        },
        required_if=[("state", state, ("version", "requirements")) for state in ("present", "current")],
        supports_check_mode=True,
    )
    given = module.params
    name, state, home = given["name"], given["state"], Path(given["root"]) / given["name"]
    sha256 = ""
    with working_on(module, name), behind(given["proxy_env"]):
        installed = python_venv.installed_venvs(home)
        if state == "absent":
            after, steps = None, ["remove"] if home.exists() else []
            if steps and not module.check_mode:
                release.remove(home)
        else:
            sha256 = python_venv.digest_of(Path(given["requirements"]), may_be_missing=module.check_mode)
            wanted = python_venv.WantedVenv(
                name=name,
                version=given["version"],
                package=f"{given['package'] or name}=={given['version']}",
                requirements=Path(given["requirements"]),
                sha256=sha256,
                pythons=tuple(given["pythons"]),
                index=given["index"],
                root=Path(given["root"]),
            )
            planned = release.plan(wanted.release, installed, activate=state == "current")
            after = wanted.release.version if state == "current" else installed.current
            steps = [f"{step.action} {step.version}" for step in planned]
            if not module.check_mode:
                python_venv.carry_out(wanted, installed, planned)
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        sha256=sha256,
        home=str(home),
        diff=difference([str(installed.current)], [str(after)], header=f"{home}/current"),
    )


if __name__ == "__main__":
    main()
