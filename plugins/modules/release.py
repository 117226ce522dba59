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
extends_documentation_fragment: rackllama.llm.release
author: The rackllama maintainers
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
sha256:
  description: The sha256 of the archive.
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import working_on
from ansible_collections.rackllama.llm.plugins.module_utils.services import release_module
from ansible_collections.rackllama.llm.plugins.module_utils.services.release import WantedRelease


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **release_module.ARGUMENTS,
            "url": {"type": "str"},
            "content": {"type": "str", "no_log": True},  # too long to be shown
            "sha256": {"type": "str"},
            "size": {"type": "int"},
            "strip": {"type": "int", "default": 0},
        },
        required_if=[
            *release_module.required("version", "sha256"),
            *release_module.required("url", "content", one_of=True),
        ],
        mutually_exclusive=[("url", "content")],
        supports_check_mode=True,
    )
    given = dict(module.params)
    wanted = None
    del given["proxy_env"]
    if given.pop("state") != "absent":
        wanted = WantedRelease(**{**given, "root": Path(given["root"])})
    with working_on(module, given["name"]):
        module.exit_json(**release_module.settle(module, wanted))


if __name__ == "__main__":
    main()
