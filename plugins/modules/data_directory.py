#!/usr/bin/python
"""Ansible module: a directory that a service can really reach."""

DOCUMENTATION = r"""
module: data_directory
short_description: Create a directory owned by a service, below parents that the service can pass through
version_added: "0.1.0"
description:
  - Creates the directory with owner and mode, on whatever file system its path leads to.
  - Fails, naming the folder, where a parent is closed to the service's user; a parent's mode is never changed.
options:
  path:
    description: The directory.
    type: path
    required: true
  owner:
    description: The user whose it is; the group is the user's own.
    type: str
    required: true
  mode:
    description: The mode, in octal digits.
    type: str
    default: "0750"
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be changed and changes nothing.
  diff_mode:
    support: full
    description: Shows owner and mode before and after.
"""

EXAMPLES = r"""
- name: Keep the models on the second disk
  rackllama.llm.data_directory:
    path: /srv/models
    owner: ollama
"""

RETURN = r"""# the common values only"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.services import directories


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0750"},
        },
        supports_check_mode=True,
    )
    path, owner, mode = Path(module.params["path"]), module.params["owner"], int(module.params["mode"], 8)
    with working_on(module, path.name):
        found = directories.access(path)
        before = [f"{found.uid}:{found.gid} {found.mode:04o}"] if found else []
        after = [f"{directories.owner_of(owner, may_be_missing=module.check_mode)} {mode:04o}"]
        if not module.check_mode:
            if before != after:
                directories.settle(path, owner, mode)
            directories.require_open_parents(path, owner)
    module.exit_json(changed=before != after, diff=difference(before, after, header=str(path)))


if __name__ == "__main__":
    main()
