"""What a stack exports, read by Pulumi's command line.

Secrets are not asked for: nothing that a host's description holds is one, and an output that is secret is shown by
Pulumi as `[secret]` alone. So no passphrase is needed where Pulumi itself needs none, and none can reach a cache.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError

SECRET = "[secret]"  # noqa: S105 - what Pulumi shows in the place of one
UNREACHABLE = re.compile(
    r"dial tcp|no such host|connection refused|i/o timeout|unable to open bucket|could not list bucket|unreachable",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Stack:
    """One stack of a project, which is the folder with its `Pulumi.yaml`. No name means the one that is selected.

    `environment` is what Pulumi runs with, and finds its PATH, its backend and its passphrase in.
    """

    project: Path
    name: str = ""
    timeout_seconds: float = 60
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    def outputs(self) -> dict[str, Any]:
        """All that the stack exports, by name; secret ones as `[secret]`.

        Raises RackllamaError where it cannot be read, or there is nothing.
        """
        said = self._pulumi("stack", "output", "--json")
        try:
            outputs = json.loads(said)
        except ValueError:
            outputs = None
        if not isinstance(outputs, dict):
            raise RackllamaError(
                f"pulumi tells of {self} what is no JSON object: {said[:80]!r}",
                f"see what `{self._command_line('stack', 'output', '--json')}` says",
            )
        if not outputs:
            raise RackllamaError(
                f"{self} exports nothing: it was never brought up, its first `up` failed, or it was destroyed",
                f"run: {self._command_line('up')}",
            )
        return outputs

    def hosts(self) -> list[Any]:
        """The descriptions of its hosts, at least one. Raises RackllamaError as `outputs` does."""
        hosts = self.outputs().get("hosts")
        if hosts == SECRET:
            raise RackllamaError(
                f"the hosts of {self} are marked as secret, as a part of them follows from a secret",
                "let its program export no host that holds what is derived from one",
            )
        if hosts is None:
            raise RackllamaError(
                f"{self} exports no `hosts`",
                "let its program export them by rackllama.provision.outputs.export_stack (docs/inventories.md)",
            )
        if not hosts:
            raise RackllamaError(f"{self} has no host", f"see its configuration, and run: {self._command_line('up')}")
        return list(hosts) if isinstance(hosts, list) else [hosts]

    def __str__(self) -> str:
        named = f"stack {self.name}" if self.name else "the selected stack"
        return f"{named} of {self.project}"

    def _arguments(self, words: Sequence[str]) -> list[str]:
        named = ["--stack", self.name] if self.name else []
        return ["pulumi", *words, "--cwd", str(self.project), *named]

    def _command_line(self, *words: str) -> str:
        return " ".join(self._arguments(words))

    def _pulumi(self, *words: str) -> str:
        """What the command prints. Raises RackllamaError where it fails, or takes longer than it may."""
        if not (self.project / "Pulumi.yaml").is_file():
            raise RackllamaError(
                f"{self.project} holds no Pulumi.yaml, and so is no project of Pulumi",
                "let `project` name the folder that has one, relative to the file of the inventory",
            )
        if not shutil.which("pulumi", path=self.environment.get("PATH")):
            raise RackllamaError("pulumi is not on the PATH", "run `make tools`, or install Pulumi's command line")
        command = [*self._arguments(words), "--non-interactive"]
        code, said, complaint = ask(command, self.environment, self.timeout_seconds)
        if code is None:
            raise RackllamaError(
                f"pulumi has not answered for {self} in {self.timeout_seconds:g} s, and was ended",
                "see whether the backend that keeps its state can be reached: pulumi whoami --verbose; "
                "a slow one may be given longer by `timeout_seconds`",
            )
        if code:
            raise self._failure(_last_words(complaint or said))
        return said

    def _failure(self, told: str) -> RackllamaError:
        listed = f"pulumi stack ls --cwd {self.project}"
        if "no stack named" in told:
            return RackllamaError(f"there is no {self}", f"see `{listed}`, or make it: {self._command_line('up')}")
        if "no stack selected" in told:
            return RackllamaError(
                f"no stack of {self.project} is named, and none is selected",
                f"name one: RACKLLAMA_STACK=NAME; `{listed}` shows which there are",
            )
        if "passphrase" in told:
            return RackllamaError(
                f"{self} cannot be read without the right passphrase: {told}",
                "set PULUMI_CONFIG_PASSPHRASE_FILE (or PULUMI_CONFIG_PASSPHRASE) to what it was made with",
            )
        if "PULUMI_ACCESS_TOKEN" in told or "pulumi login" in told:
            return RackllamaError(
                f"pulumi is not told where the state of {self} is kept: {told}",
                "run `pulumi login URL`, or set PULUMI_BACKEND_URL",
            )
        if UNREACHABLE.search(told):
            return RackllamaError(
                f"the backend that keeps the state of {self} cannot be reached: {told}",
                "see `pulumi whoami --verbose` for which it is, and PULUMI_BACKEND_URL",
            )
        return RackllamaError(f"pulumi cannot read {self}: {told}", f"see what `{listed}` says")


def ask(
    command: Sequence[str], environment: Mapping[str, str], seconds: float, cwd: Path | None = None
) -> tuple[int | None, str, str]:
    """Exit status, stdout and stderr; a status of None where it took longer, and was killed with all it had started."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        start_new_session=True,
    ) as process:
        try:
            said, complaint = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, "", ""
        return process.returncode, said, complaint


def _last_words(complaint: str) -> str:
    """The end of what a program complained of, in one line, without what Pulumi puts before each error."""
    lines = [line.strip().removeprefix("error: ") for line in complaint.splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "it said nothing"
