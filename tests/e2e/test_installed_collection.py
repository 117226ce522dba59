"""The collection as somebody else installs it: built, installed into an empty place, and run from there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
CHECKOUT = Path(__file__).parents[2]


def run(*argv: str, cwd: Path, **environment: str) -> str:
    """What a command of the virtual environment says. A failing one fails the test."""
    done = subprocess.run(
        [str(BIN / argv[0]), *argv[1:]],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_converged_host_is_as_wanted_to_the_installed_collection_too(converged: Any, tmp_path: Path) -> None:
    site, place, empty = converged, tmp_path / "collections", tmp_path / "empty"
    empty.mkdir()
    run("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), cwd=CHECKOUT)
    archive = next(tmp_path.glob("*.tar.gz"))
    run("ansible-galaxy", "collection", "install", "--offline", str(archive), "-p", str(place), cwd=empty)

    own = {"ANSIBLE_COLLECTIONS_PATH": str(place), "RACKLLAMA_LAB": site.lab.name}
    inventory = str(place / "ansible_collections/rackllama/llm/inventories/lab")
    said = run("ansible-playbook", "-i", inventory, "rackllama.llm.site", cwd=empty, **own)
    assert "changed=0" in said
    said = run("ansible-playbook", "-i", inventory, "rackllama.llm.verify", cwd=empty, **own)
    assert "ollama runs as declared" in said
