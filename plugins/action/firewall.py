"""Action of `rackllama.llm.firewall`: try new rules, and keep them only if a new SSH connection still gets through."""

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

MODULE = "rackllama.llm.firewall"
SSH = ("ssh", "paramiko_ssh", "paramiko", "libssh")
MARGIN_SECONDS = 15
PAUSE_SECONDS = 1


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        if self._connection.transport.rpartition(".")[2] not in SSH:
            return self._module("apply", task_vars)
        deadline = time.monotonic() + int(self._task.args.get("rollback_seconds", 60)) + MARGIN_SECONDS
        try:
            tried = self._module("try", task_vars)
            if not tried.get("tried") or tried.get("failed"):
                return tried
            self._connection.reset()  # the one that is there gets through in any case
            confirmed = self._module("confirm", task_vars)
        except AnsibleConnectionFailure as error:
            return self._locked_out(error, deadline, task_vars)
        return confirmed if confirmed.get("failed") else {**tried, "tried": False}

    def _module(self, step: str, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(MODULE, {**self._task.args, "step": step}, task_vars=task_vars)
        return found

    def _locked_out(self, error: Exception, deadline: float, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Wait until the host can be reached again, which proves that the former rules are back."""
        host = (task_vars or {}).get("inventory_hostname", "")
        while True:
            try:
                self._connection.reset()
                self._execute_module("ansible.builtin.ping", {}, task_vars=task_vars)
            except AnsibleConnectionFailure:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                break
        remedy = (
            "name the network that the controller comes from in firewall_ssh_sources, or in rules of the site's own"
        )
        return {
            "failed": True,
            "remedy": remedy,
            "msg": f"firewall on {host}: the new rules do not let in a new SSH connection, and the former ones are "
            f"back: {error}\n  remedy: {remedy}",
        }
