"""What is documented alike of all modules that install releases."""


class ModuleDocFragment:
    """Merged into a module's documentation by C(extends_documentation_fragment)."""

    DOCUMENTATION = r"""
options:
  name:
    description: The program; its versions lie in C(root)/C(name).
    type: str
    required: true
  proxy_env:
    description: C(http_proxy), C(https_proxy) and C(no_proxy) to fetch by. Passwords in them are shown nowhere.
    type: dict
    default: {}
  root:
    description: The folder below which all programs are installed.
    type: path
    default: /opt
  state:
    description:
      - V(current) installs and activates, V(present) only installs beside what is current, V(absent) removes all.
    type: str
    choices: [present, current, absent]
    default: current
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: Shows the version before and after.
"""
