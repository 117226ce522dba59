"""A machine with a BMC to try things on: sushy's emulator, and around it what an emulator alone does not have.

The emulator is the real one, with its fake driver: it keeps power, boot and virtual media as a BMC does, and fetches
the medium. Before it stands a proxy that writes down what is asked for, adds what that driver cannot tell (a serial
number, how far a boot is), and fails when told to. A machine that obeys it installs what is in the drive, powers off,
and answers as an SSH server does once it boots from its disk.
"""

import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import bcrypt

UUID = "27946b59-9e44-4fa7-8e91-f3527a1ef094"
SERIAL = "SN-1"
USER, PASSWORD = "admin", "correct horse"
SYSTEM = f"/redfish/v1/Systems/{UUID}"
TOLD = {"SerialNumber": SERIAL, "Model": "GPU server"}
DISK = {"Name": "NVMe", "CapacityBytes": 960197124096, "Protocol": "NVMe", "Id": "0"}
BOOT_TIMEOUT_SECONDS = 30

# The emulator waits 1 to 11 seconds before it carries a power change out; tests say how long, or leave it as it is.
RUN = "import random, sys; {lag}; from sushy_tools.emulator.main import main; sys.exit(main())"


@dataclass
class Bmc:
    """The proxy before the emulator, and what came by. Faults: `statuses` are answered, one a request; or `down`."""

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    down: bool = False
    looks: int = 0  # how often the machine was looked at
    down_after: tuple[str, str] | None = None  # the BMC goes down when it has done this
    overlay: dict[str, dict[str, Any]] = field(default_factory=lambda: {SYSTEM: dict(TOLD)})  # by path
    direct: str = ""  # the emulator itself

    def data(self, **more: Any) -> dict[str, Any]:
        """As inputs of a resource hold it."""
        given = {"name": "gpu1", "endpoint": self.url, "user": USER, "insecure": True}
        return {"system": "", "ca_file": "", "fingerprint": "", **given, **more}

    def state(self) -> dict[str, Any]:
        """The machine as the emulator itself tells it: no proxy in between, no faults."""
        return self._call("GET", SYSTEM)

    def medium(self) -> str:
        """The URL of what is in the virtual CD drive."""
        return str(self._call("GET", f"{SYSTEM}/VirtualMedia/Cd")["Image"])

    def reset(self, kind: str) -> None:
        """As somebody at the machine does, or its own system."""
        self._call("POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", {"ResetType": kind})

    def insert(self, url: str) -> None:
        """As somebody does at the BMC's own page."""
        self._call("POST", f"{SYSTEM}/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", {"Image": url})

    def wait_for(self, power: str) -> None:
        """Until the emulator has carried out what it was asked."""
        deadline = time.monotonic() + BOOT_TIMEOUT_SECONDS
        while self.state()["PowerState"] != power:
            assert time.monotonic() < deadline, f"the emulator did not turn {power}"
            time.sleep(0.05)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        status, _, answer = _forward(self.direct, method, path, json.dumps(body).encode() if body else b"", LOGIN)
        assert status < 400, answer
        return json.loads(answer) if answer else {}


LOGIN = {"Authorization": "Basic YWRtaW46Y29ycmVjdCBob3JzZQ==", "Content-Type": "application/json"}


@contextmanager
def emulator(folder: Path, lag: int | None = 2) -> Iterator[str]:
    """The address of an emulator of one machine that is off; `lag` in seconds, None for its own."""
    folder.mkdir(parents=True, exist_ok=True)
    users, config, log = folder / "users", folder / "config.py", folder / "log"
    users.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n", encoding="ascii")
    settings = {
        "SUSHY_EMULATOR_LISTEN_IP": "127.0.0.1",
        "SUSHY_EMULATOR_LISTEN_PORT": free_port(),
        "SUSHY_EMULATOR_AUTH_FILE": str(users),
        "SUSHY_EMULATOR_STATE_DIR": str(folder / "state"),
        "SUSHY_EMULATOR_STORAGE": {UUID: [{"Id": "1", "Name": "NVMe", "StorageControllers": [], "Drives": ["0"]}]},
        "SUSHY_EMULATOR_DRIVES": {(UUID, "1"): [DISK]},
    }
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()), encoding="utf-8")
    slow = "pass" if lag is None else f"random.randint = lambda *_: {lag}"
    argv = [sys.executable, "-c", RUN.format(lag=slow), "--fake", "--config", str(config)]
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        url = f"http://127.0.0.1:{settings['SUSHY_EMULATOR_LISTEN_PORT']}"
        try:
            _until_it_answers(url, process, log)
            yield url
        finally:
            process.terminate()


