"""Looking at a host before its driver is changed: it changes nothing, and a host without GPUs passes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rackllama.lab.up import CHECKOUT

PLAYBOOK = "playbooks/gpu_preflight.yml"
# What runs meanwhile writes to these: the kernel, the journal, and Ansible's own connection.
MOVING = ("/dev", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/var/log", "/var/tmp")  # noqa: S108 - the host's
PRUNED = " ".join(f"-path {path} -prune -o" for path in MOVING)
FILES = f"find / -xdev {PRUNED} -printf '%p %y %s %m %u %g %T@ %l\\n' | sort"


def looked_at(site: Any, *arguments: str) -> str:
    """What the playbook says of the site's host."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventories/lab", PLAYBOOK, *arguments]
    environment = {**os.environ, "RACKLLAMA_LAB": site.lab.name, "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_host_without_gpus_passes_and_stays_as_it_is(converged: Any) -> None:
    before = converged.run(FILES).splitlines()
    told = looked_at(converged) + looked_at(converged, "--check")
    after = converged.run(FILES).splitlines()

    assert told.count("none on the PCI bus: there is nothing to install") >= 2
    assert sorted(set(before) ^ set(after)) == []
    assert len(before) > 1000
