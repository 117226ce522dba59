"""The README of every role, made from its argument specs and defaults: `python -m rackllama.docs [--check]`.

So what a README says never differs from what the role takes. Values come from defaults/main.yml, because Ansible does
not apply the `default:` of a spec.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from rackllama.host.errors import RackllamaError

COLLECTION = "rackllama.llm"
EXIT_OK, EXIT_STALE, EXIT_ERROR = 0, 1, 2
# What stands in an example for an option that must be given, by its type.
SAMPLES = {"str": "example", "path": "/srv/example", "int": "1", "float": "1.0", "bool": "true", "list": "[]"}


@dataclass(frozen=True)
class Option:
    """A row of the table, in Markdown; `name` is dotted for a key within a dict, with `[]` within a list of dicts."""

    name: str
    type: str
    default: str
    description: str


@dataclass(frozen=True)
class EntryPoint:
    """A tasks file that a play may name: `required` holds a sample for each option that must be given."""

    name: str
    summary: str
    description: tuple[str, ...]
    required: Mapping[str, str]
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Role:
    """A role as its specs tell it, `main` first."""

    fqcn: str
    entry_points: tuple[EntryPoint, ...]


def read_role(folder: Path) -> Role:
    """The role in `folder`. Raises RackllamaError where it has no usable argument specs."""
    path = folder / "meta" / "argument_specs.yml"
    try:
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        defaults_path = folder / "defaults" / "main.yml"
        defaults = yaml.safe_load(defaults_path.read_text(encoding="utf-8")) if defaults_path.exists() else None
        names = sorted(specs, key=lambda name: name != "main")
        return Role(f"{COLLECTION}.{folder.name}", tuple(_entry_point(n, specs[n], defaults or {}) for n in names))
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise RackllamaError(f"{path} does not describe the role ({error})", "see docs/adding-a-role.md") from error


def readme(role: Role) -> str:
    """The role's README, the same text for the same role."""
    environment = Environment(
        loader=PackageLoader("rackllama", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, whose cells are escaped below
    )
    return environment.get_template("role_readme.md.j2").render(role=role)


def stale_readmes(roles: Path) -> dict[Path, str]:
    """The READMEs below `roles` that are missing or differ from what they ought to be: path -> wanted text.

    Raises RackllamaError where a role has no usable argument specs, or where there are no roles at all.
    """
    if not roles.is_dir():
        raise RackllamaError(f"there is no folder {roles}", "run it from the root of the checkout, or give --roles")
    wanted = {folder / "README.md": readme(read_role(folder)) for folder in sorted(roles.iterdir()) if folder.is_dir()}
    return {path: text for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text}


def main(argv: Sequence[str] | None = None) -> int:
    """Write what is stale, or with --check only name it. Exit codes: 0 all is fresh, 1 something is stale, 2 error."""
    parser = argparse.ArgumentParser(prog="python -m rackllama.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a README is stale")
    parser.add_argument("--roles", type=Path, default=Path("roles"), help="the folder of roles (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        stale = stale_readmes(arguments.roles)
    except RackllamaError as error:
        sys.stderr.write(f"rackllama.docs: {error.message}\n  remedy: {error.remedy}\n")
        return EXIT_ERROR
    for path, text in stale.items():
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}: {'stale; run: python -m rackllama.docs' if arguments.check else 'written'}\n")
    return EXIT_STALE if stale and arguments.check else EXIT_OK


def _entry_point(name: str, spec: Mapping[str, Any], defaults: Mapping[str, Any]) -> EntryPoint:
    options = spec.get("options") or {}
    return EntryPoint(
        name=name,
        summary=spec["short_description"],
        description=tuple(_markdown(paragraph) for paragraph in _listed(spec.get("description"))),
        required={key: _sample(option) for key, option in options.items() if option.get("required")},
        options=tuple(_rows(options, defaults)),
    )


def _rows(options: Mapping[str, Any], defaults: Mapping[str, Any], within: str = "") -> Iterator[Option]:
    for key, option in options.items():
        description = " ".join(_listed(option.get("description")))
        if "choices" in option:
            description += f" One of {', '.join(_code(choice) for choice in option['choices'])}."
        kind = option.get("type", "str")
        elements = f" of {option['elements']}" if "elements" in option else ""
        yield Option(within + key, kind + elements, _default(key, option, defaults), _cell(_markdown(description)))
        inner = f"{within}{key}[]." if kind == "list" else f"{within}{key}."
        yield from _rows(option.get("options") or {}, {}, inner)


def _default(key: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "**required**"
    if key in defaults or "default" in option:
        return _cell(_code(defaults.get(key, option.get("default"))))
    return ""


def _sample(option: Mapping[str, Any]) -> str:
    return str(option["choices"][0]) if "choices" in option else SAMPLES.get(option.get("type", "str"), "{}")


def _listed(text: str | list[str] | None) -> list[str]:
    return [text] if isinstance(text, str) else text or []


def _code(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value, ensure_ascii=False)}`"


def _markdown(text: str) -> str:
    """Ansible's own markup (`C(code)`, `O(option=value)`, `I(stress)`) as Markdown."""
    return re.sub(r"\b[BI]\(([^)]*)\)", r"*\1*", re.sub(r"\b[CEMOPRV]\(([^)]*)\)", r"`\1`", text))


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
