"""`rackllama key`: who may use the gateways of an inventory."""

import argparse
import json
import sys
from typing import Any

from rackllama.gateway.remote import ask_gateways
from rackllama.host.errors import RackllamaError
from rackllama.host.keys import Key, key_of, new_key, require_user


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands about keys."""
    parser = commands.add_parser("key", help="create, list and revoke the keys of those who may use a gateway")
    keys = parser.add_subparsers(dest="key_command", required=True, metavar="KEY_COMMAND")

    create = keys.add_parser("create", help="let a user in by a new key, which is shown once and kept nowhere")
    create.add_argument("user", metavar="USER")
    create.set_defaults(run=_create)

    show = keys.add_parser("list", help="show the id and user of each key")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(run=_list)

    revoke = keys.add_parser("revoke", help="refuse all keys of a user, or one key, from now on")
    revoke.add_argument("name", metavar="USER|ID", help="a user, or the id of one key, as `key list` shows it")
    revoke.set_defaults(run=_revoke)

    for command in (create, show, revoke):
        command.add_argument(
            *("-i", "--inventory"),
            action="append",
            default=[],
            metavar="PATH",
            help="an inventory as Ansible takes it, whose group `gateway` is meant; default: Ansible's own",
        )


def _create(arguments: argparse.Namespace) -> int:
    require_user(arguments.user)
    text = new_key()
    key = key_of(text, arguments.user)
    answers = ask_gateways(arguments.inventory, added=[key])
    if answers.failed:
        # Nobody ever saw the key: what was recorded of it is to go again, so that another try begins anew.
        undone = ask_gateways(arguments.inventory, revoked=[key.sha256])
        left = [host for host, present in undone.present.items() if key in present]
        raise answers.error(f"no key was created for {arguments.user}" + (f"; {key.id} is left" if left else ""))
    print(text)
    print(f"This key of {arguments.user} is shown once: {key.id} at {', '.join(answers.present)}", file=sys.stderr)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    answers = ask_gateways(arguments.inventory)
    keys = sorted({key for present in answers.present.values() for key in present}, key=lambda key: key.user)
    found = [
        {"id": key.id, "user": key.user, "gateways": [host for host, has in answers.present.items() if key in has]}
        for key in keys
    ]
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for key in found:
            print(f"{key['id']}  {key['user']:<24} {', '.join(key['gateways'])}")
    if answers.failed:
        raise answers.error("not every gateway could be asked")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    answers = ask_gateways(arguments.inventory, revoked=[arguments.name])
    revoked: dict[Key, list[str]] = {}
    for host, keys in answers.revoked.items():
        for key in keys:
            revoked.setdefault(key, []).append(host)
    for key, hosts in revoked.items():
        print(f"revoked {key.id}  {key.user} at {', '.join(hosts)}", file=sys.stderr)
    if answers.failed:
        raise answers.error(f"not every gateway refuses {arguments.name} yet")
    if not revoked:
        raise RackllamaError(f"no key is {arguments.name}'s, or has that id", "see which there are: rackllama key list")
    return 0
