"""The rules for roles: each is a function from a repository's root to what is wrong there, a sentence a problem.

Every sentence names the file and says what to do.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rackllama.docs import stale_readmes
from rackllama.host.errors import RackllamaError

from . import tree

CHECKSUM = re.compile(r"\b[0-9a-f]{64}\b")
LOOKUP = re.compile(r"\|\s*rackllama\.llm\.artefact\b")
NAMED_LOOKUP = re.compile(r"""['"]([^'"]+)['"]\s*\|\s*rackllama\.llm\.artefact\b""")
DOWNLOAD_KEY = re.compile(r"(.*_)?(url|src|repo|deb|baseurl|key)")
SECRET = re.compile(r"(^|_)(password|token|secret|key|credential)s?(_|$)|(proxy|source)_env$")
# What is named like a secret, and is none.
SHOWN = {
    "certificate_key": "the path of a file on the host",
    "gateway_certificate_key": "the path of a file on the host",
    "password_file": "the path of a file on the host",
    "secret_files": "paths of files on the host",
    "service_secret_files": "paths of files on the host",
}
ADDRESS = re.compile(r"https?://(?!127\.|localhost\b|\[::1]|{{)")


def specs_and_defaults_agree(root: Path) -> Iterator[str]:
    """A spec's `default:` is not applied by Ansible: it must say what defaults/main.yml does."""
    for role in tree.roles(root):
        path, defaults = role / "defaults" / "main.yml", tree.read(role / "defaults" / "main.yml") or {}
        options = [
            (f"{role.name}/meta/argument_specs.yml, {entry}", name, option)
            for entry, spec in _specs(role).items()
            for name, option in (spec.get("options") or {}).items()
        ]
        for name in sorted(set(defaults) - {name for _, name, _ in options}):
            yield f"{path}: {name} stands in no spec; describe it in meta/argument_specs.yml"
        for where, name, option in options:
            yield from (f"{where}: {name} {problem}" for problem in _disagreement(role, name, option, defaults))


def _disagreement(role: Path, name: str, option: dict[str, Any], defaults: dict[str, Any]) -> Iterator[str]:
    if option.get("required"):
        if name in defaults or "default" in option:
            yield "is required and has a default; take one of the two out"
    elif name not in defaults:
        if "default" in option:
            yield "has a default that is never applied; put it into defaults/main.yml"
        # Optional by design: whoever reads it says what happens without it.
        elif re.search(rf"\b{name}\b(?!\s*(\|\s*default\b|is (not )?defined))", _text(role)):
            yield "may be undefined where it is read; give it a default, make it required or read it with default()"
    elif "{{" in str(defaults[name]):
        if "default" in option:
            yield "has a templated default, which a spec cannot repeat; take `default:` out of the spec"
    elif "default" not in option:
        yield f"lacks its default in the spec; add `default: {defaults[name]!r}`"
    elif (option["default"], type(option["default"])) != (defaults[name], type(defaults[name])):
        yield f"is {option['default']!r} in the spec and {defaults[name]!r} in defaults/main.yml; make them equal"


def every_entry_point_has_a_spec(root: Path) -> Iterator[str]:
    """What is not merely included by its own role is an entry point, and is checked before it runs."""
    named = {(call["name"], call.get("tasks_from", "main")) for call in _calls(root)}
    for role in tree.roles(root):
        files = {path.stem: path for path in role.glob("tasks/*.yml")}
        included = {name.removesuffix(".yml") for name in _included_files(role)}
        for name, path in sorted(files.items()):
            inner = name in included and (tree.OURS + role.name, name) not in named
            if name not in _specs(role) and not inner:
                yield f"{path}: has no spec; add `{name}:` to {role.name}/meta/argument_specs.yml"
        for name in sorted(set(_specs(role)) - set(files)):
            yield f"{role / 'meta' / 'argument_specs.yml'}: {name} has no tasks; add tasks/{name}.yml or take it out"


def tasks_from_is_a_bare_name(root: Path) -> Iterator[str]:
    """With `.yml` at its end Ansible runs the tasks and silently skips their spec."""
    for path, step in tree.every_step(root):
        name = str((tree.called_role(step) or {}).get("tasks_from", ""))
        if name.endswith((".yml", ".yaml")):
            yield f"{path}: tasks_from: {name} skips the spec; write tasks_from: {Path(name).stem}"


