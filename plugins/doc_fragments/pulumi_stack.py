"""The options of `rackllama.llm.pulumi_stack`, apart from what it shares with other inventory plugins."""


class ModuleDocFragment:
    """Merged into the plugin's documentation by C(extends_documentation_fragment)."""

    DOCUMENTATION = r"""
options:
  plugin:
    description: Names this plugin.
    required: true
    choices: [rackllama.llm.pulumi_stack]
  project:
    description: The folder with the C(Pulumi.yaml), relative to this file.
    type: str
    required: true
  stack:
    description: The name of the stack; the one that C(pulumi stack select) has chosen, where none is given.
    type: str
    default: ""
    env: [{name: RACKLLAMA_STACK}]
  timeout_seconds:
    description: How long Pulumi's command line may take to tell what a stack exports.
    type: float
    default: 60
notes:
  - What a stack tells of a host is its variable C(rackllama_host), with C(labels), C(gpus), C(via) and C(console).
  - Secrets are not read. Hosts are kept in a cache only where O(cache) says so, and each use of it is told.
"""
