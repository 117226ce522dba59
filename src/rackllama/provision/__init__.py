"""Where hosts come from, and how their makers describe them to Ansible."""
