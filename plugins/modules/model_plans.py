#!/usr/bin/python
"""Ansible module: the plans of the models that a host is to serve."""

DOCUMENTATION = r"""
module: model_plans
short_description: Plan for each model where its layers go on a host, before anything is downloaded
version_added: "0.1.0"
description:
  - The host tells its hardware and reads the headers of the models' shards, in ranges, from where it would land them.
    The controller keeps those headers, so that each is read once, and plans.
  - Fails where a model does not fit, unless O(mode=advisory); says by how much, and the nearest change that fits.
  - The plans are facts, by which roles set all that was not set otherwise.
options:
  mode:
    description:
      - V(enforced) fails where a model does not fit or cannot be planned, V(advisory) warns, and V(none) plans nothing.
    type: str
    choices: [enforced, advisory, none]
    default: enforced
  models:
    description: The models to serve, as filter P(rackllama.llm.models#filter) gives them.
    type: list
    elements: dict
    required: true
  parallel:
    description: How many requests a model answers at a time; unless given, the most that a model declares.
    type: int
  kv_cache_type:
    description: The type of the KV cache.
    type: str
    default: f16
  flash_attention:
    description: Whether flash attention is used.
    type: bool
    default: true
  extra_env:
    description: The environment that the engine is given beyond that; C(LLAMA_ARG_N_CPU_MOE) in it is planned with.
    type: dict
    default: {}
  reserve:
    description:
      - MiB to leave alone - C(host_mib) of the host's memory, and on each GPU C(margin_mib) and C(context_mib).
    type: dict
    default: {}
  hub_token:
    description: The token for gated models of Hugging Face.
    type: str
    default: ""
  source_env:
    description: What sources of one's own need, such as C(AWS_ACCESS_KEY_ID) for S3.
    type: dict
    default: {}
  proxy_env:
    description: C(http_proxy), C(https_proxy) and C(no_proxy) for whoever fetches.
    type: dict
    default: {}
  models_dir:
    description: Where the engine keeps models.
    type: path
    default: /var/lib/ollama/models
  unread:
    description: The slugs of the models whose headers to read; the controller's part sets it.
    type: list
    elements: str
    default: []
extends_documentation_fragment: rackllama.llm.changes_nothing
author: The rackllama maintainers
"""

EXAMPLES = r"""
- name: Plan what is declared
  rackllama.llm.model_plans:
    models: "{{ rackllama_models | rackllama.llm.models(host=inventory_hostname, groups=group_names) }}"
"""

RETURN = r"""
ansible_facts:
  description: What was planned, as C(rackllama_plans).
  type: dict
  returned: always
  contains:
    rackllama_plans:
      description: >-
        C(plans) by slug, C(parameters) for each model's Modelfile by slug, the C(environment) for the engine, and
        how many C(gpus) there are. Empty with O(mode=none).
      type: dict
      returned: always
report:
  description: The host's name and the checks, each with C(id), C(ok), C(wanted), C(found) and C(remedy).
  type: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.hardware.description import describe
from ansible_collections.rackllama.llm.plugins.module_utils.models.model import wanted_model
from ansible_collections.rackllama.llm.plugins.module_utils.models.packed_headers import packed_headers
from ansible_collections.rackllama.llm.plugins.module_utils.module import failing_clearly
from ansible_collections.rackllama.llm.plugins.module_utils.program import tokens_from
from ansible_collections.rackllama.llm.plugins.module_utils.proxies import behind

SHORTEST_SECRET = 16


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "mode": {"type": "str", "choices": ["enforced", "advisory", "none"], "default": "enforced"},
            "models": {"type": "list", "elements": "dict", "required": True},
            "parallel": {"type": "int"},
            "kv_cache_type": {"type": "str", "default": "f16"},
            "flash_attention": {"type": "bool", "default": True},
            "extra_env": {"type": "dict", "default": {}},
            "reserve": {"type": "dict", "default": {}},
            "hub_token": {"type": "str", "default": "", "no_log": True},
            "source_env": {"type": "dict", "default": {}, "no_log": True},
            "proxy_env": {"type": "dict", "default": {}, "no_log": True},
            "models_dir": {"type": "path", "default": "/var/lib/ollama/models"},
            "unread": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    unread = [model for model in given["models"] if model["slug"] in given["unread"]]
    with failing_clearly(module, "plan"):
        hardware = describe()
        with behind({**given["proxy_env"], **given["source_env"]}):
            tokens = tokens_from({"HF_TOKEN": given["hub_token"]})
            wanted = [wanted_model({**model, "store": given["models_dir"]}) for model in unread]
            headers = {model.slug: packed_headers(model, tokens) for model in wanted}
    # What is masked in the answer would be masked in headers too: no secret is as short as a region or a number.
    module.no_log_values = {value for value in module.no_log_values if len(value) >= SHORTEST_SECRET}
    module.exit_json(changed=False, hardware=hardware, headers=headers)


if __name__ == "__main__":
    main()
