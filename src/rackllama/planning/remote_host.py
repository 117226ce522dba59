"""What a host tells of its hardware, asked over SSH: nothing is installed there, written to a disk or changed."""

import getpass
import json
import re
import shlex
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import paramiko
from paramiko.config import SSH_PORT

from rackllama.host.errors import RackllamaError
from rackllama.landing.program import host_zipapp

TARGET = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>[^@\s:\[\]-][^@\s:\[\]]*)(?::(?P<port>\d{1,5}))?")
TARGET_IPV6 = re.compile(r"(?:(?P<user>[^@\s]+)@)?\[(?P<host>[0-9a-fA-F:.]+(?:%\w+)?)\](?::(?P<port>\d{1,5}))?")
CONNECT_SECONDS = 15.0
REMEDY = "remedy: "  # as the program on the host tells it
ANSWER_SECONDS = 240.0  # nvidia-smi takes up to a minute where a GPU is in trouble, and is asked three times
# The program comes through stdin and stays in memory, so that nothing is left behind whatever happens.
RUN = (
    "import os, runpy, sys; "
    'sys.version_info >= (3, 9) or sys.exit("its python3 is older than 3.9"); '
    'hasattr(os, "memfd_create") or sys.exit("it does not run Linux"); '
    'program = os.memfd_create("rackllama-host"); '
    'open(program, "wb", closefd=False).write(sys.stdin.buffer.read()); '
    'sys.argv = ["rackllama-host", "describe"]; '
    'runpy.run_path(f"/proc/self/fd/{program}", run_name="__main__")'
)


@dataclass(frozen=True)
class SshTarget:
    """Where to connect to and as whom, after `~/.ssh/config` had its say; `proxy` is the command to go through, if any.

    `alias` is the host as it was given, by which `ssh` finds the same settings.
    """

    alias: str
    host: str
    port: int
    user: str
    identities: tuple[str, ...] = ()
    only_identities: bool = False
    known_hosts: tuple[str, ...] = ()
    proxy: str | None = None

    @property
    def ssh(self) -> str:
        """The command that logs in there by hand."""
        port = [] if self.port == SSH_PORT else ["-p", str(self.port)]
        return shlex.join(["ssh", *port, f"{self.user}@{self.alias}"])

    @property
    def known_name(self) -> str:
        """The host as `known_hosts` has it."""
        return self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"


def describe_host(target: str, folder: Path | None = None) -> dict[str, Any]:
    """What the host `[USER@]HOST[:PORT]` tells of its hardware, as `rackllama.host.hardware.description` has it.

    Keys come from the agent, and from `folder` (default: `~/.ssh`) as its `config` says; the host has to be in its
    `known_hosts`. Takes seconds. Raises RackllamaError where the host is unknown, another one than before or out of
    reach, where it refuses the login, or cannot tell.
    """
    folder = folder or Path.home() / ".ssh"
    found = read_target(target, folder)
    with paramiko.SSHClient() as client:
        _connect(client, found)
        output, said, code = _run(client, found)
    return {"name": found.alias, **_parsed(output, said, code, found)}


def read_target(target: str, folder: Path) -> SshTarget:
    """The target as the SSH configuration of a user completes it.

    Raises RackllamaError where it is no target, or the configuration cannot be read.
    """
    told = TARGET_IPV6.fullmatch(target.strip()) or TARGET.fullmatch(target.strip())
    if not told or not 0 < int(told["port"] or SSH_PORT) < 2**16:
        raise RackllamaError(f"{target!r} is no host to log in to", "give it as HOST, USER@HOST or USER@HOST:PORT")
    settings = _settings(folder / "config", told["host"])
    host, port = settings.get("hostname", told["host"]), int(told["port"] or settings.get("port", SSH_PORT))
    known_hosts = settings.get("userknownhostsfile", str(folder / "known_hosts"))
    system_hosts = settings.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")
    return SshTarget(
        alias=told["host"],
        host=host,
        port=port,
        user=told["user"] or settings.get("user") or getpass.getuser(),
        identities=tuple(path for path in settings.get("identityfile", ()) if Path(path).is_file()),
        only_identities=settings.get("identitiesonly", "no") == "yes",
        known_hosts=(*known_hosts.split(), *system_hosts.split()),
        proxy=_proxy(settings, host, port),
    )


def _settings(path: Path, host: str) -> Any:
    if not path.is_file():
        return {}
    try:
        return paramiko.SSHConfig.from_path(str(path)).lookup(host)
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, ImportError) as error:
        raise RackllamaError(f"{path} cannot be read: {error}", f"mend it: ssh -G {shlex.quote(host)}") from error


