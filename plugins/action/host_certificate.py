"""Action of `rackllama.llm.host_certificate`: the controller's part, which is to sign what a host requests."""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MODULE = "rackllama.llm.host_certificate"


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        given = {name: value for name, value in self._task.args.items() if value}
        if given.get("certificate"):
            return self._execute_module(MODULE, given, task_vars=task_vars)
        try:
            from rackllama.gateway.signing import Signing  # noqa: PLC0415 - a shim must load to say what is missing
            from rackllama.host.errors import RackllamaError  # noqa: PLC0415
        except ImportError as error:
            raise AnsibleActionFail(f"{MODULE} needs the Python package rackllama: pip install it") from error
        found = self._execute_module(MODULE, given, task_vars=task_vars)
        if found.get("failed"):
            return found
        try:
            signing = Signing(Path(given["ca_dir"]).expanduser(), given["names"], int(given.get("renewal_days", 30)))
            reasons = signing.reasons(found["present"])
            shown = {**given, "reasons": reasons}
            if self._task.check_mode:
                return self._execute_module(MODULE, shown, task_vars=task_vars)
            answer = {**shown, "ca_certificate": signing.authority_pem()}
            if reasons:
                asked = self._execute_module(MODULE, {**given, "requested": True}, task_vars=task_vars)
                if asked.get("failed"):
                    return asked
                answer["signed"] = signing.sign(asked["request"])
            return self._execute_module(MODULE, answer, task_vars=task_vars)
        except RackllamaError as error:
            raise AnsibleActionFail(str(error)) from error