def variables_carry_their_roles_name(root: Path) -> Iterator[str]:
    """All variables of a play share one namespace."""
    for role in tree.roles(root):
        for path, name in _names_set(role):
            if not name.startswith((f"{role.name}_", f"_{role.name}_")):
                yield f"{path}: {name} is outside its role's names; call it {role.name}_* or _{role.name}_*"
        for entry, spec in _specs(role).items():
            for name in spec.get("options") or {}:
                if not name.startswith(f"{role.name}_"):
                    yield f"{role.name}/meta/argument_specs.yml, {entry}: {name}; call it {role.name}_*"


def _names_set(role: Path) -> Iterator[tuple[Path, str]]:
    for folder in ("defaults", "vars"):
        for path in sorted(role.glob(f"{folder}/*.yml")):
            yield from ((path, name) for name in tree.read(path) or {})
    for path, step in tree.steps_of_role(role):
        called = (tree.called_role(step) or {}).get("name", "").split(".")[-1]
        # What is handed to another role carries that one's name.
        names = [name for name in step.get("vars") or {} if not called or not name.startswith(f"{called}_")]
        if (tree.action(step) or "").split(".")[-1] == "set_fact":
            names += [name for name in step[tree.action(step)] if name != "cacheable"]
        names += [step["register"]] if "register" in step else []
        control = step.get("loop_control") or {}
        names += [control[key] for key in ("loop_var", "index_var") if key in control]
        yield from ((path, name) for name in names)


def every_variable_is_used(root: Path) -> Iterator[str]:
    """A knob that nothing reads is a promise not kept."""
    for role in tree.roles(root):
        text = _text(role)
        for folder in ("defaults", "vars"):
            for path in sorted(role.glob(f"{folder}/*.yml")):
                for name in tree.read(path) or {}:
                    if not re.search(rf"\b{name}\b", text):
                        yield f"{path}: {name} is read nowhere in the role; use it or take it out"


def downloads_stand_in_the_lock(root: Path) -> Iterator[str]:
    """What a role downloads is named in artefacts.lock, with a checksum that upstream published."""
    lock = tree.read(root / "artefacts.lock") or {}
    for name, artefact in lock.items():
        for file in artefact["files"]:
            if file["sha256"] is not None and not CHECKSUM.fullmatch(str(file["sha256"])):
                yield f"artefacts.lock: {name} has a sha256 that is none; run: rackllama lock {name}"
            if not file["url"].startswith("https://"):
                yield f"artefacts.lock: {file['url']} is not fetched by https; use upstream's own address"
    locked = {file["url"] for artefact in lock.values() for file in artefact["files"]}
    for path in sorted([*root.glob("roles/*/*/*.yml"), *root.glob("playbooks/*.yml")]):
        for key, text in tree.strings(tree.read(path)):
            if CHECKSUM.search(text):
                yield f"{path}: a checksum stands under {key}; put it into artefacts.lock and look it up"
            if DOWNLOAD_KEY.fullmatch(key) and ADDRESS.match(text) and text not in locked:
                yield f"{path}: {text} is not in artefacts.lock; add it there and use rackllama.llm.artefact"
            named = NAMED_LOOKUP.findall(text)
            if len(named) < len(LOOKUP.findall(text)):
                yield f"{path}: an artefact is looked up by no name; write 'NAME' | rackllama.llm.artefact(...)"
            yield from (f"{path}: {name} is not in artefacts.lock; add it" for name in named if name not in lock)


def readmes_are_fresh(root: Path) -> Iterator[str]:
    """A role's README says what its specs and defaults do."""
    try:
        stale = stale_readmes(root / "roles")
    except RackllamaError as error:
        yield str(error)
    else:
        yield from (f"{path}: is missing or stale; run: python -m rackllama.docs" for path in stale)


def every_role_is_converged_by_a_scenario(root: Path) -> Iterator[str]:
    """A role that no molecule scenario reaches was never seen to work."""
    reached: set[str] = set()
    for playbook in _converged_playbooks(root):
        reached |= _reached_by_playbook(root, playbook)
    for role in tree.roles(root):
        if tree.OURS + role.name not in reached:
            yield f"{role}: no scenario converges it; let a playbook of a molecule/*/molecule.yml reach it"


def _converged_playbooks(root: Path) -> set[Path]:
    base = tree.read(root / ".config" / "molecule" / "config.yml") or {}
    return {
        Path(named.replace("${MOLECULE_PROJECT_DIRECTORY}", str(root)))
        for path in root.glob("molecule/*/molecule.yml")
        for config in (tree.read(path) or {}, base)
        if (named := ((config.get("ansible") or {}).get("playbooks") or {}).get("converge"))
    }


