#!/usr/bin/python
"""Ansible module: Open WebUI, asked by its own API."""

DOCUMENTATION = r"""
module: open_webui
short_description: See that Open WebUI is closed to strangers and reaches its engines
version_added: "0.1.0"
description:
  - Signs in on the host as the declared admin, and fails where anybody could sign up, where an engine is not reached
    from the side of Open WebUI, or where a declared model is not listed. One without an account is stopped at once.
  - Installs the filter that opens the thinking tag, for the models that need it, and removes it where none does.
options:
  url:
    description: Where it listens on the host.
    type: str
    default: http://127.0.0.1:8080
  version:
    description: The version that it must say it is; empty for any.
    type: str
    default: ""
  email:
    description: The admin's account.
    type: str
    required: true
  password_file:
    description: The file on the host that holds the admin's password.
    type: path
    required: true
  engines:
    description: The engines that speak Ollama's API, in the order in which it was given them.
    type: list
    elements: str
    default: []
  openai_urls:
    description: The engines that speak OpenAI's API, likewise.
    type: list
    elements: str
    default: []
  models:
    description: The models that it must list.
    type: list
    elements: str
    default: []
  reasoning_models:
    description: Those of them that think.
    type: list
    elements: str
    default: []
  think_filter:
    description: The source of the filter, with C(MODELS = ()) in a line of its own.
    type: str
    required: true
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be done to the filter and changes nothing; asks nothing of one that does not run yet.
  diff_mode:
    support: full
    description: Shows what is done to the filter.
"""

EXAMPLES = r"""
- name: See that Open WebUI works
  rackllama.llm.open_webui:
    email: admin@localhost
    password_file: /etc/rackllama/secrets/open_webui.admin-password
    engines: [http://127.0.0.1:11434]
    models: ["gemma3-270m:q4_k_m"]
    think_filter: "{{ lookup('ansible.builtin.file', 'open_think_tag.py') }}"
"""

RETURN = r"""
models:
  description: The models that it lists.
  type: list
  elements: str
  returned: always
filtered:
  description: The models that the filter is on for.
  type: list
  elements: str
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils import systemd
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.services.secret_file import read_secret
from ansible_collections.rackllama.llm.plugins.module_utils.webui import open_webui

UNIT = "open_webui.service"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:8080"},
            "version": {"type": "str", "default": ""},
            "email": {"type": "str", "required": True},
            "password_file": {"type": "path", "required": True, "no_log": False},
            "engines": {"type": "list", "elements": "str", "default": []},
            "openai_urls": {"type": "list", "elements": "str", "default": []},
            "models": {"type": "list", "elements": "str", "default": []},
            "reasoning_models": {"type": "list", "elements": "str", "default": []},
            "think_filter": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    with working_on(module, "open_webui"):
        if module.check_mode and not systemd.unit_state(UNIT).active:
            module.exit_json(changed=False, models=[], filtered=[])
        wanted = open_webui.Wanted(
            url=given["url"],
            email=given["email"],
            password=read_secret(Path(given["password_file"])),
            engines=tuple(given["engines"]),
            models=tuple(given["models"]),
            openai_urls=tuple(given["openai_urls"]),
            version=given["version"],
        )
        try:
            session = open_webui.sign_in(wanted)
        except open_webui.StrangerError:
            if not module.check_mode:
                systemd.run("systemctl", "stop", UNIT)
            raise
        listed = open_webui.check_engines(session, wanted)
        filtered = open_webui.dropping_models(given["reasoning_models"], wanted.engines)
        source = open_webui.filter_source(given["think_filter"], filtered)
        steps = open_webui.filter_steps(source, open_webui.found_filter(session))
        if not module.check_mode:
            open_webui.carry_out(session, source, steps)
    module.exit_json(
        changed=bool(steps),
        models=listed,
        filtered=filtered,
        diff=difference([], [f"{step} the filter" for step in steps], header=open_webui.FILTER),
    )


if __name__ == "__main__":
    main()
