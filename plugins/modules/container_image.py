#!/usr/bin/python
"""Ansible module: the files of a container image below /opt."""

DOCUMENTATION = r"""
module: container_image
short_description: Install a container image beside the other versions of a program, for a unit of systemd to run
version_added: "0.1.0"
description:
  - Lets podman or docker get an image by its digest, unpacks it to C(/opt/NAME/VERSION-DIGEST/root) and moves the link
    C(/opt/NAME/current) to it. No container is run; the engine keeps the image only if it had it.
  - What runs is untouched until the new version is whole. The one before it is kept behind the link C(previous).
  - What is unpacked belongs to root and can be read by all, without set-user-id bits and device nodes.
options:
  version:
    description: The version of the program in the image. Required unless O(state=absent).
    type: str
  image:
    description:
      - C(REGISTRY/NAME@sha256:DIGEST); a tag before the digest is for people. Required unless O(state=absent).
      - Registries, proxies and credentials are those that the engine is configured with, as by C(podman login).
    type: str
extends_documentation_fragment: rackllama.llm.release
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Install the image of Open WebUI
  rackllama.llm.container_image:
    name: open_webui
    version: 0.12.4
    image: "registry.example.com/open-webui@sha256:{{ digest }}"
"""

RETURN = r"""
steps:
  description: What was done, in order.
  type: list
  elements: str
  returned: always
  sample: [unpack 0.12.4-1a2b3c4d, activate 0.12.4-1a2b3c4d]
sha256:
  description: The digest of the image.
  type: str
  returned: always
folder:
  description: The folder of this version; its files lie in C(root) there.
  type: str
  returned: always
home:
  description: The folder of all versions.
  type: str
  returned: always
service:
  description: Directives of the section C([Service]) that run it. In check mode its command may not be known yet.
  type: dict
  returned: unless O(state=absent)
environment:
  description: The image's own environment.
  type: dict
  returned: unless O(state=absent)
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import working_on
from ansible_collections.rackllama.llm.plugins.module_utils.services import container_image, release_module


def main() -> None:
    module = AnsibleModule(
        argument_spec={**release_module.ARGUMENTS, "image": {"type": "str"}},
        required_if=release_module.required("version", "image"),
        supports_check_mode=True,
    )
    given = module.params
    with working_on(module, given["name"]):
        if given["state"] == "absent":
            module.exit_json(**release_module.settle(module, None))
        wanted = container_image.WantedImage(
            given["name"], given["version"], container_image.parse_reference(given["image"]), Path(given["root"])
        )
        result = release_module.settle(module, wanted.release, lambda: container_image.install(wanted))
        module.exit_json(**result, **container_image.service(Path(result["folder"])))


if __name__ == "__main__":
    main()
