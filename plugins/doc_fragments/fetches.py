"""What is documented alike of all modules that change a host by what they fetch."""


class ModuleDocFragment:
    """Merged into a module's documentation by C(extends_documentation_fragment)."""

    DOCUMENTATION = r"""
options:
  proxy_env:
    description: C(http_proxy), C(https_proxy) and C(no_proxy) to fetch by. Passwords in them are shown nowhere.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Says what would be done and changes nothing.
  diff_mode:
    support: full
    description: Shows what changes.
"""
