"""A service as systemd sees it, made from a description in plain data.

What a role declares becomes four files:

    /etc/systemd/system/NAME.service                       a stub: description, order, ExecStart, [Install]
    /etc/systemd/system/NAME.service.d/90-rackllama.conf   the service itself: all of [Service], lists reset first
    /etc/rackllama/secrets/NAME.env                        0600: the digest of the declaration, and secrets
    /etc/rackllama/services/NAME.json                      the declaration: what ought to run, for whoever compares

The drop-in repeats ExecStart and User, so that an upstream installer that overwrites the stub changes nothing. The
digest reaches the process in its environment: what runs carries the declaration it was started with (see `running`).
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from ..errors import RackllamaError
from ..files import MARK, digest, json_text

Directive = Union[str, int, bool, List[str], None]

UNITS = Path("/etc/systemd/system")
SECRETS = Path("/etc/rackllama/secrets")
SERVICES = Path("/etc/rackllama/services")
SECRET_MODE = 0o600
DROP_IN = "90-rackllama.conf"
DIGEST_VARIABLE = "RACKLLAMA_DIGEST"

# Every service starts from this; a role opens what its service needs (None takes a line out). The list follows
# systemd's own scoring (systemd-analyze security) and stays within systemd 247, as unknown lines would be ignored.
SANDBOX: Dict[str, Directive] = {
    "AmbientCapabilities": [],
    "CapabilityBoundingSet": [],
    "DevicePolicy": "closed",
    "IPAddressAllow": ["localhost"],
    "IPAddressDeny": ["any"],
    "LockPersonality": True,
    "MemoryDenyWriteExecute": True,
    "NoNewPrivileges": True,
    "PrivateDevices": True,
    "PrivateTmp": True,
    "ProcSubset": "pid",
    "ProtectClock": True,
    "ProtectControlGroups": True,
    "ProtectHome": True,
    "ProtectHostname": True,
    "ProtectKernelLogs": True,
    "ProtectKernelModules": True,
    "ProtectKernelTunables": True,
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RemoveIPC": True,
    "RestrictAddressFamilies": ["AF_INET", "AF_INET6", "AF_UNIX"],
    "RestrictNamespaces": True,
    "RestrictRealtime": True,
    "RestrictSUIDSGID": True,
    "SystemCallArchitectures": ["native"],
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
    "SystemCallErrorNumber": "EPERM",
    "UMask": "0077",
}
SERVICE_DEFAULTS: Dict[str, Directive] = {"Type": "exec", "Restart": "always", "RestartSec": 2, "TimeoutStopSec": 30}
# Lists of systemd: an empty assignment forgets what an earlier file said. Always reset, as an installer may set them.
ALWAYS_RESET = ("Environment", "EnvironmentFile", "ExecStartPre", "ExecStart", "ExecStartPost", "SupplementaryGroups")
# Two names of one list: to reset the second would forget the first.
SAME_LIST = {"BindReadOnlyPaths": "BindPaths"}


@dataclass(frozen=True)
class ServiceDeclaration:
    """What a role wants to run. `unit` and `service` are directives of [Unit] and [Service]; sizes are systemd's own.

    A secret wins over a variable of the same name in `environment`.
    `restart_digests` are digests of whatever else must restart the service when it changes: release, config files.
    `reload_files` are read again by a reload (`ExecReload`), so that their changes need no restart.
    `ports` are open to this host alone, `public_ports` to others as well.
    """

    name: str
    user: str
    unit: Mapping[str, Directive]
    service: Mapping[str, Directive]
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    restart_digests: Tuple[str, ...] = ()
    reload_files: Tuple[str, ...] = ()
    ports: Tuple[int, ...] = ()
    public_ports: Tuple[int, ...] = ()
    health: Mapping[str, Any] = field(default_factory=dict)
    exposure_limit: float = 2.0

    @property
    def unit_name(self) -> str:
        """The unit's name with its suffix."""
        return f"{self.name}.service"

    @property
    def open_environment(self) -> Dict[str, str]:
        """The environment that everybody may read."""
        return {name: value for name, value in self.environment.items() if name not in self.secrets}

    @property
    def is_template(self) -> bool:
        """Whether it is only run as `NAME@INSTANCE.service`."""
        return self.name.endswith("@")


@dataclass(frozen=True)
class UnitFile:
    """One file to be there: its text and its mode."""

    path: Path
    text: str
    mode: int = 0o644


