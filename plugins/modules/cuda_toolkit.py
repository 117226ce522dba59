#!/usr/bin/python
"""Ansible module: CUDA's toolkit of one version, from NVIDIA's packages."""

DOCUMENTATION = r"""
module: cuda_toolkit
short_description: Install CUDA's toolkit beside others, and see that it compiles
version_added: "0.1.0"
description:
  - Installs the toolkit without a driver, tells login shells and units where it is, and checks the compiler; where
    there is a GPU, a program is compiled and run on each when it was just installed.
  - Fails before anything is changed where the toolkit's headers clash with the host's C library.
options:
  version:
    description: The version, as V(12.8.1).
    type: str
    required: true
extends_documentation_fragment: rackllama.llm.fetches
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Install CUDA's toolkit
  rackllama.llm.cuda_toolkit:
    version: 12.8.1
"""

RETURN = r"""
home:
  description: Where it lies.
  type: str
  returned: always
seen:
  description: What was seen of the compiler, and of GPUs.
  type: str
  returned: when not in check mode
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.driver import archive, config_files, cuda
from ansible_collections.rackllama.llm.plugins.module_utils.driver.managers import manager, naming_here
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.proxies import behind


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "proxy_env": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    toolkit, seen = cuda.Toolkit(given["version"]), ""
    with working_on(module, "cuda_toolkit"), behind(given["proxy_env"]):
        packager = manager(naming_here())
        packages, files = cuda.plan(toolkit, packager, any(path.exists() for path in archive.SOURCES))
        if not module.check_mode:
            packager.change(packages)
            config_files.write(files)
            seen = cuda.verify(toolkit, try_it=bool(packages))
    after = [*(f"{name} {version}" for name, version in packages.install.items()), *map(str, files)]
    module.exit_json(
        changed=bool(packages or files), home=str(toolkit.home), seen=seen, diff=difference([], after, "CUDA's toolkit")
    )


if __name__ == "__main__":
    main()