def _proxy(settings: Any, host: str, port: int) -> str | None:
    jump = settings.get("proxyjump")
    if jump and jump != "none":
        *through, last = jump.split(",")
        return shlex.join(["ssh", *(["-J", ",".join(through)] if through else []), "-W", f"{host}:{port}", last])
    command: str | None = settings.get("proxycommand")
    return None if command == "none" else command


class _Refuse(paramiko.MissingHostKeyPolicy):
    """Nobody is trusted at first sight; how to get to know a host is told."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> NoReturn:  # noqa: ARG002
        raise RackllamaError(
            f"{self._target.alias} is not known here: its {key.get_name()} key is {_fingerprint(key)}",
            f"compare that with the host's own, and log in once, which keeps the key: {self._target.ssh}",
        )


def _fingerprint(key: paramiko.PKey) -> str:
    """As `ssh-keygen -l` prints it."""
    return f"SHA256:{b64encode(sha256(key.asbytes()).digest()).decode().rstrip('=')}"


def _connect(client: paramiko.SSHClient, target: SshTarget) -> None:
    for path in target.known_hosts:
        if Path(path).expanduser().is_file():
            client.load_system_host_keys(str(Path(path).expanduser()))
    client.set_missing_host_key_policy(_Refuse(target))
    try:
        client.connect(
            target.host,
            target.port,
            target.user,
            key_filename=list(target.identities) or None,  # type: ignore[arg-type] # it takes a list as well
            allow_agent=not target.only_identities,
            look_for_keys=not target.only_identities,
            timeout=CONNECT_SECONDS,
            banner_timeout=CONNECT_SECONDS,
            auth_timeout=CONNECT_SECONDS,
            sock=paramiko.ProxyCommand(target.proxy) if target.proxy else None,
        )
    except paramiko.BadHostKeyException as error:
        known_name = shlex.quote(target.known_name)
        raise RackllamaError(
            f"{target.alias} has another key than it had: {_fingerprint(error.key)}",
            f"find out why; where it was installed anew, forget the old one: ssh-keygen -R {known_name}",
        ) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        transport = client.get_transport()
        # Where one of several keys is of a kind that it cannot read, paramiko says that of a login that was refused.
        if isinstance(error, paramiko.AuthenticationException) or (transport and transport.is_active()):
            raise RackllamaError(
                f"{target.alias} does not let {target.user} in with any key there is",
                f"see that this works without a question asked: {target.ssh} true (a key with a passphrase: ssh-add)",
            ) from error
        raise RackllamaError(
            f"{target.alias} cannot be reached by SSH at {target.known_name}: {error or type(error).__name__}",
            f"see that this works: {target.ssh} true",
        ) from error


def _run(client: paramiko.SSHClient, target: SshTarget) -> tuple[str, str, int]:
    """What the program prints on the host, what is said of errors, and its exit code."""
    try:
        stdin, stdout, stderr = client.exec_command(f"python3 -c {shlex.quote(RUN)}", timeout=ANSWER_SECONDS)
        try:
            stdin.write(host_zipapp())
            stdin.channel.shutdown_write()
        except OSError:  # it ended before it had read all, and says why
            pass
        output, said = stdout.read(), stderr.read()
        code = stdout.channel.recv_exit_status()
    except TimeoutError as error:
        raise RackllamaError(
            f"{target.alias} does not tell its hardware within {ANSWER_SECONDS:.0f} s", f"see: {target.ssh} nvidia-smi"
        ) from error
    except (paramiko.SSHException, OSError) as error:
        raise RackllamaError(f"{target.alias} ended the connection: {error}", "try again") from error
    return output.decode("utf-8", "replace"), said.decode("utf-8", "replace"), code


def _parsed(output: str, said: str, code: int, target: SshTarget) -> dict[str, Any]:
    lines = [line for line in output.splitlines() if line.startswith("{")]  # profiles of shells may print as well
    if code == 0 and lines:
        described: dict[str, Any] = json.loads(lines[-1])
        return described
    words = [line.strip() for line in (said or output).splitlines() if line.strip()] or [f"exit code {code}"]
    remedy = "it has to run Linux, with a python3 of 3.9 or later; or tell what it has by --gpu and --ram"
    if words[-1].startswith(REMEDY):
        remedy = words.pop().removeprefix(REMEDY)
    raise RackllamaError(f"{target.alias} cannot tell its hardware: {words[-1]}", remedy)
