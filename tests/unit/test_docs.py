"""A role's README says what its specs and defaults say."""

import re
from pathlib import Path

import pytest
import yaml

from rackllama.docs import main, read_role, readme

ROLES = Path(__file__).parents[2] / "roles"
SPECS = """
argument_specs:
  remove:
    short_description: Remove the web server
    options: &named
      web_name: {description: Its name., type: str, required: true}
  main:
    short_description: A web server
    description: [Serves C(/srv/web).]
    options:
      <<: *named
      web_mirror: {description: Where to fetch from., type: str}
      web_tls: {description: "With TLS | without.", type: bool, default: true}
      web_level: {description: How much it tells., choices: [info, debug], default: info}
      web_hosts:
        description: What it serves.
        type: list
        elements: dict
        default: []
        options:
          path: {description: The folder., type: path, required: true}
          mode: {description: Its mode., type: str, default: "0750"}
"""
DEFAULTS = """
web_mirror: "{{ mirror | default('') }}"
web_tls: true
web_level: info
web_hosts: []
"""


@pytest.fixture
def roles(tmp_path):
    for name, text in {"meta/argument_specs.yml": SPECS, "defaults/main.yml": DEFAULTS}.items():
        path = tmp_path / "web" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path


def rows(text):
    """The first table, by option."""
    lines = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in text.split("## ")[0].splitlines() if "| `" in line]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


def test_every_option_is_a_row_with_its_default(roles):
    assert rows(readme(read_role(roles / "web"))) == {
        "web_name": ["str", "**required**", "Its name."],
        "web_mirror": ["str", r"`{{ mirror \| default('') }}`", "Where to fetch from."],
        "web_tls": ["bool", "`true`", r"With TLS \| without."],
        "web_level": ["str", "`info`", "How much it tells. One of `info`, `debug`."],
        "web_hosts": ["list of dict", "`[]`", "What it serves."],
        "web_hosts[].path": ["path", "**required**", "The folder."],
        "web_hosts[].mode": ["str", "`0750`", "Its mode."],
    }


def test_main_comes_first_and_ansibles_markup_becomes_markdown(roles):
    text = readme(read_role(roles / "web"))
    assert text.startswith("# rackllama.llm.web\n")
    assert text.index("A web server.\n\nServes `/srv/web`.") < text.index("## Entry point `remove`")


def test_each_entry_point_has_an_example_with_what_it_requires(roles):
    play, task = re.findall(r"```yaml\n(.*?)```", readme(read_role(roles / "web")), re.DOTALL)
    assert yaml.safe_load(play)[0]["roles"] == [{"role": "rackllama.llm.web", "web_name": "example"}]
    assert yaml.safe_load(task)[0] == {
        "name": "Remove the web server",
        "ansible.builtin.include_role": {"name": "rackllama.llm.web", "tasks_from": "remove"},
        "vars": {"web_name": "example"},
    }


@pytest.mark.parametrize("role", sorted(path.parents[1].name for path in ROLES.glob("*/meta/argument_specs.yml")))
def test_the_examples_of_real_roles_are_yaml(role):
    for example in re.findall(r"```yaml\n(.*?)```", readme(read_role(ROLES / role)), re.DOTALL):
        assert yaml.safe_load(example)[0]["name"]


def test_check_names_what_is_stale_and_writes_nothing(roles, capsys):
    assert main(["--check", "--roles", str(roles)]) == 1
    assert f"{roles}/web/README.md: stale; run: python -m rackllama.docs" in capsys.readouterr().out
    assert not (roles / "web" / "README.md").exists()


def test_what_was_written_is_fresh_until_a_default_changes(roles, capsys):
    arguments = ["--roles", str(roles)]
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    defaults = roles / "web" / "defaults" / "main.yml"
    defaults.write_text(defaults.read_text().replace("web_level: info", "web_level: debug"))
    assert main([*arguments, "--check"]) == 1


def test_a_role_without_specs_is_one_clear_error(tmp_path, capsys):
    (tmp_path / "web").mkdir()
    assert main(["--roles", str(tmp_path)]) == 2
    assert "web/meta/argument_specs.yml does not describe the role" in capsys.readouterr().err


def test_no_roles_at_all_is_one_clear_error(tmp_path, capsys):
    assert main(["--roles", str(tmp_path / "roles")]) == 2
    assert "remedy: run it from the root of the checkout" in capsys.readouterr().err
