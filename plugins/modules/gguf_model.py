#!/usr/bin/python
"""Ansible module: a GGUF model that Ollama serves."""

DOCUMENTATION = r"""
module: gguf_model
short_description: Land a GGUF model on the host, each byte written once, and serve it with Ollama
version_added: "0.1.0"
description:
  - Writes the model's job and starts C(rackllama-land@SLUG), the unit that lands its shards as one verified file,
    makes it a blob of Ollama and creates the model from it. The unit goes on when the play is gone, and after a reboot.
  - A model that is there as declared is neither fetched nor read again; one that is being landed is waited for.
  - The action plugin of the same name asks again until the unit ends, and shows how far it is.
options:
  slug:
    description: The model's own name on this host, for its job, its unit and its Modelfile.
    type: str
    required: true
  name:
    description: The name that Ollama serves it under.
    type: str
    required: true
  shards:
    description: Its files, in order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The file's name.
        type: str
        required: true
      sources:
        description: Where it is, in order of preference - addresses, or paths on the host.
        type: list
        elements: str
        required: true
      sha256:
        description: Its sha256, from the lock.
        type: str
        required: true
      size:
        description: Its size in bytes.
        type: int
  sha256:
    description: The sha256 of the landed file, where it is known; landing is faster then.
    type: str
  template:
    description: The prompt template; empty leaves the GGUF's own.
    type: str
    default: ""
  system:
    description: The system prompt.
    type: str
    default: ""
  licence:
    description: The licence's text or name.
    type: str
    default: ""
  renderer:
    description: The prompt renderer that is built into Ollama; empty for none.
    type: str
    default: ""
  parser:
    description: The output parser that is built into Ollama; empty for none.
    type: str
    default: ""
  reasoning:
    description: Whether it is a model that thinks before it answers, which is then tried.
    type: bool
    default: false
  tried:
    description:
      - Whether a new model, or one with new settings, is asked a question, to show that its chat template is its own.
    type: bool
    default: true
  parameters:
    description: Parameters as a Modelfile takes them.
    type: dict
    default: {}
  ollama_url:
    description: Where Ollama listens on this host.
    type: str
    default: http://127.0.0.1:11434
  store:
    description: The folder that its OLLAMA_MODELS names.
    type: path
    default: /var/lib/ollama/models
  link:
    description: Another name for the landed file, on the same file system, for other engines.
    type: path
  reserve_gib:
    description: What must stay free on the file system of O(store).
    type: float
    default: 1
  connections:
    description: How many connections fetch at the same time.
    type: int
    default: 8
  rate_limit_mib_per_second:
    description: The most to fetch in a second; 0 for no limit.
    type: float
    default: 0
  wait_seconds:
    description: How long to wait for the unit; it is asked again by the action plugin.
    type: float
    default: 10
  start:
    description: Whether to start the unit where something is to do. Otherwise one that works is waited for.
    type: bool
    default: true
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: Shows the job and the Modelfile before and after, and the steps.
"""

EXAMPLES = r"""
- name: Serve Gemma
  rackllama.llm.gguf_model:
    slug: gemma3-270m-q4-k-m
    name: gemma3-270m:q4_k_m
    shards: "{{ shards }}"
    parameters: {num_ctx: 4096}
"""

RETURN = r"""
steps:
  description: What is done to the model, in order - C(land), C(create), C(try), C(link).
  type: list
  elements: str
  returned: always
landing:
  description: Whether the unit still works.
  type: bool
  returned: always
progress:
  description: How far it is, in one line.
  type: str
  returned: while the unit works
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.lander.progress import progress_text
from ansible_collections.rackllama.llm.plugins.module_utils.models import landing_unit
from ansible_collections.rackllama.llm.plugins.module_utils.models.model import wanted_model
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, failing_clearly, working_on

SHARD = {
    "name": {"type": "str", "required": True},
    "sources": {"type": "list", "elements": "str", "required": True},
    "sha256": {"type": "str", "required": True},
    "size": {"type": "int"},
}

LEAST = {"connections": 1, "reserve_gib": 0, "rate_limit_mib_per_second": 0, "wait_seconds": 0}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "slug": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "shards": {"type": "list", "elements": "dict", "required": True, "options": SHARD},
            "sha256": {"type": "str"},
            "template": {"type": "str", "default": ""},
            "system": {"type": "str", "default": ""},
            "licence": {"type": "str", "default": ""},
            "renderer": {"type": "str", "default": ""},
            "parser": {"type": "str", "default": ""},
            "reasoning": {"type": "bool", "default": False},
            "tried": {"type": "bool", "default": True},
            "parameters": {"type": "dict", "default": {}},
            "ollama_url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "store": {"type": "path", "default": "/var/lib/ollama/models"},
            "link": {"type": "path"},
            "reserve_gib": {"type": "float", "default": 1},
            "connections": {"type": "int", "default": 8},
            "rate_limit_mib_per_second": {"type": "float", "default": 0},
            "wait_seconds": {"type": "float", "default": 10},
            "start": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    for name, least in LEAST.items():
        if module.params[name] < least:
            module.fail_json(msg=f"{name} is {module.params[name]}, and {least} is the least")
    job = dict(module.params)
    wait_seconds, may_start = job.pop("wait_seconds"), job.pop("start")
    with failing_clearly(module, job["slug"]):
        wanted = wanted_model(job)
    link = Path(job["link"]) if job["link"] else None
    landing, told = False, None
    with working_on(module, wanted.slug):
        files = landing_unit.changed_files(wanted, job)
        steps = landing_unit.needed(wanted, link)
        if not module.check_mode:
            if may_start and files:
                # What runs has another job. Stopped before the new one is written, it never ends with a stale one.
                landing_unit.stop(wanted.slug)
                landing_unit.write(files, wanted, link)
                steps = landing_unit.needed(wanted, link)
            works = steps not in ([], ["link"])
            if may_start and works and not landing_unit.is_running(wanted.slug):
                landing_unit.start(wanted.slug)
            if works:
                landing_unit.wait(wanted.slug, wait_seconds)
                landing = landing_unit.is_running(wanted.slug)
            if landing:
                told = landing_unit.progress(wanted.slug)
            else:
                landing_unit.require_served(wanted)
                if link and "link" in steps:
                    landing_unit.link_weights(wanted, link)
    module.exit_json(
        changed=bool(steps or files),
        steps=steps,
        landing=landing,
        progress=progress_text(told, wanted.name) if told else f"{wanted.name}: beginning",
        diff=[*(file.diff() for file in files), difference([], steps, header=wanted.name)],
    )


if __name__ == "__main__":
    main()
