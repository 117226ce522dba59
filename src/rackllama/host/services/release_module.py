"""What the modules that install releases share: their arguments, and doing what `state` asks for."""

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..module import difference
from ..proxies import behind
from .release import WantedRelease, carry_out, installed_releases, plan, remove

ARGUMENTS: Dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "version": {"type": "str"},
    "proxy_env": {"type": "dict", "default": {}, "no_log": True},
    "root": {"type": "path", "default": "/opt"},
    "state": {"type": "str", "choices": ["present", "current", "absent"], "default": "current"},
}


def required(*names: str, one_of: bool = False) -> List[Tuple[Any, ...]]:
    """What Ansible's `required_if` takes where these, or with `one_of` one of them, are needed unless `absent`."""
    return [("state", state, names, one_of) for state in ("present", "current")]


def settle(
    module: Any, wanted: Optional[WantedRelease], install: Optional[Callable[[], None]] = None
) -> Dict[str, Any]:
    """Do what the module's state asks for, but for check mode; gives what the module returns.

    `wanted` is None where nothing is to be left. `install` puts the version there where it is no archive.
    """
    state, home = module.params["state"], Path(module.params["root"]) / module.params["name"]
    installed = installed_releases(home)
    if wanted is None:
        after, steps = None, ["remove"] if home.exists() else []
        if steps and not module.check_mode:
            remove(home)
    else:
        planned = plan(wanted, installed, activate=state == "current")
        after = wanted.version if state == "current" else installed.current
        steps = [f"{step.action} {step.version}" for step in planned]
        with behind(module.params["proxy_env"]):
            if not module.check_mode:
                carry_out(wanted, installed, planned, install)
    return {
        "changed": bool(steps),
        "steps": steps,
        "sha256": wanted.sha256 if wanted else "",
        "home": str(home),
        "folder": f"{home}/{wanted.version}" if wanted else "",
        "diff": difference([str(installed.current)], [str(after)], header=f"{home}/current"),
    }
