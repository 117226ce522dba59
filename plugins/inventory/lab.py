DOCUMENTATION = """
name: lab
short_description: hosts of a lab on this machine
description: Puts the hosts that C(rackllama lab start) made into the groups of their roles; for files named C(lab.yml).
options:
  plugin: {description: names this plugin, required: true, choices: [rackllama.llm.lab]}
  lab: {description: name of the lab, default: lab, env: [{name: RACKLLAMA_LAB}]}
"""
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin


class InventoryModule(BaseInventoryPlugin):
    NAME = "rackllama.llm.lab"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith("lab.yml")

    def parse(self, inventory, loader, path, cache=True) -> None:  # noqa: ANN001 - Ansible's own
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            from rackllama.host.errors import RackllamaError  # noqa: PLC0415 - a shim must load to say what is missing
            from rackllama.lab.inventory import lab_groups  # noqa: PLC0415
        except ImportError as error:
            raise AnsibleParserError("rackllama.llm.lab needs the Python package rackllama: pip install it") from error
        try:
            lab_groups(self.get_option("lab")).add_to(inventory)
        except RackllamaError as error:
            raise AnsibleParserError(str(error)) from error
