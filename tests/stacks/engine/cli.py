"""The command line: as much of `pulumi` as is used here, with its wording and exit codes."""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import NAME
from .project import Project, StackConfig, as_text
from .state import ROOT, Backend, CliError, StateFile
from .values import masked, unwrapped

FAILED = 1


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(Context(options)) or 0
    except CliError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


class Context:
    """What a command is about: the project of the folder, the backend, the stack."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        os.chdir(options.cwd)

    @property
    def backend(self) -> Backend:
        """Where state is."""
        return Backend.from_environment()

    @property
    def project(self) -> Project:
        """The project of the folder."""
        return Project.find(Path.cwd())

    @property
    def selection(self) -> Path:
        """The file with the name of the stack that was selected."""
        home = Path(os.environ.get("PULUMI_HOME", "~/.pulumi")).expanduser()
        digest = hashlib.sha256(str(self.project.folder).encode()).hexdigest()[:16]
        return home / "workspaces" / f"{self.project.name}-{digest}.json"

    def select(self, stack: str) -> None:
        """Select a stack."""
        self.selection.parent.mkdir(parents=True, exist_ok=True)
        self.selection.write_text(json.dumps({"stack": stack}))

    @property
    def stack(self) -> str:
        """The stack that is named or selected."""
        if self.options.stack:
            return str(self.options.stack).rsplit("/", 1)[-1]
        if self.selection.is_file():
            return str(json.loads(self.selection.read_text())["stack"])
        raise CliError("no stack selected; please use `pulumi stack select` to choose one")

    @property
    def state(self) -> StateFile:
        """The state of the stack, which must be there."""
        state = self.backend.state(self.project.name, self.stack)
        if not state.exists():
            raise CliError(f"no stack named '{self.stack}' found")
        return state

    @property
    def config(self) -> StackConfig:
        """The stack's configuration."""
        return StackConfig(self.project, self.stack)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--stack", "-s", default=None)
    common.add_argument("--cwd", "-C", default=".")
    common.add_argument("--non-interactive", action="store_true")
    common.add_argument("--color", default="never")
    common.add_argument("--yes", "-y", action="store_true")
    parser = argparse.ArgumentParser("pulumi", description=NAME)
    parser.add_argument("--cwd", "-C", default=".")
    parser.add_argument("--non-interactive", action="store_true")
    parser.add_argument("--color", default="never")
    commands = parser.add_subparsers(required=True)

    def add(where: Any, verb: str, run: Any, *options: str, **positional: Any) -> None:
        command = where.add_parser(verb, parents=[common])
        for option in options:
            command.add_argument(*option.split("|"), action="store_true")
        for key, count in positional.items():
            command.add_argument(key, nargs=count)
        command.set_defaults(run=run)

    add(commands, "version", lambda _: print(NAME))
    add(commands, "login", _login, "--local", url="?")
    for kind in ("preview", "up", "refresh", "destroy"):
        add(commands, kind, _operation(kind), "--skip-preview|-f", "--json|-j", "--diff", "--suppress-progress",
            "--suppress-outputs", "--show-secrets", "--refresh|-r")  # fmt: skip
    stack = commands.add_parser("stack").add_subparsers(required=True)
    add(stack, "init", _stack_init, name="?")
    add(stack, "select", _stack_select, "--create|-c", name="?")
    add(stack, "ls", _stack_list, "--json|-j")
    add(stack, "rm", _stack_remove, "--force|-f", "--preserve-config", name="?")
    add(stack, "output", _stack_output, "--json|-j", "--show-secrets", key="?")
    add(stack, "export", _stack_export, "--show-secrets")
    config = commands.add_parser("config", parents=[common])
    config.add_argument("--json", "-j", action="store_true")
    config.add_argument("--show-secrets", action="store_true")
    config.set_defaults(run=_config_list)
    config = config.add_subparsers()
    add(config, "set", _config_set, "--secret", "--plaintext", "--path", key=None, value="?")
    add(config, "get", _config_get, "--json|-j", "--path", key=None)
    add(config, "rm", _config_remove, "--path", key=None)
    return parser


def _login(context: Context) -> None:
    print(f"Logged in to this machine ({Backend.from_environment().folder})")


# Stacks.


def _stack_init(context: Context) -> None:
    stack = context.options.name or context.stack
    state = context.backend.state(context.project.name, stack)
    if state.exists():
        raise CliError(f"stack '{stack}' already exists")
    StackConfig(context.project, stack).cipher()
    state.write([], None)
    context.select(stack)
    print(f"Created stack '{stack}'")


def _stack_select(context: Context) -> None:
    stack = context.options.name or context.stack
    if not context.backend.state(context.project.name, stack).exists():
        if context.options.create:
            return _stack_init(context)
        raise CliError(f"no stack named '{stack}' found")
    return context.select(stack)


