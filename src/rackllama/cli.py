"""`rackllama`: one command, with a subcommand for each part that has something to type."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from rackllama.host.errors import RackllamaError

EXIT_ERROR = 2
EXIT_PIPE = 141
PARTS = {
    "hardware": "catalog",
    "models": "catalog",
    "key": "gateway",
    "lab": "lab",
    "land": "landing",
    "lock": "mirror",
    "plan": "planning",
    "stack": "provision",
    "tools": "provision",
}


def build_parser(named: str | None = None) -> argparse.ArgumentParser:
    """The command line; each part adds its commands and sets `run`, from arguments to exit code.

    Only the part whose command is named is loaded, as some take a second for it; all where none is.
    """
    parser = argparse.ArgumentParser(prog="rackllama", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in [PARTS[named]] if named in PARTS else dict.fromkeys(PARTS.values()):
        import_module(f"rackllama.{part}.cli").add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 a check failed, 2 an error, which is told with its remedy, 3 no fit."""
    given = sys.argv[1:] if argv is None else argv
    arguments = build_parser(next(iter(given), None)).parse_args(given)
    try:
        code: int = arguments.run(arguments)
    except RackllamaError as error:
        print(f"rackllama: {error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who read on had enough, as `head` has; nothing more may be written, not even at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    return code