def _reached_by_playbook(root: Path, playbook: Path) -> set[str]:
    reached: set[str] = set()
    for play in tree.plays(playbook):
        if imported := play.get("ansible.builtin.import_playbook"):
            reached |= _reached_by_playbook(root, playbook.parent / imported)
        names = [role if isinstance(role, str) else role["role"] for role in play.get("roles") or []]
        names += [call["name"] for step in tree.steps_of_play(play) if (call := tree.called_role(step))]
        for name in names:
            reached |= _reached_by_role(root, name, reached)
    return reached


def _reached_by_role(root: Path, name: str, known: set[str]) -> set[str]:
    reached = known | {name}
    for _, step in tree.steps_of_role(root / "roles" / name.removeprefix(tree.OURS)):
        call = tree.called_role(step)
        if call and call["name"] not in reached:
            reached |= _reached_by_role(root, call["name"], reached)
    return reached


def secrets_are_not_shown(root: Path) -> Iterator[str]:
    """Ansible shows and logs the arguments of roles and modules, but for those that are marked."""
    for role in tree.roles(root):
        for entry, spec in _specs(role).items():
            for name, option in _options(spec):
                if _is_secret(name) and option.get("no_log") is not True:
                    yield f"{role.name}/meta/argument_specs.yml, {entry}: {name} may be shown; add `no_log: true`"
    for path in sorted(root.glob("plugins/modules/*.py")):
        for name, option in _module_options(path):
            if _is_secret(name) and option.get("no_log") is not True:
                yield f'{path}: {name} may be shown; add `"no_log": True`'


def _is_secret(name: str) -> bool:
    return bool(SECRET.search(name)) and name not in SHOWN


def _options(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every option of a spec, and every one within another."""
    for name, option in (spec.get("options") or {}).items():
        yield name, option
        yield from _options(option)


def _module_options(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every option in the source of a module: an entry of a dictionary whose value is one that has a type."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        for name, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            if isinstance(name, ast.Constant) and isinstance(value, ast.Dict):
                names = [key.value if isinstance(key, ast.Constant) else None for key in value.keys]
                option = {
                    key: inner.value if isinstance(inner, ast.Constant) else None
                    for key, inner in zip(names, value.values, strict=True)
                }
                if "type" in option:
                    yield str(name.value), option


def tasks_have_no_environment(root: Path) -> Iterator[str]:
    """It stands on the command line of each task on the host, in what -vvv shows and in the facts."""
    for path, step in tree.every_step(root):
        if "environment" in step:
            yield f"{path}: {step.get('name')!r} has an environment; make it an option of the module, with no_log"
    for path in tree.playbooks(root):
        for play in tree.plays(path):
            if "environment" in play:
                yield f"{path}: {play.get('name')!r} has an environment; use module_defaults"


def names_are_fully_qualified(root: Path) -> Iterator[str]:
    """A short name is whatever the reader's collections make of it."""
    for path, step in tree.every_step(root):
        name = tree.action(step)
        if name and name.count(".") < 2:
            yield f"{path}: {name} is a short name; write ansible.builtin.{name}, or its collection's"
        call = tree.called_role(step)
        if call and call["name"].count(".") < 2:
            yield f"{path}: role {call['name']} is a short name; write {tree.OURS}{call['name']}"
    for path in tree.playbooks(root):
        for play in tree.plays(path):
            if "import_playbook" in play:
                yield f"{path}: import_playbook is a short name; write ansible.builtin.import_playbook"
            for role in play.get("roles") or []:
                name = role if isinstance(role, str) else role.get("role", "")
                if name.count(".") < 2:
                    yield f"{path}: role {name} is a short name; write {tree.OURS}{name}"


def _specs(role: Path) -> dict[str, Any]:
    return (tree.read(role / "meta" / "argument_specs.yml") or {}).get("argument_specs") or {}


def _calls(root: Path) -> Iterator[dict[str, Any]]:
    return (call for _, step in tree.every_step(root) if (call := tree.called_role(step)))


def _included_files(role: Path) -> Iterator[str]:
    for _, step in tree.steps_of_role(role):
        name = tree.action(step) or ""
        if name.split(".")[-1] in ("include_tasks", "import_tasks"):
            yield step[name] if isinstance(step[name], str) else step[name]["file"]


def _text(role: Path) -> str:
    """All that a role reads: its tasks, handlers and the values of its variables without comments, its templates."""
    values = [
        text
        for folder in ("tasks", "handlers", "defaults", "vars")
        for path in sorted(role.glob(f"{folder}/*.yml"))
        for _, text in tree.strings(tree.read(path))
    ]
    templates = [path.read_text("utf-8") for path in sorted(role.glob("templates/**/*")) if path.is_file()]
    return "\n".join(values + templates)
