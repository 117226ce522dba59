#!/usr/bin/python
"""Ansible module: NVIDIA's package archive as a source of a host's packages."""

DOCUMENTATION = r"""
module: nvidia_archive
short_description: Take packages from NVIDIA's archive, trusted by the fingerprint of its key
version_added: "0.1.0"
description:
  - Fetches the key that signs the archive, compares its fingerprint with the one that is known, and names the archive
    to apt or dnf with this key alone.
  - Where the archive cannot be read then, what was there before comes back.
options:
  url:
    description: Where a copy of the archive is, with the folders of all distributions below it; empty for upstream.
    type: str
    default: ""
  fingerprint:
    description: The fingerprint of the key that signs it, where that is not NVIDIA's own. 40 hexadecimal digits.
    type: str
    default: ""
  mirror:
    description: A mirror of everything to fetch from instead of upstream; empty for upstream.
    type: str
    default: ""
extends_documentation_fragment: rackllama.llm.fetches
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Take packages from NVIDIA's archive
  rackllama.llm.nvidia_archive:
"""

RETURN = r"""
url:
  description: Where the archive is.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.driver import archive, config_files
from ansible_collections.rackllama.llm.plugins.module_utils.driver.managers import manager
from ansible_collections.rackllama.llm.plugins.module_utils.errors import RackllamaError
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.proxies import behind


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": ""},
            "fingerprint": {"type": "str", "default": ""},
            "mirror": {"type": "str", "default": ""},
            "proxy_env": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    with working_on(module, "nvidia_archive"), behind(given["proxy_env"]):
        source = archive.source_here(archive.Copy(given["url"], given["fingerprint"], given["mirror"]))
        before = config_files.texts([source.key_path, source.path])
        key = archive.trusted_key(source, before[source.key_path]) or archive.fetch_key(source.key_url)
        change = config_files.different(archive.wanted_files(source, key))
        if change and not module.check_mode:
            try:
                config_files.write(change)
                manager(source.naming).refresh(of_nvidia=True)
            except RackllamaError:
                config_files.write(before)
                raise
    diff = difference(before[source.path].splitlines(), source.text.splitlines(), str(source.path))
    module.exit_json(changed=bool(change), url=source.url, diff=diff)


if __name__ == "__main__":
    main()
