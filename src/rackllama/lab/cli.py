"""`rackllama lab`: start, stop and show labs."""

import argparse
import json
import shlex
import subprocess
from typing import Any

from rackllama.lab import hosts
from rackllama.lab.depot import cli as depot
from rackllama.lab.depot.progress import Progress
from rackllama.lab.image import SUITES
from rackllama.lab.inventory import lab_groups
from rackllama.lab.up import QUESTION, Stopwatch, ask, start_lab, stop_lab, up

DEFAULT_NAME = "lab"


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands about the lab."""
    parser = commands.add_parser("lab", help="hosts on this machine to try everything on")
    lab = parser.add_subparsers(dest="lab_command", required=True, metavar="LAB_COMMAND")

    start = lab.add_parser("start", help="have a lab with so many hosts, booted and reachable by SSH")
    _add_name(start)
    _add_size(start)
    start.add_argument(
        "--device", action="append", default=[], metavar="DEVICE", help="a block device that its one host gets"
    )
    start.set_defaults(run=_start)

    up = lab.add_parser("up", help="a lab, converged by playbooks/site.yml, and a question answered by its model")
    _add_name(up)
    _add_size(up)
    up.set_defaults(run=_up)

    ask = lab.add_parser("ask", help="ask the model on a lab's first host")
    _add_name(ask)
    ask.add_argument("question", nargs="?", default=QUESTION, metavar="QUESTION")
    ask.set_defaults(run=_ask)

    shell = lab.add_parser("shell", help="log in to a lab's first host")
    _add_name(shell)
    shell.set_defaults(run=_shell)

    stop = lab.add_parser("stop", help="remove a lab and everything in it")
    _add_name(stop)
    stop.add_argument("--all", action="store_true", help="remove every lab")
    stop.set_defaults(run=_stop)

    show = lab.add_parser("list", help="show the labs there are")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(run=_list)

    inventory = lab.add_parser("inventory", help="print a lab's hosts as JSON, as `pulumi stack output` would")
    _add_name(inventory)
    inventory.set_defaults(run=_inventory)

    depot.add_commands(lab)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default=DEFAULT_NAME, metavar="NAME", help="the lab (default: %(default)s)")


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=int, default=1, metavar="N", help="how many hosts (default: 1)")
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0], help="which Debian (default: %(default)s)")


def _up(arguments: argparse.Namespace) -> int:
    print(up(arguments.name, arguments.hosts, arguments.suite, Progress()))
    return 0


def _ask(arguments: argparse.Namespace) -> int:
    lab = hosts.find_lab(arguments.name)
    model, chat = ask(lab, lab.hosts[0], arguments.question)
    print(f"{chat.text.strip()}\n\n{model}: {chat.tokens} tokens at {chat.tokens_per_second:.1f} tok/s")
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    lab = hosts.find_lab(arguments.name)
    variables = lab_groups(lab.name).variables[lab.hosts[0].name]
    options = shlex.split(variables["ansible_ssh_common_args"])
    login = f"{variables['ansible_user']}@{variables['ansible_host']}"
    return subprocess.run(["ssh", "-i", str(lab.key), *options, login], check=False).returncode


def _start(arguments: argparse.Namespace) -> int:
    lab = start_lab(arguments.name, arguments.hosts, arguments.suite, Stopwatch(Progress()), arguments.device)
    for host in lab.hosts:
        print(f"{host.name} {host.address} {host.state}")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    names = [lab.name for lab in hosts.labs()] if arguments.all else [arguments.name]
    stopped = [name for name in names if stop_lab(name)]
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing to stop")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found = [
        {"lab": host.lab, "host": host.name, "address": str(host.address), "suite": host.suite, "state": host.state}
        for host in hosts.all_hosts()
    ]
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for host in found:
            print("{lab:<12} {host:<14} {address:<15} {suite:<9} {state}".format(**host))
    return 0


def _inventory(arguments: argparse.Namespace) -> int:
    print(json.dumps(hosts.find_lab(arguments.name).inventory, indent=2))
    return 0
