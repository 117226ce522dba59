DOCUMENTATION = """
name: pulumi_stack
short_description: hosts that a Pulumi stack made
description: Puts the hosts that a stack exports into the groups of their roles; for files named C(*.pulumi.yml).
extends_documentation_fragment: [rackllama.llm.pulumi_stack, constructed, inventory_cache]
"""
from pathlib import Path

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "rackllama.llm.pulumi_stack"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith((".pulumi.yml", ".pulumi.yaml"))

    def parse(self, inventory, loader, path, cache=True) -> None:  # noqa: ANN001 - Ansible's own
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            from rackllama.provision.stack_inventory import parse_into  # noqa: PLC0415 - else it could not say so
        except ImportError as error:
            raise AnsibleParserError("rackllama.llm.pulumi_stack needs the Python package rackllama") from error
        for host, told in parse_into(self, Path(path), may_be_cached=cache).items():
            self._set_composite_vars(self.get_option("compose"), told, host, self.get_option("strict"))
            self._add_host_to_composed_groups(self.get_option("groups"), {}, host, self.get_option("strict"))
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), {}, host, self.get_option("strict"))