def unit_files(declaration: ServiceDeclaration) -> List[UnitFile]:
    """The four files of a service, in the order in which they are to be written. Pure.

    The stub comes last, so that a unit is never seen by systemd without its sandbox. A template has no declaration
    beside it: nothing of that name ought to run.
    """
    service = _merged_service(declaration)
    stub = _section("Unit", declaration.unit) + _section("Service", {"ExecStart": service["ExecStart"]})
    install = _section("Install", {"WantedBy": "multi-user.target"})
    drop_in = _section("Service", service, reset=ALWAYS_RESET)
    mark = f"# {MARK}\n"
    value = digest(
        [
            stub,
            drop_in,
            sorted(declaration.restart_digests),
            hashlib.sha256(_env_file(declaration.secrets).encode()).hexdigest(),
        ]
    )
    record = [] if declaration.is_template else [UnitFile(SERVICES / f"{declaration.name}.json", _record(declaration))]
    return [
        *record,
        UnitFile(
            SECRETS / f"{declaration.name}.env",
            _env_file({**declaration.secrets, DIGEST_VARIABLE: value}),
            mode=SECRET_MODE,
        ),
        UnitFile(UNITS / f"{declaration.unit_name}.d" / DROP_IN, mark + drop_in),
        UnitFile(UNITS / declaration.unit_name, mark + stub + install),
    ]


def declared_digest(env_file: str) -> Optional[str]:
    """The digest in the text of a secrets file, or None where it holds none."""
    for line in env_file.splitlines():
        if line.startswith(f"{DIGEST_VARIABLE}="):
            return line.partition("=")[2].strip('"')
    return None


def _record(declaration: ServiceDeclaration) -> str:
    return json_text(
        {
            "name": declaration.name,
            "user": declaration.user,
            "program": _program(declaration),
            "environment": declaration.open_environment,
            "reload_files": list(declaration.reload_files),
            "ports": list(declaration.ports),
            "public_ports": list(declaration.public_ports),
            "health": dict(declaration.health),
            "exposure_limit": declaration.exposure_limit,
        }
    )


def _program(declaration: ServiceDeclaration) -> str:
    """The file that ExecStart runs, without systemd's prefixes; empty where it lies in another root than the host's."""
    if "RootDirectory" in declaration.service:
        return ""
    return str(declaration.service["ExecStart"]).split()[0].lstrip("-@:+!|")


def _merged_service(declaration: ServiceDeclaration) -> Dict[str, Directive]:
    """Sandbox, defaults and the role's own directives, the later winning; None takes a directive out."""
    if "ExecStart" not in declaration.service:
        raise RackllamaError(f"the service {declaration.name} has no ExecStart", "give it in service_unit.Service")
    merged: Dict[str, Directive] = {
        **SERVICE_DEFAULTS,
        **SANDBOX,
        "User": declaration.user,
        **declaration.service,
        "Environment": [_quoted(f"{name}={value}") for name, value in sorted(declaration.open_environment.items())],
        "EnvironmentFile": [str(SECRETS / f"{declaration.name}.env")],
    }
    return {name: value for name, value in merged.items() if value is not None}


def _section(name: str, directives: Mapping[str, Directive], reset: Tuple[str, ...] = ()) -> str:
    lines = [f"[{name}]"]
    for key in sorted(set(directives) | set(reset)):
        value = directives.get(key, [])
        if isinstance(value, list):
            if SAME_LIST.get(key) not in directives:
                lines.append(f"{key}=")
            lines.extend(f"{key}={_text(item)}" for item in value)
        elif key in reset:
            lines.extend([f"{key}=", f"{key}={_text(value)}"])
        else:
            lines.append(f"{key}={_text(value)}")
    return "\n".join(lines) + "\n\n"


def _text(value: Directive) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _printable(str(value))


def _quoted(assignment: str) -> str:
    """An Environment= value; % starts a specifier in a unit file, but not in an EnvironmentFile."""
    return '"' + _printable(assignment).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _env_file(variables: Mapping[str, str]) -> str:
    def escaped(name: str, value: str) -> str:
        _printable(f"{name}={value}")  # which tells the name, and nothing of the value
        return "".join(f"\\{character}" if character in '"\\$`' else character for character in value)

    return "".join(f'{name}="{escaped(name, value)}"\n' for name, value in sorted(variables.items()))


def _printable(text: str) -> str:
    if any(ord(character) < ord(" ") for character in text):
        raise RackllamaError(
            f"the value of {text.partition('=')[0]} has a line break or control character", "give it on one line"
        )
    return text
