"""`rackllama`: one command, with a subcommand for each part that has something to type."""

import argparse
import sys
from collections.abc import Sequence

from rackllama.catalog import cli as catalog
from rackllama.gateway import cli as gateway
from rackllama.host.errors import RackllamaError
from rackllama.lab import cli as lab
from rackllama.landing import cli as landing
from rackllama.mirror import cli as mirror

EXIT_ERROR = 2


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each part adds its subcommands and sets `run`, from arguments to exit code."""
    parser = argparse.ArgumentParser(prog="rackllama", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    catalog.add_commands(commands)
    gateway.add_commands(commands)
    lab.add_commands(commands)
    landing.add_commands(commands)
    mirror.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 a check failed, 2 an error, which is told with its remedy."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except RackllamaError as error:
        print(f"rackllama: {error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 130
    return code