@contextmanager
def bmc(folder: Path, lag: int | None = 2, tls: ssl.SSLContext | None = None) -> Iterator[Bmc]:
    """A BMC with all that it has before it."""
    with emulator(folder, lag) as direct:
        state = Bmc(direct=direct)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@dataclass
class Hardware:
    """What stands behind a BMC: it boots what is there to boot. `port` is its SSH, once a system runs on it."""

    port: int
    installed: bool = False
    installs: list[str] = field(default_factory=list)  # what was booted, in order
    stuck: bool = False  # the installer goes on until `end_install`


@contextmanager
def hardware(machine: Bmc, *, installed: bool = False) -> Iterator[Hardware]:
    """A machine that obeys the emulator: it runs an installer that powers off, or the system on its disk."""
    state = Hardware(free_port(), installed)
    over = threading.Event()
    thread = threading.Thread(target=_run_hardware, args=(machine, state, over), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        over.set()
        thread.join()


def ssh_at(port: int) -> socket.socket:
    """Something that answers as an SSH server does, until it is closed."""
    listener = socket.create_server(("127.0.0.1", port))

    def greet() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.sendall(b"SSH-2.0-stand-in\r\n")

    threading.Thread(target=greet, daemon=True).start()
    return listener


def _run_hardware(machine: Bmc, state: Hardware, over: threading.Event) -> None:
    ssh: socket.socket | None = None
    running = False  # a boot is one thing for each time that the power came on
    while not over.wait(0.05):
        told = machine.state()
        if told["PowerState"] != "On":
            running = False
            if ssh:
                _close(ssh)
                ssh = None
        elif not running:
            running = True
            medium = machine.medium()
            if medium and told["Boot"]["BootSourceOverrideTarget"] == "Cd":
                state.installs.append(medium)
                if not state.stuck:
                    state.installed = True
                    machine.reset("ForceOff")
            elif state.installed:
                ssh = ssh_at(state.port)
    if ssh:
        _close(ssh)


def _close(listener: socket.socket) -> None:
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _handler(state: Bmc) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def do_PATCH(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if state.down:
                return  # the connection is closed without an answer
            if state.statuses:
                self._answer(state.statuses.pop(0), {}, b'{"error": {"message": "busy"}}')
                return
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            status, told, answer = _forward(state.direct, self.command, self.path, body, headers)
            if self.command != "GET" and status < 400:
                event = self.command, _gist(self.path, json.loads(body or b"{}"))
                state.asked.append(event)
                if event == state.down_after:
                    state.down = True
            state.looks += self.command == "GET" and self.path == SYSTEM
            if self.command == "GET" and status in {200, 404, 501} and (more := state.overlay.get(self.path)):
                answer = json.dumps((json.loads(answer) if status == 200 else {}) | more).encode()
                status = 200
            self._answer(status, told, answer)

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    return Handler


def _gist(path: str, body: Mapping[str, Any]) -> str:
    """What a request asked for, in a word or two."""
    action = path.rsplit(".", 1)[-1] if "/Actions/" in path else path.rsplit("/", 1)[-1]
    boot = body.get("Boot") or {}
    detail = body.get("ResetType") or boot.get("BootSourceOverrideTarget") or ""
    return f"{'Boot' if boot else action} {detail}".strip()


def _forward(
    direct: str, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(direct.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body or None, dict(headers))
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def _until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT_SECONDS
    while True:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        with suppress(OSError), urlopen(f"{url}/redfish/v1/", timeout=5):
            return
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_install(machine: Bmc, body: Hardware, looks: int) -> threading.Thread:
    """Let a stuck installer end when the machine was looked at so often; join what is returned."""
    wanted = machine.looks + looks
    deadline = time.monotonic() + BOOT_TIMEOUT_SECONDS

    def end() -> None:
        while machine.looks < wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        body.installed = True
        machine.reset("ForceOff")

    thread = threading.Thread(target=end)
    thread.start()
    return thread
