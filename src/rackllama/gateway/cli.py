"""`rackllama key`: who may use the gateways of an inventory."""

import argparse
import json
import shlex
import sys
from typing import Any

from rackllama.gateway.remote import Answers, ask_gateways
from rackllama.host.errors import RackllamaError
from rackllama.host.gateway.keys import Key, key_of, new_key, require_user


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands about keys."""
    parser = commands.add_parser("key", help="create, list and revoke the keys of those who may use a gateway")
    keys = parser.add_subparsers(dest="key_command", required=True, metavar="KEY_COMMAND")

    create = keys.add_parser("create", help="let a user in by a new key, which is shown once and kept nowhere")
    create.add_argument("user", metavar="USER")
    create.add_argument(
        "--id", metavar="ID", help="no new key, but the one of that id, for the gateways that lack it as they were down"
    )
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
    if arguments.id:
        return _spread(arguments)
    text = new_key()
    key = key_of(text, arguments.user)
    answers = ask_gateways(arguments.inventory, added=[key])
    if not answers.present:
        # Nobody ever saw the key: what was recorded of it is to go again, so that another try begins anew.
        ask_gateways(arguments.inventory, revoked=[key.sha256])
        raise answers.error(f"no key was created for {arguments.user}")
    print(text)
    print(f"This key of {arguments.user} is shown once.", file=sys.stderr)
    return _told_who_has(key, answers, arguments)


def _spread(arguments: argparse.Namespace) -> int:
    """Let a key that some gateways have in at the others."""
    found = {key for present in ask_gateways(arguments.inventory).present.values() for key in present}
    keys = [key for key in found if key.user == arguments.user and key.sha256.startswith(arguments.id)]
    if len(keys) != 1:
        raise RackllamaError(
            f"{len(keys)} keys of {arguments.user} begin with {arguments.id}", "see which there are: rackllama key list"
        )
    return _told_who_has(keys[0], ask_gateways(arguments.inventory, added=keys), arguments)


def _told_who_has(key: Key, answers: Answers, arguments: argparse.Namespace) -> int:
    """Tell which gateways let a key in. Raises RackllamaError where some do not yet, with what to type then."""
    print(f"{key.id} of {key.user} is let in at {', '.join(answers.present) or 'no gateway'}", file=sys.stderr)
    if answers.failed:
        raise answers.error(
            f"not every gateway lets {key.id} in yet",
            f"when they are back, type: rackllama key create {key.user} --id {key.id}{_inventory(arguments)}",
        )
    return 0


def _inventory(arguments: argparse.Namespace) -> str:
    """The inventories as they were typed."""
    return "".join(f" -i {shlex.quote(path)}" for path in arguments.inventory)


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
        raise answers.error(
            f"not every gateway refuses {arguments.name} yet",
            f"when they are back, type: rackllama key revoke {arguments.name}{_inventory(arguments)}",
        )
    if not revoked:
        raise RackllamaError(f"no key is {arguments.name}'s, or has that id", "see which there are: rackllama key list")
    return 0
