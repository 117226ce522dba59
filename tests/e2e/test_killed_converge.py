"""A converge that dies loses nothing: whenever it was killed, the next one ends where an undisturbed one would."""

import itertools
import os
import random
import signal
import subprocess
from typing import Any

import pytest

SEED = 20
WIPE = """
systemctl disable --now gateway ollama 'rackllama-land@gemma3-270m-q4-k-m'
rm -rf /opt/ollama /opt/llama_cpp /opt/rackllama /var/lib/ollama /var/lib/rackllama /etc/rackllama
rm -rf /etc/systemd/system/gateway.service* /etc/systemd/system/ollama.service* /etc/systemd/system/rackllama-land@*
systemctl daemon-reload
"""


def killed_after(play: "subprocess.Popen[str]", seconds: float) -> bool:
    """Kill a converge with all its processes after so many seconds. Whether it still ran; where not, it ended well."""
    try:
        output, _ = play.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(play.pid, signal.SIGKILL)
        play.communicate()
        return True
    assert play.returncode == 0, output
    return False


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_healthy_and_as_declared(converged: Any, kills: int) -> None:
    site = converged
    site.run(WIPE)
    undisturbed = site.converge()
    assert undisturbed.code == 0, undisturbed.output
    site.run(WIPE)
    moments = random.Random(SEED)  # noqa: S311 - to be repeatable, not secret

    died, knob = 0, itertools.count(1000)
    while died < kills:
        play = site.start_converge(ollama_keep_alive_seconds=next(knob))
        died += killed_after(play, moments.uniform(0.1, undisturbed.seconds))

    declared = {"ollama_keep_alive_seconds": 900}
    ended = site.converge(**declared)
    assert ended.code == 0, ended.output
    assert site.environment()["OLLAMA_KEEP_ALIVE"] == "900s"
    running, wanted = site.environment(), site.declared_environment()
    assert {name: running.get(name) for name in wanted} == wanted
    assert site.answer()
    assert site.converge(**declared).changed == {"etoe1": 0}
