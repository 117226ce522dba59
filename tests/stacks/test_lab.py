"""The stack `lab` on real containers: made, left alone, put right after others meddled, and destroyed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackllama.lab import hosts
from rackllama.lab.podman import podman
from rackllama.lab.up import CHECKOUT, stop_lab
from rackllama.provision.pulumi_cli import find_pulumi
from rackllama.provision.stacks import Stack, bring_up

from .engine.harness import new_stack

LAB = "stacka"


@pytest.fixture(scope="module")
def stack(engine, tmp_path_factory) -> Iterator[Stack]:
    """The stack, not yet up, configured for a lab of two hosts."""
    stop_lab(LAB)  # what a killed run left
    made = new_stack(CHECKOUT / "stacks" / "lab", tmp_path_factory.mktemp("stack"), engine, {}, "test")
    made.config_set("lab", LAB)
    made.config_set("hosts", 2)
    yield Stack(made.folder, made.name, find_pulumi(made.environment), made.environment)
    stop_lab(LAB)


def containers():
    """The lab's containers and their states, as podman knows them."""
    return {host.name: host.state for host in hosts.lab_hosts(LAB)}


def made():
    """What changes with any host that is made anew."""
    return podman("ps", "--all", "--no-trunc", f"--filter=label=rackllama.lab={LAB}", "--format={{.ID}}").split()


def refresh(stack):
    ended = stack.stream("refresh", "--yes", "--skip-preview")
    assert ended.code == 0, ended.said


def ansible(stack, program, *arguments):
    """Run a program of Ansible's on the hosts that the stack exports, and give what it says."""
    inventory = stack.folder / "lab.pulumi.yml"
    inventory.write_text(f"plugin: rackllama.llm.pulumi_stack\nproject: {stack.folder}\n")
    variables = stack.folder / "group_vars"
    if not variables.exists():
        variables.symlink_to(CHECKOUT / "inventories" / "lab_stack" / "group_vars")
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), "-i", str(inventory), *arguments],
        cwd=CHECKOUT,
        env={**stack.environment, "RACKLLAMA_STACK": stack.name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_up_gives_hosts_that_playbooks_run_on(stack):
    bring_up(stack)

    assert containers() == {"stacka1": "running", "stacka2": "running"}
    waited = ansible(stack, "ansible-playbook", "playbooks/wait.yml")
    depot = ansible(stack, "ansible", "all", "-m", "ansible.builtin.uri", "-a", "url={{ rackllama_mirror }}/.depot")
    assert [
        host for host in ("stacka1", "stacka2") if f"{host} " not in waited or f"{host} | SUCCESS" not in depot
    ] == []


def test_up_again_changes_nothing(stack):
    before = made()

    ended = stack.stream("up", "--yes", "--skip-preview")

    assert "2 unchanged" in ended.said
    assert made() == before


def test_a_host_that_others_removed_or_stopped_is_found_and_put_right(stack):
    podman("rm", "--force", "--time=0", "rackllama-stacka2")
    podman("stop", "--time=0", "rackllama-stacka1")
    kept = made()

    refresh(stack)
    bring_up(stack)

    assert containers() == {"stacka1": "running", "stacka2": "running"}
    assert set(kept) < set(made())
    ansible(stack, "ansible", "all", "-m", "ansible.builtin.ping")


def test_a_lab_that_others_removed_is_made_anew(stack):
    stop_lab(LAB)

    refresh(stack)
    assert [resource.name for resource in stack.resources() if resource.custom] == []
    bring_up(stack)

    assert containers() == {"stacka1": "running", "stacka2": "running"}


def test_site_makes_them_serve(stack):
    ansible(stack, "ansible-playbook", "--limit", "stacka1", "playbooks/site.yml")
    verified = ansible(stack, "ansible-playbook", "--limit", "stacka1", "playbooks/verify.yml")
    assert "plan.memory gemma3-270m:q4_k_m" in verified


def test_nobody_else_starts_a_lab_that_a_stack_keeps():
    with pytest.raises(hosts.RackllamaError, match="the stack rackllama-lab/test keeps it"):
        hosts.start(LAB, 3, "bookworm")


def test_destroy_removes_them(stack):
    ended = stack.stream("destroy", "--yes", "--skip-preview")

    assert (ended.code, containers(), stack.resources()) == (0, {}, [])


def test_a_lab_that_a_person_made_is_neither_adopted_nor_removed(stack):
    hosts.start(LAB, 1, "bookworm")
    by_hand = made()

    preview = stack.stream("preview")
    destroyed = stack.stream("destroy", "--yes", "--skip-preview")

    assert preview.code != 0
    assert "the lab stacka is there already, and was made by hand. Remedy: choose another name" in preview.said
    assert (destroyed.code, made()) == (0, by_hand)
