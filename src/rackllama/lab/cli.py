"""`rackllama lab`: start, stop and show labs."""

import argparse
import json
from typing import Any

from rackllama.lab import hosts
from rackllama.lab.image import SUITES

DEFAULT_NAME = "lab"


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands about the lab."""
    parser = commands.add_parser("lab", help="hosts on this machine to try everything on")
    lab = parser.add_subparsers(dest="lab_command", required=True, metavar="LAB_COMMAND")

    start = lab.add_parser("start", help="have a lab with so many hosts, booted and reachable by SSH")
    _add_name(start)
    start.add_argument("--hosts", type=int, default=1, metavar="N", help="how many hosts (default: 1)")
    start.add_argument("--suite", choices=SUITES, default=SUITES[0], help="which Debian (default: %(default)s)")
    start.set_defaults(run=_start)

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


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default=DEFAULT_NAME, metavar="NAME", help="the lab (default: %(default)s)")


def _start(arguments: argparse.Namespace) -> int:
    lab = hosts.start(arguments.name, arguments.hosts, arguments.suite)
    for host in lab.hosts:
        print(f"{host.name} {host.address} {host.state}")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    names = [lab.name for lab in hosts.labs()] if arguments.all else [arguments.name]
    stopped = [name for name in names if hosts.stop(name)]
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
