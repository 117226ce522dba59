#!/usr/bin/python
"""Ansible module: a GGUF model that Ollama serves."""

DOCUMENTATION = r"""
module: gguf_model
short_description: Land a GGUF model on the host and create it in Ollama with its Modelfile
version_added: "0.1.0"
description:
  - Fetches the model's shards, checks the sha256 of each, merges them and creates the model through Ollama's API.
  - A model that is there as declared is neither fetched nor read again.
options:
  slug:
    description: The model's own name on this host, for its record and its Modelfile.
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
      url:
        description: Where it is.
        type: str
        required: true
      sha256:
        description: Its sha256, from the lock.
        type: str
        required: true
      size:
        description: Its size in bytes.
        type: int
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
  parameters:
    description: Parameters as a Modelfile takes them.
    type: dict
    default: {}
  ollama_url:
    description: Where Ollama listens on this host.
    type: str
    default: http://127.0.0.1:11434
  staging_dir:
    description: Where shards are kept until the model is created.
    type: path
    default: /var/lib/rackllama/staging
  merge_tool:
    description: Upstream's C(llama-gguf-split).
    type: path
    default: /opt/llama_cpp/current/llama-gguf-split
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: Shows the Modelfile before and after, and the steps.
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
  description: What was done to the model, in order.
  type: list
  elements: str
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils import model
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on
from ansible_collections.rackllama.llm.plugins.module_utils.ollama import Ollama

SHARD = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "sha256": {"type": "str", "required": True},
    "size": {"type": "int"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "slug": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "shards": {"type": "list", "elements": "dict", "required": True, "options": SHARD},
            "template": {"type": "str", "default": ""},
            "system": {"type": "str", "default": ""},
            "licence": {"type": "str", "default": ""},
            "parameters": {"type": "dict", "default": {}},
            "ollama_url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "staging_dir": {"type": "path", "default": "/var/lib/rackllama/staging"},
            "merge_tool": {"type": "path", "default": "/opt/llama_cpp/current/llama-gguf-split"},
        },
        supports_check_mode=True,
    )
    given = module.params
    wanted = model.wanted_model(given)
    server = Ollama(given["ollama_url"])
    with working_on(module, wanted.slug):
        steps = model.plan(wanted, model.found_model(wanted, server, may_be_absent=module.check_mode))
        rewritten = model.modelfile_change(wanted)
        if not module.check_mode:
            if steps:
                model.land(wanted, steps, server, Path(given["staging_dir"]), Path(given["merge_tool"]))
            if rewritten:
                model.write_modelfile(wanted)
    module.exit_json(
        changed=bool(steps or rewritten),
        steps=steps,
        diff=[*rewritten, difference([], steps, header=wanted.name)],
    )


if __name__ == "__main__":
    main()
