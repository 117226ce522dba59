"""A host without GPUs: looking at it changes nothing, and site.yml leaves it alone and says why."""

import re
from typing import Any

from rackllama.lab.up import start_ansible

PLAYBOOK = "playbooks/gpu_preflight.yml"
# What runs meanwhile writes to these: the kernel, the journal, and Ansible's own connection.
MOVING = ("/dev", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/var/log", "/var/tmp")  # noqa: S108 - the host's
PRUNED = " ".join(f"-path {path} -prune -o" for path in MOVING)
FILES = f"find / -xdev {PRUNED} -printf '%p %y %s %m %u %g %T@ %l\\n' | sort"


def looked_at(site: Any, *arguments: str) -> str:
    """What the playbook says of the site's host."""
    with start_ansible(site.lab.name, "ansible-playbook", PLAYBOOK, *arguments) as play:
        output, _ = play.communicate()
    assert play.returncode == 0, output
    return output


def test_a_host_without_gpus_passes_and_stays_as_it_is(converged: Any) -> None:
    before = converged.run(FILES).splitlines()
    told = looked_at(converged) + looked_at(converged, "--check")
    after = converged.run(FILES).splitlines()

    assert told.count("none on the PCI bus: there is nothing to install") >= 2
    assert sorted(set(before) ^ set(after)) == []
    assert len(before) > 1000


def test_site_yml_leaves_it_alone_and_says_why(converged: Any) -> None:
    outcome = converged.converge("--tags", "gpu")
    assert (outcome.code, outcome.changed) == (0, {"etoe1": 0}), outcome.output
    told = re.sub(r"\s+", " ", outcome.output).replace("''", "'")  # YAML folds long lines, and doubles quotes
    assert "etoe1 has no GPU of NVIDIA on its PCI bus: no driver is installed" in told
    assert "etoe1 compiles nothing (cuda_compiles_here): CUDA's toolkit is not installed" in told
