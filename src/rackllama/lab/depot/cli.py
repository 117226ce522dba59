"""`rackllama lab depot`: fill the depot, and serve it."""

import argparse
from typing import Any

from rackllama.lab.depot.depot import fill
from rackllama.lab.depot.progress import Progress
from rackllama.lab.depot.server import PORT, serve, stop_serving


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add `depot` to the commands about the lab."""
    depot = commands.add_parser(
        "depot",
        help="build, once, the artefacts that lab hosts install",
        description="Fill the depot, and say where it is.",
    )
    then = depot.add_mutually_exclusive_group()
    then.add_argument("--serve", action="store_true", help="then serve it as a mirror, until interrupted")
    then.add_argument("--stop", action="store_true", help="end the servers that `rackllama lab` started; fill nothing")
    depot.add_argument("--address", default="127.0.0.1", help="where to serve (default: %(default)s)")
    depot.add_argument("--port", type=int, default=PORT, help="(default: %(default)s)")
    depot.set_defaults(run=_depot)


def _depot(arguments: argparse.Namespace) -> int:
    if arguments.stop:
        print("\n".join(f"stopped {url}" for url in stop_serving()) or "no depot is served")
        return 0
    depot = fill(Progress())
    print(f"the lab depot is filled: {depot.root}")
    if arguments.serve:
        serve(arguments.address, arguments.port, lambda url: print(f"serving it at {url}", flush=True))
    return 0
