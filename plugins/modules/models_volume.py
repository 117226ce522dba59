#!/usr/bin/python
"""Ansible module: the file system for models on disks of its own."""

DOCUMENTATION = r"""
module: models_volume
short_description: Have a file system for models on given disks, or on the instance store
version_added: "0.1.0"
description:
  - Several disks become one RAID 0. The file system is mounted by its label, now and at each boot.
  - A disk that holds anything is not touched unless its serial is in O(overwrite_serials), and one in use never is.
    Blank is a disk without any signature that reads as zeros wherever it is looked at.
  - What is there as declared is left alone, however it was made. Another file system, label or set of disks than is
    there is an error, not a reason to make it anew.
options:
  disks:
    description: The disks, by path, best below C(/dev/disk/by-id); none for no volume.
    type: list
    elements: str
    default: []
  instance_store:
    description: Take the NVMe disks that the cloud wipes when it stops the machine, all of them.
    type: bool
    default: false
  mount_dir:
    description: Where it is mounted.
    type: str
    default: /srv/models
  filesystem:
    description: What is made.
    type: str
    choices: [xfs, ext4]
    default: xfs
  label:
    description: Its label.
    type: str
    default: rackllama
  overwrite_serials:
    description: Disks whose data may go, by serial; a disk without one by its path in O(disks).
    type: list
    elements: str
    default: []
  rebuilt_at_boot:
    description: Make it anew at a boot that finds all disks there and all blank.
    type: bool
    default: false
  read_ahead_kib:
    description: How far the kernel reads ahead on it; as it is where left out.
    type: int
  directories:
    description: Folders on it that are made again with it at boot.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder; one elsewhere is passed over.
        type: str
        required: true
      owner:
        description: The user it belongs to.
        type: str
        required: true
  python:
    description: The interpreter that runs rackllama's program on the host at boot.
    type: path
    default: /usr/bin/python3
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: Shows the steps, and the files before and after.
"""

EXAMPLES = r"""
- name: Keep the models on two disks
  rackllama.llm.models_volume:
    disks: [/dev/disk/by-id/nvme-A_0001, /dev/disk/by-id/nvme-A_0002]
"""

RETURN = r"""
steps:
  description: What was done, or would be, in words.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.module import working_on
from ansible_collections.rackllama.llm.plugins.module_utils.storage import declaration, volume

DIRECTORY = {"path": {"type": "str", "required": True}, "owner": {"type": "str", "required": True}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "disks": {"type": "list", "elements": "str", "default": []},
            "instance_store": {"type": "bool", "default": False},
            "mount_dir": {"type": "str", "default": "/srv/models"},
            "filesystem": {"type": "str", "choices": ["xfs", "ext4"], "default": "xfs"},
            "label": {"type": "str", "default": "rackllama"},
            "overwrite_serials": {"type": "list", "elements": "str", "default": []},
            "rebuilt_at_boot": {"type": "bool", "default": False},
            "read_ahead_kib": {"type": "int"},
            "directories": {"type": "list", "elements": "dict", "default": [], "options": DIRECTORY},
            "python": {"type": "path", "default": "/usr/bin/python3"},
        },
        supports_check_mode=True,
    )
    with working_on(module, "models_volume"):
        wanted = declaration.wanted_volume(module.params)
        change = volume.change(wanted, module.params["python"])
        if change and not module.check_mode:
            change.carry_out()
    said = {} if wanted.is_declared else {"msg": "no disk is declared for models: nothing is done"}
    module.exit_json(changed=bool(change), steps=change.words, diff=change.diff(), **said)


if __name__ == "__main__":
    main()
