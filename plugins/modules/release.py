#!/usr/bin/python
"""Ansible module: a versioned installation below /opt."""

DOCUMENTATION = r"""
module: release
short_description: Install one version of a program beside the others and point C(current) to it
version_added: "0.1.0"
description:
  - Fetches an archive, checks its sha256, unpacks it to C(/opt/NAME/VERSION/) and moves the link
    C(/opt/NAME/current) to it.
  - What runs is untouched until the new version is whole. The version before it is kept behind the link C(previous).
options:
  name:
    description: The program; its versions lie in C(root)/C(name).
    type: str
    required: true
  version:
    description: The version. Required unless O(state=absent).
    type: str
  url:
    description: Where the archive is (C(http), C(https) or C(file)).
    type: str
  content:
    description: The archive itself, a tar in base64, where it comes from the controller.
    type: str
  sha256:
    description: The archive's sha256 in hexadecimal, from the lock.
    type: str
  size:
    description: The archive's size in bytes, so that a full disk is told before the first byte.
    type: int
  strip:
    description: How many leading folders of the archive's paths to drop.
    type: int
    default: 0
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
- name: Install Ollama
  rackllama.llm.release:
    name: ollama
    version: 0.33.0
    url: https://github.com/ollama/ollama/releases/download/v0.33.0/ollama-linux-amd64.tar.zst
    sha256: "{{ checksum }}"
"""

RETURN = r"""
steps:
  description: What was done, in order.
  type: list
  elements: str
  returned: always
  sample: [unpack 0.33.0, activate 0.33.0]
home:
  description: The folder of all versions.
  type: str
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils import release
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.proxies import behind


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str"},
            "url": {"type": "str"},
            "content": {"type": "str", "no_log": True},  # too long to be shown
            "sha256": {"type": "str"},
            "size": {"type": "int"},
            "strip": {"type": "int", "default": 0},
            "proxy_env": {"type": "dict", "default": {}, "no_log": True},
            "root": {"type": "path", "default": "/opt"},
            "state": {"type": "str", "choices": ["present", "current", "absent"], "default": "current"},
        },
        required_if=[
            *(("state", state, ("version", "sha256")) for state in ("present", "current")),
            *(("state", state, ("url", "content"), True) for state in ("present", "current")),
        ],
        mutually_exclusive=[("url", "content")],
        supports_check_mode=True,
    )
    given = dict(module.params)
    state, home = given.pop("state"), Path(given["root"]) / given["name"]
    proxies = given.pop("proxy_env")
    with working_on(module, given["name"]), behind(proxies):
        installed = release.installed_releases(home)
        if state == "absent":
            steps = ["remove"] if home.exists() else []
            if steps and not module.check_mode:
                release.remove(home)
        else:
            wanted = release.WantedRelease(**{**given, "root": Path(given["root"])})
            planned = release.plan(wanted, installed, activate=state == "current")
            steps = [f"{step.action} {step.version}" for step in planned]
            if not module.check_mode:
                release.carry_out(wanted, installed, planned)
    after = {"present": installed.current, "current": given["version"], "absent": None}[state]
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        home=str(home),
        diff=difference([str(installed.current)], [str(after)], header=f"{home}/current"),
    )


if __name__ == "__main__":
    main()
