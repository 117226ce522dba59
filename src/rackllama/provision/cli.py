"""`rackllama stack`: hosts by Pulumi, and Ansible after it. `rackllama tools`: the Pulumi CLI."""

import argparse
import json
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.lab.up import CHECKOUT
from rackllama.mirror.lock import default_lock_path, read_lock
from rackllama.provision.pulumi_cli import chosen_backend, find_pulumi, install_pulumi, pulumi_environment, tools_folder
from rackllama.provision.stacks import Stack, bring_up, converge, open_stack, open_stacks
from rackllama.provision.standing import standing, standing_words
from rackllama.provision.state import State
from rackllama.provision.teardown import Teardown, teardown

DEFAULT_STACK = "dev"


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands about stacks and what they need."""
    parser = commands.add_parser("stack", help="hosts by Pulumi, in a cloud, on bare metal or as a lab")
    stack = parser.add_subparsers(dest="stack_command", required=True, metavar="STACK_COMMAND")

    preview = stack.add_parser(
        "preview", help="what `up` would do, and what it would cost; at most adds an empty stack to the state"
    )
    _add_names(preview)
    _add_refresh(preview)
    preview.set_defaults(run=_preview)

    up = stack.add_parser("up", help="have the hosts, wait for them, and converge them by playbooks/site.yml")
    _add_names(up)
    _add_refresh(up)
    up.add_argument("--yes", action="store_true", help="without asking after the preview")
    up.add_argument("--hosts-only", action="store_true", help="without Ansible")
    up.set_defaults(run=_up)

    down = stack.add_parser("down", help="destroy the hosts; shows first what goes, what remains and what that costs")
    _add_names(down)
    down.add_argument("--yes", action="store_true", help="without asking")
    down.add_argument("--dry-run", action="store_true", help="show what goes and what remains, and destroy nothing")
    down.add_argument("--json", action="store_true", help="as JSON; with --dry-run")
    down.set_defaults(run=_down)

    show = stack.add_parser("list", help="the stacks that there are, what they cost an hour, and since when")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(run=_list)

    env = stack.add_parser(
        "env", help='what plain `pulumi` needs to find the same state: eval "$(rackllama stack env)"'
    )
    env.set_defaults(run=_env)

    tools = commands.add_parser("tools", help="the Pulumi CLI: the one on PATH, or the pinned one installed")
    tools.add_argument(
        "--lock", type=Path, default=None, metavar="PATH", help="default: artefacts.lock of the checkout"
    )
    tools.add_argument("--mirror", default="", metavar="URL", help="fetch https://HOST/PATH as URL/HOST/PATH")
    tools.set_defaults(run=_tools)


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("project", metavar="NAME", help="aws, baremetal or lab: a folder of stacks/")
    parser.add_argument("--stack", default=DEFAULT_STACK, metavar="STACK", help="which of its stacks (default: dev)")


def _add_refresh(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--refresh", action="store_true", help="first look what others changed or removed")


def _open(arguments: argparse.Namespace) -> Stack:
    return open_stack(arguments.project, arguments.stack, CHECKOUT, os.environ)


def _preview(arguments: argparse.Namespace) -> int:
    stack = _open(arguments)
    stack.select()
    return 1 if stack.stream("preview", *_refresh(arguments)).code else 0


def _refresh(arguments: argparse.Namespace) -> list[str]:
    return ["--refresh"] if arguments.refresh else []


def _up(arguments: argparse.Namespace) -> int:
    stack = _open(arguments)
    stack.select()
    if stack.stream("preview", *_refresh(arguments)).code:
        raise RackllamaError(f"the preview of {stack} failed, as it says above; nothing was made", "mend it, run again")
    if not (arguments.yes or _agreed(f"Bring up {stack} like this?")):
        return 1
    bring_up(stack, refresh=arguments.refresh)
    if not arguments.hosts_only:
        converge(stack)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    stack = _open(arguments)
    found = _teardown_of(stack)
    if arguments.dry_run:
        print(json.dumps(found.as_data(), indent=2) if arguments.json else f"{found.going()}\n{found.staying()}")
        return 0
    doubtful = 1 if found.unknown else 0
    if not found.goes:
        if not doubtful:
            print(f"{stack}: nothing to destroy in the state at {stack.backend}")
        if found.stays or doubtful:
            print(found.staying())
        return doubtful
    print(f"{found.going()}\n{found.staying()}")
    if not (arguments.yes or _agreed(f"Destroy {stack}?")):
        return 1
    exclude = ["--exclude-protected"] if found.has_protected else []
    if stack.stream("destroy", "--yes", "--skip-preview", *exclude).code:
        raise RackllamaError(
            f"`pulumi destroy` of the stack {stack} failed, as it says above; what is left may be billed",
            f"mend it and run again: rackllama stack down {stack.project}",
        )
    print(f"{stack} is down{', as far as its state knows' if doubtful else ''}\n{found.staying()}")
    return doubtful


def _teardown_of(stack: Stack) -> Teardown:
    if not stack.exists():
        return teardown(str(stack), State(), [])
    return teardown(str(stack), stack.state(), stack.outputs().get("costs") or [])


def _list(arguments: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    found = [
        standing((stack.project, stack.name), stack.state(), stack.outputs(), now)
        for stack in open_stacks(CHECKOUT, os.environ)
    ]
    if arguments.json:
        print(json.dumps([one.as_data() for one in found], indent=2))
    else:
        backend = chosen_backend(pulumi_environment(os.environ))
        print("\n".join(map(standing_words, found)) or f"no stacks in the state at {backend}")
    return 1 if any(one.unknown for one in found) else 0


def _env(_arguments: argparse.Namespace) -> int:
    own = pulumi_environment(os.environ, find_pulumi(os.environ))
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE_FILE", "PATH"):
        if own.get(name) != os.environ.get(name):
            print(f"export {name}={shlex.quote(own[name])}")
    return 0


def _tools(arguments: argparse.Namespace) -> int:
    try:
        cli = find_pulumi(os.environ)
    except RackllamaError as missing:
        print(f"{missing.message}; installing the pinned one", file=sys.stderr)
        install_pulumi(read_lock(arguments.lock or default_lock_path()), arguments.mirror, tools_folder())
        cli = find_pulumi(os.environ)
    print(cli)
    return 0


def _agreed(question: str) -> bool:
    """Whether a person says yes. Raises RackllamaError where there is none to ask."""
    if not sys.stdin.isatty():
        raise RackllamaError("nobody is there to ask", "give --yes")
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
