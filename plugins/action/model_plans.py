"""Action of `rackllama.llm.model_plans`: the controller's part, which is to plan."""

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "rackllama.llm.model_plans"
display = Display()


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            from rackllama.host.errors import RackllamaError  # noqa: PLC0415 - a shim must load to say what is missing
            from rackllama.planning.playbook import SitePlanner  # noqa: PLC0415
        except ImportError as error:
            raise AnsibleActionFail(f"{MODULE} needs the Python package rackllama: pip install it") from error
        host = (task_vars or {}).get("inventory_hostname", "")
        try:
            planner = SitePlanner(host, self._task.args)
            if planner.plans_nothing:
                answer = planner.nothing()
            else:
                asked = {**self._task.args, "unread": planner.unread()}
                found = self._execute_module(MODULE, asked, task_vars=task_vars)
                if found.get("failed"):
                    return found
                answer = planner.answer(found["hardware"], found["headers"])
        except RackllamaError as error:
            raise AnsibleActionFail(str(error)) from error
        for words in answer.pop("shown"):
            display.display(f"{host}: {words}")
        return answer
