"""The collection as a user gets it: built, installed into an empty place, and used from there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """An empty place with nothing but the installed collection."""
    place = tmp_path_factory.mktemp("site")
    (place / "ansible.cfg").write_text("[defaults]\ncollections_path = collections\n")
    ansible(place, "ansible-galaxy", "collection", "build", str(ROOT), "--output-path", ".")
    archive = next(place.glob("rackllama-llm-*.tar.gz"))
    ansible(place, "ansible-galaxy", "collection", "install", archive.name, "--offline", "-p", "collections")
    return place


def ansible(place, program, *arguments):
    """What a command of Ansible says that is run in `place`, and so sees what is installed there, not this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment["ANSIBLE_HOME"] = str(place / ".ansible")
    command = [Path(sys.executable).with_name(program), *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_what_hosts_and_roles_need_is_in_it(site):
    collection = site / "collections/ansible_collections/rackllama/llm"
    for name in (
        "artefacts.lock",
        "plugins/module_utils/services/release.py",
        "src/rackllama/host/services/release.py",
        "pyproject.toml",
    ):
        assert (collection / name).is_file(), f"{name} is missing: keep it out of build_ignore in galaxy.yml"
    assert (collection / "plugins/module_utils").is_symlink(), "module_utils did not travel as a link"


def test_what_only_a_checkout_needs_is_not_in_it(site):
    collection = site / "collections/ansible_collections/rackllama/llm"
    for name in ("tests", "molecule", "stacks", "collections", "uv.lock", ".venv", ".git", ".ansible-lint"):
        assert not (collection / name).exists(), f"{name} is in the collection: add it to build_ignore in galaxy.yml"


def test_its_playbooks_load(site):
    playbooks = [f"rackllama.llm.{path.stem}" for path in ROOT.glob("playbooks/*.yml")]
    said = ansible(site, "ansible-playbook", "--syntax-check", "-i", "gpu1,", *playbooks)
    installed = site / "collections/ansible_collections/rackllama/llm/playbooks"
    missing = [path.name for path in installed.glob("*.yml") if f"playbook: {path}" not in said]
    assert playbooks
    assert not missing


def test_its_modules_are_documented(site):
    modules = {f"rackllama.llm.{path.stem}" for path in ROOT.glob("plugins/modules/*.py")}
    documented = json.loads(ansible(site, "ansible-doc", "--json", "-t", "module", *modules))
    assert documented.keys() == modules
    assert all(module["doc"]["short_description"] and module["examples"] for module in documented.values())
