"""Action of `rackllama.llm.boot`: log in and look until the host is ready, or its time is up."""

from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "rackllama.llm.boot"
display = Display()


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            from rackllama.host.errors import RackllamaError  # noqa: PLC0415 - a shim must load to say what is missing
            from rackllama.provision.waiting import HostWait  # noqa: PLC0415
        except ImportError as error:
            raise AnsibleActionFail(f"{MODULE} needs the Python package rackllama: pip install it") from error
        variables = task_vars or {}
        try:
            wait = HostWait.of(variables.get("inventory_hostname", ""), self._task.args, display.display)
            waited, notes = wait.until_ready(lambda first: self._look(variables, reset=not first))
        except RackllamaError as error:
            raise AnsibleActionFail(str(error)) from error
        return {"changed": False, "waited_seconds": round(waited, 1), "notes": list(notes)}

    def _look(self, variables: dict[str, Any], *, reset: bool) -> dict[str, Any]:
        """What the module finds; `{"unreachable": why}` where the connection fails."""
        if reset:
            # A connection that was kept open may be to a host that is no more, and Python may be found elsewhere now.
            if self._discovered_interpreter_key:
                variables["ansible_facts"].pop(self._discovered_interpreter_key, None)
            self._connection.reset()
        try:
            found: dict[str, Any] = self._execute_module(MODULE, dict(self._task.args), task_vars=variables)
        except AnsibleError as error:
            return {"unreachable": str(error)}
        return found
