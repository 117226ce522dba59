"""Reading a tree of roles and playbooks, as the rules need it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.playbook.block import Block
from ansible.playbook.role_include import IncludeRole
from ansible.playbook.task import Task

KEYWORDS = {*Task.fattributes, *Block.fattributes, *IncludeRole.fattributes, "action", "local_action"}
ROLE_CALLS = ("include_role", "import_role")
OURS = "rackllama.llm."


def read(path: Path) -> Any:
    """The YAML document; None where there is no such file."""
    return yaml.safe_load(path.read_text("utf-8")) if path.exists() else None


def roles(root: Path) -> list[Path]:
    return sorted(folder for folder in root.glob("roles/*") if folder.is_dir())


def playbooks(root: Path) -> list[Path]:
    return sorted([*root.glob("playbooks/*.yml"), *root.glob("molecule/*/*.yml")])


def steps_of_role(role: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every task, block and handler of a role, with its file."""
    for path in sorted([*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")]):
        yield from ((path, step) for step in flattened(read(path)))


def steps_of_play(play: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for section in ("pre_tasks", "tasks", "post_tasks", "handlers"):
        yield from flattened(play.get(section))


def every_step(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every task, block and handler of all roles and playbooks, with its file."""
    for role in roles(root):
        yield from steps_of_role(role)
    for path in playbooks(root):
        yield from ((path, step) for play in plays(path) for step in steps_of_play(play))


def plays(path: Path) -> list[dict[str, Any]]:
    document = read(path)
    return document if isinstance(document, list) else []


def flattened(steps: list[dict[str, Any]] | None) -> Iterator[dict[str, Any]]:
    """Tasks and blocks, a block before what is in it."""
    for step in steps or []:
        yield step
        for section in ("block", "rescue", "always"):
            yield from flattened(step.get(section))


def action(step: dict[str, Any]) -> str | None:
    """The name of the module that a task calls; None for a block."""
    if "block" in step:
        return None
    named = [key for key in step if key not in KEYWORDS and not key.startswith("with_")]
    return named[0] if named else "action"


def called_role(step: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments of an include_role or import_role; None where a step is neither."""
    name = action(step) or ""
    return step[name] if name.split(".")[-1] in ROLE_CALLS else None


def strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string within YAML data, with the key it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from strings(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, key)
    elif isinstance(value, str):
        yield key, value
