"""Action of `rackllama.llm.gguf_model`: ask the module until the landing ends, and show how far it is."""

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "rackllama.llm.gguf_model"
display = Display()


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "")
        # A short wait first, so that whoever meets a landing under way is told at once.
        first = found = self._execute_module(MODULE, {**self._task.args, "wait_seconds": 3}, task_vars=task_vars)
        while found.get("landing") and not found.get("failed"):
            display.display(f"{host}: {found['progress']}")
            # The unit works on the host: whatever happens here, it goes on, and the next play waits for it again.
            found = self._execute_module(MODULE, {**self._task.args, "start": False}, task_vars=task_vars)
        return found if found.get("failed") else {**first, "landing": False}
