"""The inventory plugin, by Ansible's own programs, on a stack that an engine has brought up."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .engine.harness import Stack

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "programs" / "described"
TOKEN = "hunter2-of-the-inventory"
PLUGIN: dict[str, Any] = {
    "plugin": "rackllama.llm.pulumi_stack",
    "strict": True,
    "keyed_groups": [
        {"prefix": "zone", "key": "rackllama_host.labels.zone"},
        {"prefix": "type", "key": "rackllama_host.labels.instance_type"},
    ],
    "groups": {"h100": "'H100-80GB' in rackllama_host.gpus"},
    "compose": {"gpu_count": "rackllama_host.gpus | length"},
}


@dataclass(frozen=True)
class Inventory:
    """A file for the plugin beside a stack's project, and what Ansible makes of it."""

    stack: Stack
    file: Path

    def configure(self, **options: Any) -> None:
        project = f"../{self.stack.folder.name}"
        told = {**PLUGIN, "project": project, "stack": self.stack.name, **options}
        self.file.write_text(yaml.safe_dump({name: value for name, value in told.items() if value is not None}))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("ansible-inventory"), "-i", self.file, *arguments],
            cwd=ROOT,
            env={**self.stack.environment, "XDG_STATE_HOME": str(self.file.parent / "own"), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def listed(self, *arguments: str, **environment: str) -> dict[str, Any]:
        done = self.run("--list", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def refusal(self, **environment: str) -> str:
        done = self.run("--list", **environment)
        assert done.returncode != 0, done.stdout
        return " ".join(done.stderr.split())


@pytest.fixture
def inventory(stacks: Callable[..., Stack], tmp_path: Path) -> Inventory:
    """An inventory of a stack that is not up yet."""
    stack = stacks(PROGRAM)
    stack.config_set("token", TOKEN, secret=True)
    (stack.folder.parent / "inventory").mkdir()
    inventory = Inventory(stack, stack.folder.parent / "inventory" / "aws.pulumi.yml")
    inventory.configure()
    return inventory


def test_hosts_are_listed_in_the_groups_of_their_roles_and_labels(inventory: Inventory) -> None:
    assert inventory.stack.up().ok
    listed = inventory.listed()
    assert listed["serving"]["hosts"] == ["gpu1", "gpu2"]
    assert listed["gateway"]["hosts"] == ["gpu1"]
    assert listed["zone_us_east_1b"]["hosts"] == ["gpu2"]
    assert listed["type_p5_48xlarge"]["hosts"] == listed["h100"]["hosts"] == ["gpu1", "gpu2"]
    assert {"webui", "mirror"} <= set(listed["all"]["children"])
    first, second = (listed["_meta"]["hostvars"][name] for name in ("gpu1", "gpu2"))
    assert (first["ansible_host"], first["ansible_user"], first["gpu_count"]) == ("10.0.1.1", "ubuntu", 8)
    assert "aws ssm start-session --target i-0a2 --region us-east-1" in second["ansible_ssh_common_args"]
    shown = inventory.run("--graph", "-vvvv")
    assert "@gateway:\n  |  |--gpu1" in shown.stdout
    assert TOKEN not in json.dumps(listed) + shown.stdout + shown.stderr


def test_a_stack_that_is_not_up_says_so_and_how_to_bring_it_up(inventory: Inventory) -> None:
    inventory.stack.config_set("broken", True)
    assert not inventory.stack.up().ok
    refusal = inventory.refusal()
    assert "exports nothing: it was never brought up, its first `up` failed, or it was destroyed" in refusal
    assert "Remedy: run: pulumi up" in refusal


def test_the_environment_names_a_stack_and_one_that_there_is_not_is_told(inventory: Inventory) -> None:
    inventory.configure(stack=None)
    assert "there is no stack nope of" in inventory.refusal(RACKLLAMA_STACK="nope")


def test_a_cache_is_used_only_where_it_is_asked_for_and_says_so(inventory: Inventory) -> None:
    folder = inventory.file.parent / "cache"
    inventory.configure(cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection=str(folder))
    assert inventory.stack.up().ok
    assert inventory.listed()["serving"]["hosts"] == ["gpu1", "gpu2"]
    assert inventory.stack.destroy().ok
    again = inventory.run("--list")
    assert json.loads(again.stdout)["serving"]["hosts"] == ["gpu1", "gpu2"]
    assert "from the cache" in " ".join(again.stderr.split())
    assert TOKEN not in "".join(path.read_text() for path in folder.iterdir())
    assert "or it was destroyed" in " ".join(inventory.run("--list", "--flush-cache").stderr.split())
