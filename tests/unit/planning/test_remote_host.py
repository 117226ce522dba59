"""Asking a host for its hardware over SSH. The server is a stand-in made of paramiko's own, on loopback; real ones were
asked by hand: docs/hardware.md."""

import shlex
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress

import paramiko
import pytest

from rackllama.host.errors import RackllamaError
from rackllama.planning.hardware import from_description
from rackllama.planning.remote_host import describe_host, read_target

USER = "ops"


class StandInHost(paramiko.ServerInterface):
    """Lets one user in with one key, and runs what it is told as a real host does, through a shell."""

    def __init__(self, key: paramiko.PKey, prelude: str) -> None:
        self._key = key
        self._prelude = prelude

    def get_allowed_auths(self, _username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        return paramiko.AUTH_SUCCESSFUL if (username, key) == (USER, self._key) else paramiko.AUTH_FAILED

    def check_channel_request(self, _kind, _chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel, command):
        with channel.makefile("rb") as sent:
            program = sent.read()
        done = subprocess.run(
            ["sh", "-c", f"{self._prelude}\n{command}"], input=program, capture_output=True, check=False
        )
        channel.sendall(done.stdout)
        channel.sendall_stderr(done.stderr)
        channel.send_exit_status(done.returncode)
        channel.close()


@contextmanager
def serving(host_key, user_key, prelude):
    """The port of a stand-in that serves logins, one after the other."""

    def serve(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with paramiko.Transport(connection) as transport:
                transport.add_server_key(host_key)
                # A client that does not trust it goes away at once.
                with suppress(paramiko.SSHException, EOFError, OSError):
                    transport.start_server(server=StandInHost(user_key, prelude))
                    transport.join(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


@pytest.fixture(scope="module")
def keys():
    return {name: paramiko.ECDSAKey.generate() for name in ("host", "user", "other")}


@pytest.fixture
def start(keys, tmp_path, monkeypatch):
    """Starts a stand-in, and gives its target and the `.ssh` folder of a user who knows it and has its key."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    opened = []

    def start(prelude="", known="host", login="user"):
        server = serving(keys["host"], keys["user"], prelude)
        port = server.__enter__()
        opened.append(server)
        keys[login].write_private_key_file(str(tmp_path / "id"))
        (tmp_path / "config").write_text(f"Host 127.0.0.1\n  IdentityFile {tmp_path}/id\n  IdentitiesOnly yes\n")
        known_key = f"{keys[known].get_name()} {keys[known].get_base64()}\n" if known else "\n"
        (tmp_path / "known_hosts").write_text(known and f"[127.0.0.1]:{port} {known_key}")
        return f"{USER}@127.0.0.1:{port}", tmp_path

    yield start
    for server in opened:
        server.__exit__(None, None, None)


def refusal(target, folder):
    with pytest.raises(RackllamaError) as caught:
        describe_host(target, folder)
    return caught.value


def test_a_host_tells_its_hardware_with_nothing_installed(start, tmp_path):
    target, folder = start(prelude="echo 'Welcome to {this host}'")
    described = describe_host(target, folder)
    assert described["name"] == "127.0.0.1"
    assert {"gpus", "driver", "ram_mib", "numa_nodes", "disks", "network_mbs"} <= described.keys()
    assert from_description(described).ram_mib > 0


def test_a_host_that_nobody_knows_is_not_logged_in_to(start):
    target, folder = start(known="")
    error = refusal(target, folder)
    assert "127.0.0.1 is not known here: its ecdsa-sha2-nistp256 key is SHA256:" in error.message
    assert f"log in once, which keeps the key: ssh -p {target[-5:].lstrip(':')} ops@127.0.0.1" in error.remedy
    assert (folder / "known_hosts").read_text() == ""


def test_a_host_with_another_key_than_before_is_not_logged_in_to(start):
    target, folder = start(known="other")
    error = refusal(target, folder)
    assert "127.0.0.1 has another key than it had: SHA256:" in error.message
    assert "ssh-keygen -R '[127.0.0.1]:" in error.remedy


def test_a_login_that_is_refused_says_what_must_work(start):
    target, folder = start(login="other")
    error = refusal(target, folder)
    assert "127.0.0.1 does not let ops in with any key" in error.message
    assert "see that this works without a question asked: ssh -p" in error.remedy


def test_a_host_out_of_reach_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refusal(f"ops@127.0.0.1:{port}", tmp_path)
    assert f"127.0.0.1 cannot be reached by SSH at [127.0.0.1]:{port}: " in error.message
    assert error.remedy == f"see that this works: ssh -p {port} ops@127.0.0.1 true"


@pytest.mark.parametrize(
    ("prelude", "complaint", "remedy"),
    [
        ("python3() { echo 'sh: 1: python3: not found' >&2; return 127; }", "python3: not found", "python3 of 3.9"),
        ("python3() { echo its python3 is older than 3.9 >&2; return 1; }", "older than 3.9", "python3 of 3.9"),
        ("python3() { printf 'no meminfo\\n  remedy: look at it\\n' >&2; return 2; }", "no meminfo", "look at it"),
        ("python3() { exit 9; }", "exit code 9", "python3 of 3.9"),
        ("exit 0", "exit code 0", "python3 of 3.9"),
    ],
)
def test_a_host_that_cannot_tell_says_why(start, prelude, complaint, remedy):
    error = refusal(*start(prelude=prelude))
    assert "127.0.0.1 cannot tell its hardware: " in error.message
    assert complaint in error.message
    assert remedy in error.remedy


CONFIG = """
Host gpu1
  HostName 10.0.0.5
  User root
  Port 2222
  ProxyJump ops@bastion,inner
  UserKnownHostsFile /srv/known
Host gpu2
  ProxyCommand nc %h %p
"""


def test_the_users_ssh_configuration_has_its_say(tmp_path):
    (tmp_path / "config").write_text(CONFIG)
    gpu1 = read_target("gpu1", tmp_path)
    assert (gpu1.host, gpu1.user, gpu1.port, gpu1.known_hosts[0]) == ("10.0.0.5", "root", 2222, "/srv/known")
    assert gpu1.ssh == "ssh -p 2222 root@gpu1"
    assert shlex.split(gpu1.proxy) == ["ssh", "-J", "ops@bastion", "-W", "10.0.0.5:2222", "inner"]
    own = read_target("me@gpu1:22", tmp_path)
    assert (own.user, own.port, own.ssh) == ("me", 22, "ssh me@gpu1")
    assert read_target("gpu2", tmp_path).proxy == "nc gpu2 22"


def test_a_target_needs_no_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGNAME", "me")
    plain = read_target("gpu9", tmp_path)
    assert (plain.host, plain.user, plain.port, plain.proxy, plain.identities) == ("gpu9", "me", 22, None, ())
    assert read_target("[fd00::5]:2200", tmp_path).known_name == "[fd00::5]:2200"


@pytest.mark.parametrize("target", ["", "a b", "-oProxyCommand=x", "u@", "host:0", "host:99999", "fd00::5", "u@h:p"])
def test_what_is_no_host_is_refused(target, tmp_path):
    assert "is no host to log in to" in refusal(target, tmp_path).message


def test_a_configuration_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "config").write_text('Host "gpu1\n')
    assert f"{tmp_path / 'config'} cannot be read" in refusal("gpu1", tmp_path).message