def _stack_list(context: Context) -> None:
    project = context.project.name
    current = json.loads(context.selection.read_text())["stack"] if context.selection.is_file() else ""
    rows = []
    for name in context.backend.stacks(project):
        count = len(context.backend.state(project, name).read(None))
        rows.append({"name": name, "current": name == current, "updateInProgress": False, "resourceCount": count})
    if context.options.json:
        print(json.dumps(rows, indent=2))
        return
    print("NAME  RESOURCE COUNT")
    for row in rows:
        print(f"{row['name']}{'*' if row['current'] else ''}  {row['resourceCount']}")


def _stack_remove(context: Context) -> None:
    context.options.stack = context.options.name or context.options.stack
    state = context.state
    if state.read(None) and not context.options.force:
        raise CliError(
            f"'{context.stack}' still has resources; removal rejected. Possible actions:\n"
            f"- Make sure that '{context.stack}' is the stack that you want to destroy\n"
            "- Run `pulumi destroy` to delete the resources, then run `pulumi stack rm`\n"
            "- Run `pulumi stack rm --force` to override this error"
        )
    state.path.unlink()
    if not context.options.preserve_config:
        context.config.path.unlink(missing_ok=True)
    print(f"Stack '{context.stack}' has been removed!")


def _outputs(context: Context) -> Mapping[str, Any]:
    resources = context.state.read(context.config.cipher())
    return next((resource.outputs for resource in resources if resource.type == ROOT), {})


def _stack_output(context: Context) -> None:
    show = unwrapped if context.options.show_secrets else masked
    outputs = {key: show(value) for key, value in sorted(_outputs(context).items())}
    if context.options.key:
        if context.options.key not in outputs:
            raise CliError(f"current stack does not have output property '{context.options.key}'")
        value = outputs[context.options.key]
        print(json.dumps(value, indent=2) if context.options.json or not isinstance(value, str) else value)
    elif context.options.json:
        print(json.dumps(outputs, indent=2))
    else:
        print(f"Current stack outputs ({len(outputs)}):")
        for key, value in outputs.items():
            print(f"    {key}  {as_text(value)}")


def _stack_export(context: Context) -> None:
    data = json.loads(context.state.path.read_text())
    deployment = data["checkpoint"]["latest"]
    if context.options.show_secrets:
        deployment = context.config.cipher().open(deployment)
    print(json.dumps({"version": data["version"], "deployment": deployment}, indent=2))


# Configuration.


def _config_set(context: Context) -> None:
    assert context.state
    options, config = context.options, context.config
    value: Any = options.value if options.value is not None else sys.stdin.read().rstrip("\n")
    if options.secret:
        value = {"secure": config.cipher().encrypt(value)}
    elif context.project.declared().get(context.project.full(options.key), {}).get("secret"):
        raise CliError(
            f"config key '{options.key}' is declared secret in Pulumi.yaml; set it with --secret"  # the double's own
        )
    if options.path:
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            value = value.lower() == "true"
        elif isinstance(value, str) and value.isdigit():
            value = int(value)
        config.put_path(options.key, value)
    else:
        config.put(options.key, value)
    config.save()


def _config_get(context: Context) -> None:
    assert context.state
    values, _ = context.config.opened()
    key = context.project.full(context.options.key)
    if key not in values:
        raise CliError(f"configuration key '{context.options.key}' not found for stack '{context.stack}'")
    print(as_text(values[key]))


def _config_remove(context: Context) -> None:
    assert context.state
    config = context.config
    (config.data.get("config") or {}).pop(context.project.full(context.options.key), None)
    config.save()


def _config_list(context: Context) -> None:
    assert context.state
    values, secret_keys = context.config.opened()
    rows: dict[str, dict[str, Any]] = {}
    for key, value in sorted(values.items()):
        rows[key] = {"secret": key in secret_keys}
        if key not in secret_keys or context.options.show_secrets:
            rows[key]["value"] = as_text(value)
            if isinstance(value, dict | list):
                rows[key]["objectValue"] = value
    if context.options.json:
        print(json.dumps(rows, indent=2))
        return
    print("KEY  VALUE")
    for key, row in rows.items():
        print(f"{key.removeprefix(context.project.name + ':')}  {row.get('value', '[secret]')}")


# Operations.


def _operation(kind: str) -> Any:
    def run(context: Context) -> int:
        from .operations import operate  # noqa: PLC0415 - gRPC is slow to import, and other commands do without

        if kind != "preview" and not context.options.yes:
            raise CliError("--yes or --skip-preview must be passed in to proceed when running in non-interactive mode")
        state, config = context.state, context.config
        previews = [True] if kind == "preview" else [False] if context.options.skip_preview else [True, False]
        for preview in previews:
            if not operate(kind, config, state, preview, context.options):
                return FAILED
        if kind == "destroy":
            print(
                "The resources in the stack have been deleted, but the history and configuration associated with the "
                "stack are still maintained. \nIf you want to remove the stack completely, run "
                f"`pulumi stack rm {context.stack}`."
            )
        return 0

    return run
