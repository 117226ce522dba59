"""What must hold of this repository, and for each rule a small tree that breaks it."""

import inspect
import subprocess
from pathlib import Path

import pytest

from . import layout_rules, role_rules

ROOT = Path(__file__).parents[2]
RULES = {
    name: rule
    for module in (role_rules, layout_rules)
    for name, rule in inspect.getmembers(module, inspect.isfunction)
    if rule.__module__ == module.__name__ and not name.startswith("_")
}
SPEC = "argument_specs: {main: {short_description: Web, options: %s}}"
REGISTRY = layout_rules.REGISTRIES[0]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_holds_here(rule):
    problems = list(rule(ROOT))
    assert not problems, "\n".join(problems)


# rule, what is wrong, files of the tree, a part of what the rule says of it
BROKEN = [
    (
        "specs_and_defaults_agree",
        "another value",
        {
            "roles/web/defaults/main.yml": "web_port: 80",
            "roles/web/meta/argument_specs.yml": SPEC % "{web_port: {type: int, default: 8080}}",
        },
        "web_port is 8080 in the spec and 80 in defaults",
    ),
    (
        "specs_and_defaults_agree",
        "another type",
        {
            "roles/web/defaults/main.yml": "web_tls: 1",
            "roles/web/meta/argument_specs.yml": SPEC % "{web_tls: {type: bool, default: true}}",
        },
        "web_tls is True in the spec and 1 in defaults",
    ),
    (
        "specs_and_defaults_agree",
        "an undescribed default",
        {"roles/web/defaults/main.yml": "web_port: 80", "roles/web/meta/argument_specs.yml": SPEC % "{}"},
        "web_port stands in no spec",
    ),
    (
        "specs_and_defaults_agree",
        "a default that the spec does not tell",
        {
            "roles/web/defaults/main.yml": "web_port: 80",
            "roles/web/meta/argument_specs.yml": SPEC % "{web_port: {type: int}}",
        },
        "add `default: 80`",
    ),
    (
        "specs_and_defaults_agree",
        "a spec's default for a templated one",
        {
            "roles/web/defaults/main.yml": "web_port: '{{ site_port }}'",
            "roles/web/meta/argument_specs.yml": SPEC % "{web_port: {type: int, default: 80}}",
        },
        "take `default:` out of the spec",
    ),
    (
        "specs_and_defaults_agree",
        "a default that is never applied",
        {"roles/web/meta/argument_specs.yml": SPEC % "{web_port: {type: int, default: 80}}"},
        "never applied",
    ),
    (
        "specs_and_defaults_agree",
        "a required option with a default",
        {
            "roles/web/defaults/main.yml": "web_port: 80",
            "roles/web/meta/argument_specs.yml": SPEC % "{web_port: {type: int, required: true}}",
        },
        "is required and has a default",
    ),
    (
        "specs_and_defaults_agree",
        "an optional one that is read as if it were there",
        {
            "roles/web/tasks/main.yml": "[{a.b.c: {port: '{{ web_port }}'}}]",
            "roles/web/meta/argument_specs.yml": SPEC % "{web_port: {type: int}}",
        },
        "web_port may be undefined",
    ),
    (
        "every_entry_point_has_a_spec",
        "tasks without a spec",
        {"roles/web/tasks/remove.yml": "[]", "roles/web/meta/argument_specs.yml": "argument_specs: {}"},
        "add `remove:` to web/meta/argument_specs.yml",
    ),
    (
        "every_entry_point_has_a_spec",
        "an inner file that a playbook names",
        {
            "roles/web/tasks/main.yml": "[{ansible.builtin.include_tasks: inner.yml}]",
            "roles/web/tasks/inner.yml": "[]",
            "roles/web/meta/argument_specs.yml": SPEC % "{}",
            "playbooks/web.yml": "[{tasks: [{a.b.include_role: {name: rackllama.llm.web, tasks_from: inner}}]}]",
        },
        "add `inner:` to web/meta/argument_specs.yml",
    ),
    (
        "every_entry_point_has_a_spec",
        "a spec without tasks",
        {"roles/web/meta/argument_specs.yml": SPEC % "{}"},
        "add tasks/main.yml or take it out",
    ),
    (
        "tasks_from_is_a_bare_name",
        "a file name, within a block",
        {"playbooks/web.yml": "[{tasks: [{block: [{a.b.include_role: {name: x.y.z, tasks_from: run.yml}}]}]}]"},
        "write tasks_from: run",
    ),
    (
        "variables_carry_their_roles_name",
        "a default",
        {"roles/web/defaults/main.yml": "port: 80"},
        "port is outside its role's names",
    ),
    (
        "variables_carry_their_roles_name",
        "an option",
        {"roles/web/meta/argument_specs.yml": SPEC % "{port: {type: int}}"},
        "port; call it web_*",
    ),
    (
        "variables_carry_their_roles_name",
        "a registered result",
        {"roles/web/tasks/main.yml": "[{a.b.c: {}, register: result}]"},
        "result is outside",
    ),
    (
        "variables_carry_their_roles_name",
        "a fact",
        {"roles/web/tasks/main.yml": "[{ansible.builtin.set_fact: {port: 80}}]"},
        "port is outside",
    ),
    (
        "variables_carry_their_roles_name",
        "a variable of a task",
        {"roles/web/tasks/main.yml": "[{a.b.c: {}, vars: {port: 80}}]"},
        "port is outside",
    ),
    (
        "variables_carry_their_roles_name",
        "a variable for another role",
        {"roles/web/tasks/main.yml": "[{a.b.include_role: {name: x.y.service}, vars: {service_x: 1, ports: []}}]"},
        "ports is outside",
    ),
    (
        "variables_carry_their_roles_name",
        "a loop's variable",
        {"roles/web/tasks/main.yml": "[{a.b.c: {}, loop: [1], loop_control: {loop_var: port}}]"},
        "port is outside",
    ),
    (
        "every_variable_is_used",
        "a default that only a comment and a longer name mention",
        {
            "roles/web/defaults/main.yml": "web_port: 80",
            "roles/web/tasks/main.yml": "[{a.b.c: {port: '{{ web_port_tls }}'}}] # web_port",
        },
        "web_port is read nowhere",
    ),
    (
        "downloads_stand_in_the_lock",
        "a checksum cut short",
        {"artefacts.lock": "web: {files: [{url: 'https://example.com/web.tar', sha256: abc}]}"},
        "run: rackllama lock web",
    ),
    (
        "downloads_stand_in_the_lock",
        "plain http",
        {"artefacts.lock": "web: {files: [{url: 'http://example.com/web.tar', sha256: null}]}"},
        "is not fetched by https",
    ),
    (
        "downloads_stand_in_the_lock",
        "an address of a role's own",
        {"roles/web/tasks/main.yml": "[{ansible.builtin.get_url: {url: 'https://example.com/web.tar'}}]"},
        "https://example.com/web.tar is not in artefacts.lock",
    ),
    (
        "downloads_stand_in_the_lock",
        "a checksum of a role's own",
        {"roles/web/vars/main.yml": f"_web_sha256: {'0a' * 32}"},
        "put it into artefacts.lock",
    ),
    (
        "downloads_stand_in_the_lock",
        "an unknown artefact",
        {"roles/web/vars/main.yml": """_web: "{{ 'web' | rackllama.llm.artefact(machine='x') }}" """},
        "web is not in artefacts.lock",
    ),
    (
        "downloads_stand_in_the_lock",
        "an artefact that only the run knows",
        {"roles/web/vars/main.yml": """_web: "{{ web_name | rackllama.llm.artefact(machine='x') }}" """},
        "looked up by no name",
    ),
    (
        "readmes_are_fresh",
        "another README",
        {"roles/web/meta/argument_specs.yml": SPEC % "{}", "roles/web/README.md": "# Web"},
        "run: python -m rackllama.docs",
    ),
    ("readmes_are_fresh", "no spec", {"roles/web/tasks/main.yml": "[]"}, "does not describe the role"),
    (
        "every_role_is_converged_by_a_scenario",
        "a role beside the one that is",
        {
            ".config/molecule/config.yml": (
                "ansible: {playbooks: {converge: '${MOLECULE_PROJECT_DIRECTORY}/playbooks/site.yml'}}"
            ),
            "molecule/default/molecule.yml": "{}",
            "playbooks/site.yml": "[{ansible.builtin.import_playbook: web.yml}]",
            "playbooks/web.yml": "[{roles: [{role: rackllama.llm.web}]}]",
            "roles/web/tasks/main.yml": "[{ansible.builtin.include_role: {name: rackllama.llm.service}}]",
            "roles/service/tasks/main.yml": "[]",
            "roles/forgotten/tasks/main.yml": "[]",
        },
        "roles/forgotten: no scenario converges it",
    ),
    (
        "secrets_are_not_shown",
        "an option of a role, within another",
        {
            "roles/web/meta/argument_specs.yml": SPEC
            % "{web_engines: {type: list, elements: dict, options: {key: {type: str}}}}"
        },
        "key may be shown; add `no_log: true`",
    ),
    (
        "secrets_are_not_shown",
        "an option of a module",
        {"plugins/modules/web.py": 'SPEC = {"admin_password": {"type": "str", "no_log": False}}'},
        "admin_password may be shown",
    ),
    (
        "tasks_have_no_environment",
        "a task",
        {"roles/web/tasks/main.yml": "[{a.b.c: {}, environment: {http_proxy: x}}]"},
        "make it an option of the module",
    ),
    (
        "tasks_have_no_environment",
        "a play",
        {"playbooks/web.yml": "[{name: Web, environment: {http_proxy: x}}]"},
        "use module_defaults",
    ),
    ("names_are_fully_qualified", "a module", {"roles/web/tasks/main.yml": "[{copy: {}}]"}, "ansible.builtin.copy"),
    (
        "names_are_fully_qualified",
        "a role of a play",
        {"playbooks/web.yml": "[{roles: [web]}]"},
        "write rackllama.llm.web",
    ),
    (
        "names_are_fully_qualified",
        "an included role",
        {"playbooks/web.yml": "[{tasks: [{ansible.builtin.include_role: {name: web}}]}]"},
        "write rackllama.llm.web",
    ),
    (
        "names_are_fully_qualified",
        "an import",
        {"playbooks/site.yml": "[{import_playbook: web.yml}]"},
        "write ansible.builtin.import_playbook",
    ),
    *(
        ("files_stay_short", pattern, {pattern.replace("*", "x"): "#\n" * (limit + 1)}, f"{limit + 1} lines where")
        for pattern, (limit, _) in layout_rules.LIMITS.items()
    ),
    ("site_only_imports", "a play", {"playbooks/site.yml": "[{name: Web, hosts: all}]"}, "'Web' is no import"),
    (
        "host_package_runs_on_bare_hosts",
        "a third-party library",
        {"src/rackllama/host/a.py": "def f():\n    import yaml"},
        "imports yaml",
    ),
    (
        "host_package_runs_on_bare_hosts",
        "an absolute import of itself",
        {"src/rackllama/host/a.py": "from rackllama.host import errors"},
        "imports rackllama.host",
    ),
    (
        "host_package_runs_on_bare_hosts",
        "a package that does something",
        {"src/rackllama/host/__init__.py": "X = 1"},
        "is not empty",
    ),
    (
        "what_runs_on_hosts_runs_on_python_3_9",
        "a match statement",
        {"src/rackllama/host/a.py": "match 1:\n    case 1: pass"},
        "pattern matching",
    ),
    ("module_utils_is_the_host_package", "a folder", {"plugins/module_utils/a.py": ""}, "is not the link"),
    (
        "every_test_is_collected",
        "a folder that no target names",
        {"Makefile": "pytest tests/unit", "tests/unit2/test_a.py": "def test_a(): ..."},
        "no target of the Makefile runs tests/unit2",
    ),
    (
        "every_test_is_collected",
        "a name that pytest passes by",
        {"Makefile": "pytest tests/unit", "tests/unit/a_test_of.py": "def test_a(): ..."},
        "name it test_a_test_of.py",
    ),
    ("no_registry_is_named", "a host", {"README.md": f"see https://{REGISTRY}/x"}, f"names {REGISTRY}"),
    ("linters_skip_nothing", "a lower profile", {".ansible-lint": "profile: basic"}, "set profile: production"),
    (
        "linters_skip_nothing",
        "a skip list",
        {".ansible-lint": "{profile: production, skip_list: [name]}"},
        "has a skip_list",
    ),
    (
        "linters_skip_nothing",
        "an ignore file",
        {".ansible-lint": "profile: production", ".ansible-lint-ignore": "a.yml name"},
        "delete it",
    ),
    (
        "linters_skip_nothing",
        "a comment",
        {".ansible-lint": "profile: production", "roles/web/tasks/main.yml": "[] # noqa: name"},
        "switches a linter off",
    ),
    (
        "pages_quote_what_is_there",
        "an excerpt that is no more",
        {
            "roles/web/defaults/main.yml": "web_port: 80\n",
            "docs/web.md": "```yaml\n# roles/web/defaults/main.yml\nweb_port: 8080\n```\n",
        },
        "'web_port: 8080' is not in roles/web/defaults/main.yml",
    ),
]


@pytest.mark.parametrize(
    ("rule", "files", "said"), [(r, f, s) for r, _, f, s in BROKEN], ids=[f"{r}-{what}" for r, what, _, _ in BROKEN]
)
def test_it_catches(rule, files, said, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if rule == "no_registry_is_named":
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    problems = "\n".join(RULES[rule](tmp_path))
    assert said in problems


def test_every_rule_is_shown_to_catch_something():
    assert {rule for rule, *_ in BROKEN} == set(RULES)
