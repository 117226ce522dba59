"""What tests drive stacks with: the engine that was found, moto's server, and a stack by the CLI's own command line."""

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml

from . import NAME
from .aws.cloud import Failure
from .aws.provider import AwsDouble
from .aws.provider import served as provider_served

UBUNTU_PARAMETER = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
UBUNTU_AMI = "ami-0ubuntu2404amd64"
SECONDS = 300
COUNT = re.compile(r"^    (?:\+-|[+~-] )(\d+) (?:to )?(create|update|delete|replace)d?$", re.MULTILINE)
UNCHANGED = re.compile(r"(\d+) unchanged$", re.MULTILINE)


@dataclass(frozen=True)
class FoundEngine:
    """The engine of this run: its name, for people, and the folder of its `pulumi`, or None where PATH has it."""

    name: str
    folder: Path | None

    @property
    def is_double(self) -> bool:
        """Whether it is the test double."""
        return self.folder is not None

    def path(self) -> str:
        """PATH with its `pulumi` first, after this Python's own folder."""
        folders = [str(self.folder)] if self.folder else []
        return os.pathsep.join([*folders, str(Path(sys.executable).parent), os.environ["PATH"]])


def find_engine(folder: Path) -> FoundEngine:
    """The real `pulumi` of PATH, else the double, whose program is written into `folder`."""
    if shutil.which("pulumi"):
        version = subprocess.run(["pulumi", "version"], capture_output=True, text=True, check=True, timeout=60)
        if version.stdout.strip() != NAME:
            return FoundEngine(f"Pulumi CLI {version.stdout.strip()}", None)
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "pulumi"
    package = Path(__file__).parent.parent
    program.write_text(
        f"#!{sys.executable}\nimport sys\n\nsys.path.insert(0, {str(package)!r})\n"
        "from engine.stubs import import_alone\n\nimport_alone()\n\nfrom engine.cli import main\n\nsys.exit(main())\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return FoundEngine(NAME, folder)


@dataclass(frozen=True)
class Result:
    """How a command ended. `stdout` and `stderr` are all it said, `output` both."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """All it said."""
        return self.stdout + self.stderr

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.returncode == 0

    @property
    def counts(self) -> dict[str, int]:
        """What the last summary counts: created, updated, replaced, deleted, unchanged. A preview counts its plans."""
        summary = self.stdout.rpartition("Resources:\n")[2]
        counts = {f"{verb}d": int(number) for number, verb in COUNT.findall(summary)}
        unchanged = UNCHANGED.search(summary)
        return counts | ({"unchanged": int(unchanged[1])} if unchanged else {})

    @property
    def created(self) -> int:
        """Resources made, the stack itself among them."""
        return self.counts.get("created", 0)

    @property
    def updated(self) -> int:
        """Resources changed in place, or found changed by a refresh."""
        return self.counts.get("updated", 0)

    @property
    def replaced(self) -> int:
        """Resources made anew."""
        return self.counts.get("replaced", 0)

    @property
    def deleted(self) -> int:
        """Resources deleted, or found gone by a refresh."""
        return self.counts.get("deleted", 0)

    @property
    def unchanged(self) -> int:
        """Resources left as they were."""
        return self.counts.get("unchanged", 0)


@dataclass(frozen=True)
class Stack:
    """One stack of one project. Each verb runs `pulumi` in `folder` and returns its Result; none raises on failure.

    stack.config_set("zones[0]", "us-east-1a", path=True)
    assert stack.up().created == 7
    assert stack.up().unchanged == 7
    """

    folder: Path
    name: str
    environment: Mapping[str, str] = field(repr=False)

    def run(self, *arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None) -> Result:
        """Any command of the CLI."""
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            input=stdin or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def _here(self, *arguments: str, **more: Any) -> Result:
        return self.run(*arguments, "--stack", self.name, **more)

    def up(self, preview: bool = False, **more: Any) -> Result:
        """`pulumi up`; with `preview` after a preview of its own, as people run it."""
        return self._here("up", "--yes", *([] if preview else ["--skip-preview"]), **more)

    def preview(self, **more: Any) -> Result:
        """`pulumi preview`; the counts are of what would be done."""
        return self._here("preview", **more)

    def refresh(self, **more: Any) -> Result:
        """`pulumi refresh`."""
        return self._here("refresh", "--yes", "--skip-preview", **more)

    def destroy(self, **more: Any) -> Result:
        """`pulumi destroy`, after its preview, which is where it refuses protected resources."""
        return self._here("destroy", "--yes", **more)

    def outputs(self, show_secrets: bool = False) -> dict[str, Any]:
        """The outputs; secrets are "[secret]" unless they are asked for."""
        asked = self._here("stack", "output", "--json", *(["--show-secrets"] if show_secrets else []))
        assert asked.ok, asked.output
        return dict(json.loads(asked.stdout))

    def config_set(self, key: str, value: Any, *, secret: bool = False, path: bool = False) -> None:
        """Set one key; a list or mapping is set by `config_set_all`."""
        flags = ["--secret"] * secret + ["--path"] * path
        text = str(value).lower() if isinstance(value, bool) else str(value)
        done = self._here("config", "set", *flags, key, "--", text) if text.startswith("-") else self._here(
            "config", "set", *flags, key, text
        )  # fmt: skip
        assert done.ok, done.output

    def config_set_all(self, values: Mapping[str, Any]) -> None:
        """Set keys of the project in Pulumi.<stack>.yaml, lists and mappings too."""
        project = yaml.safe_load((self.folder / "Pulumi.yaml").read_text())["name"]
        path = self.folder / f"Pulumi.{self.name}.yaml"
        data = (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}
        full = {key if ":" in key else f"{project}:{key}": value for key, value in values.items()}
        path.write_text(yaml.safe_dump({**data, "config": {**(data.get("config") or {}), **full}}))

    def state(self) -> list[dict[str, Any]]:
        """The resources as `pulumi stack export` has them, secrets encrypted."""
        return list(json.loads(self.state_text())["deployment"].get("resources") or [])

    def state_text(self) -> str:
        """All of `pulumi stack export`, to look for what must not be in it."""
        exported = self._here("stack", "export")
        assert exported.ok, exported.output
        return exported.stdout

    def resources(self, type_: str = "") -> dict[str, dict[str, Any]]:
        """The state's resources of a type, by name; without a type all but the stack and its providers."""
        hidden = ("pulumi:pulumi:", "pulumi:providers:")
        rows = [r for r in self.state() if (r["type"] == type_ if type_ else not r["type"].startswith(hidden))]
        return {row["urn"].split("::", 3)[3]: row for row in rows}


def new_stack(project: Path, folder: Path, engine: FoundEngine, environment: Mapping[str, str], name: str) -> Stack:
    """A new stack of a copy of a project, with state and home of its own in `folder`."""
    copy = folder / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("__pycache__", "Pulumi.*.yaml"))
    manifest = copy / "Pulumi.yaml"
    data = yaml.safe_load(manifest.read_text())
    data["runtime"] = {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}}
    manifest.write_text(yaml.safe_dump(data, sort_keys=False))
    for name_ in ("state", "home"):
        (folder / name_).mkdir()
    source = Path(__file__).parents[3] / "src"
    own = {
        "PATH": engine.path(),
        "PYTHONPATH": os.pathsep.join([str(source), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": "a passphrase of the tests",
        "PULUMI_HOME": str(folder / "home"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }
    stack = Stack(copy, name, {**os.environ, **own, **environment})
    made = stack.run("stack", "init", name)
    assert made.ok, made.output
    return stack


@dataclass
class Moto:
    """moto's server at `endpoint`, and the double of the aws provider in front of it, attached by `environment`."""

    endpoint: str
    provider: AwsDouble
    environment: dict[str, str]

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """A boto3 client, to look at what is there or to change it behind the stack's back."""
        return boto3.client(
            service, endpoint_url=self.endpoint, region_name=region, aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )  # fmt: skip

    def reset(self) -> None:
        """An empty account again, with the AMI that Canonical's parameter names, and nothing that fails."""
        self.provider.failures.clear()
        self.provider.kept.clear()
        arn = f"arn:aws:ssm:us-east-1::parameter{UBUNTU_PARAMETER}"
        self.provider.kept[UBUNTU_PARAMETER] = {"ARN": arn, "Type": "String", "Value": UBUNTU_AMI, "Version": 1}
        _ask(f"{self.endpoint}/moto-api/reset", "POST")

    def fail(self, operation: str, code: str, message: str, zone: str = "", status: int = 400) -> None:
        """Let an operation of AWS fail from now on, in one zone or in all; `{zone}` in the message is filled in."""
        self.provider.failures.append(Failure(operation, code, message, zone, status))

    def no_capacity(self, zone: str, instance_type: str = "p5.48xlarge") -> None:
        """Let RunInstances fail in a zone as AWS does where it has no such machine left."""
        self.fail(
            "RunInstances",
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested "
            "({zone}). Our system will be working on provisioning additional capacity.",
            zone,
            500,
        )

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.provider.failures.clear()


AMIS = [
    {
        "ami_id": UBUNTU_AMI,
        "name": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260101",
        "description": "An image of the tests",
        "owner_id": "099720109477",
        "public": True,
        "virtualization_type": "hvm",
        "architecture": "x86_64",
        "state": "available",
        "platform": None,
        "image_type": "machine",
        "hypervisor": "xen",
        "root_device_name": "/dev/sda1",
        "root_device_type": "ebs",
        "sriov": "simple",
        "creation_date": "2026-01-01T00:00:00.000Z",
    }
]


@contextlib.contextmanager
def moto_served(folder: Path) -> Iterator[Moto]:
    """moto's server in a process of its own, and the provider in front of it."""
    images = folder / "amis.json"
    images.write_text(json.dumps(AMIS))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "MOTO_AMIS_PATH": str(images), "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{endpoint}/moto-api/", server, folder / "moto.log")
        provider = AwsDouble(endpoint)
        with provider_served(provider) as provider_port:
            environment = {
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_EC2_METADATA_DISABLED": "true",
                "PULUMI_DEBUG_PROVIDERS": f"aws:{provider_port}",
            }
            moto = Moto(endpoint, provider, environment)
            moto.reset()
            yield moto
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            _ask(url, "GET")
            return
        time.sleep(0.1)
    raise AssertionError(f"moto did not answer in {seconds} s: {log.read_text()}")


def _ask(url: str, method: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method), timeout=30):
        pass
