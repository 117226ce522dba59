"""Ask a lab's model as its users do: by HTTPS through the host's gateway, with a key that goes with the question."""

import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko

from rackllama.host.errors import RackllamaError
from rackllama.host.models.ollama import Ollama
from rackllama.lab.hosts import Host, Lab, ssh_client

PROGRAM = "python3 -I /opt/rackllama/current/rackllama-host.pyz"
AUTHORITY = "/etc/rackllama/gateway/ca.crt"


@contextmanager
def through_gateway(lab: Lab, host: Host) -> Iterator[Ollama]:
    """The host's engine behind its gateway. Raises RackllamaError where the host is none."""
    user = f"lab-{secrets.token_hex(4)}"
    with ssh_client(lab, host) as client:
        trust = ssl.create_default_context(cadata=_as_root(client, host, f"cat {AUTHORITY}"))
        key = _as_root(client, host, f"{PROGRAM} key create {user}").strip()
        try:
            yield Ollama(f"https://{host.address}", {"Authorization": f"Bearer {key}"}, trust)
        finally:
            _as_root(client, host, f"{PROGRAM} key revoke {user}")


def _as_root(client: paramiko.SSHClient, host: Host, command: str) -> str:
    _, stdout, stderr = client.exec_command(f"sudo -n {command}")
    said, complaint = stdout.read().decode(), stderr.read().decode()
    if stdout.channel.recv_exit_status():
        raise RackllamaError(
            f"{host.name} is no gateway: {complaint.strip()}", f"converge it: rackllama lab up {host.lab}"
        )
    return said
