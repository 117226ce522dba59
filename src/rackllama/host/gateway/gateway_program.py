"""The commands of `rackllama-host.pyz` for a gateway: its keys, and a certificate that somebody else renews."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from .. import systemd
from ..errors import RackllamaError
from ..files import read_json
from .certificate import CertificateFile
from .keys import add, key_of, keys, new_key, require_user, revoke


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands."""
    key = commands.add_parser("key", help="the keys of the gateway on this host; as root")
    what = key.add_subparsers(dest="key_command", required=True)
    create = what.add_parser("create", help="let a user in by a new key, which is shown once")
    create.add_argument("user")
    what.add_parser("list", help="show the id and user of each key")
    revoked = what.add_parser("revoke", help="refuse the keys of a user, or one key")
    revoked.add_argument("name", help="a user, or the id of a key")
    certificate = commands.add_parser("certificate", help="give a service a renewed certificate")
    certificate.add_argument("file", type=Path, help="/etc/rackllama/NAME/certificate.json")


def run_key(arguments: argparse.Namespace) -> int:
    """Create, list or revoke; gives the exit code."""
    os.umask(0o022)
    if arguments.key_command == "create":
        require_user(arguments.user)
        text = new_key()
        add(key_of(text, arguments.user))
        print(text)
    elif arguments.key_command == "list":
        for key in keys():
            print(f"{key.id}  {key.user}")
    else:
        revoked = revoke(arguments.name)
        if not revoked:
            raise RackllamaError(f"no key is {arguments.name}'s, or has that id", "see which there are: key list")
        for key in revoked:
            print(f"revoked {key.id}  {key.user}", file=sys.stderr)
    return 0


def run_certificate(arguments: argparse.Namespace) -> int:
    """Put a given certificate in place where it is another than before, and let its service read it."""
    given = read_json(arguments.file)
    if given is None:  # none is given any more
        return 0
    file = CertificateFile(Path(given["path"]), given["service"])
    pair = Path(given["certificate"]), Path(given["certificate_key"])
    if file.differs(*pair):
        file.take(*pair)
        systemd.run("systemctl", "reload", f"{given['service']}.service")
        print(f"{given['service']} has the certificate that {pair[0]} holds now", flush=True)
    return 0
