"""What is documented alike of all modules that only look."""


class ModuleDocFragment:
    """Merged into a module's documentation by C(extends_documentation_fragment)."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: The module never changes anything.
  diff_mode:
    support: none
    description: There is nothing to show.
"""
