"""The state of stacks: JSON files in the layout of `pulumi stack export`, where no secret stands in plain text."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from .values import SECRET, SIGNATURE, Properties, is_secret, secret, transform

ROOT = "pulumi:pulumi:Stack"


class CliError(Exception):
    """What ends a command, told after `error: `."""


@dataclass(frozen=True)
class Cipher:
    """Encrypts by a key made of passphrase and salt: enough to keep secrets out of the files of tests."""

    fernet: Fernet

    @classmethod
    def from_passphrase(cls, passphrase: str, salt: str) -> "Cipher":
        """A stack's cipher; `salt` is any text that the stack keeps."""
        key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt.encode(), 10_000)
        return cls(Fernet(base64.urlsafe_b64encode(key)))

    def encrypt(self, text: str) -> str:
        """Text that only `decrypt` reads."""
        return self.fernet.encrypt(text.encode()).decode()

    def decrypt(self, text: str) -> str:
        """The text that was encrypted, or CliError where the passphrase is another."""
        try:
            return self.fernet.decrypt(text.encode()).decode()
        except InvalidToken as error:
            raise CliError(
                "failed to decrypt: incorrect passphrase, please set PULUMI_CONFIG_PASSPHRASE to the correct passphrase"
            ) from error

    def seal(self, value: Any) -> Any:
        """The value with each secret in it encrypted."""

        def change(item: Any) -> Any:
            if not is_secret(item):
                return item
            return {SIGNATURE: SECRET, "ciphertext": self.encrypt(json.dumps(item["value"]))}

        return transform(value, change)

    def open(self, value: Any) -> Any:
        """What was sealed."""

        def change(item: Any) -> Any:
            return secret(json.loads(self.decrypt(item["ciphertext"]))) if is_secret(item) else item

        return transform(value, change)


@dataclass
class Resource:
    """One resource of a stack, named as its JSON is. `delete` marks what was replaced and is still to be deleted."""

    urn: str
    type: str
    custom: bool
    id: str = ""
    delete: bool = False
    inputs: Properties = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    parent: str = ""
    protect: bool = False
    external: bool = False
    dependencies: list[str] = field(default_factory=list)
    provider: str = ""
    propertyDependencies: dict[str, list[str]] = field(default_factory=dict)  # noqa: N815
    additionalSecretOutputs: list[str] = field(default_factory=list)  # noqa: N815
    retainOnDelete: bool = False  # noqa: N815

    @property
    def name(self) -> str:
        """Its name in the program."""
        return self.urn.split("::", 3)[3]

    @property
    def is_provider(self) -> bool:
        """Whether it stands for a provider."""
        return self.type.startswith("pulumi:providers:")

    @property
    def is_default_provider(self) -> bool:
        """Whether it is a provider that no program named."""
        return self.is_provider and self.name.startswith("default")

    @property
    def uses(self) -> set[str]:
        """URNs that must live as long as it does."""
        provider = {self.provider.rsplit("::", 1)[0]} if self.provider else set()
        return {*self.dependencies, *([self.parent] if self.parent else []), *provider}

    def forget(self, urn: str) -> None:
        """Depend no more on what is gone."""
        self.dependencies = [other for other in self.dependencies if other != urn]
        self.propertyDependencies = {
            key: [other for other in urns if other != urn] for key, urns in self.propertyDependencies.items()
        }


@dataclass(frozen=True)
class StateFile:
    """Where one stack's resources are kept, each after what it uses."""

    path: Path

    def exists(self) -> bool:
        """Whether the stack was made."""
        return self.path.is_file()

    def read(self, cipher: Cipher | None) -> list[Resource]:
        """All resources; without a cipher, secrets stay encrypted."""
        deployment = json.loads(self.path.read_text())["checkpoint"]["latest"]
        rows = deployment["resources"]
        return [Resource(**(cipher.open(row) if cipher else row)) for row in rows]

    def write(self, resources: Iterable[Resource], cipher: Cipher | None) -> None:
        """Replace what is kept, at once."""
        rows = [{key: value for key, value in asdict(resource).items() if value} for resource in resources]
        rows = [{"custom": False, **(cipher.seal(row) if cipher else row)} for row in rows]
        data = {"version": 3, "checkpoint": {"stack": self.path.stem, "latest": {"resources": rows}}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(data, indent=2) + "\n")
        draft.replace(self.path)


@dataclass(frozen=True)
class Backend:
    """The folder of PULUMI_BACKEND_URL."""

    folder: Path

    @classmethod
    def from_environment(cls) -> "Backend":
        """The backend that is named, or CliError: the double has no other to offer."""
        url = os.environ.get("PULUMI_BACKEND_URL", "")
        if not url.startswith("file://"):
            raise CliError(f"the test double keeps state in PULUMI_BACKEND_URL=file://FOLDER only, not in '{url}'")
        return cls(Path(url.removeprefix("file://")).expanduser())

    def state(self, project: str, stack: str) -> StateFile:
        """The file of one stack."""
        if not re.fullmatch(r"[A-Za-z0-9._-]+", stack):
            raise CliError(f"a stack name may only contain alphanumeric, hyphens, underscores, or periods: {stack}")
        return StateFile(self.folder / ".pulumi" / "stacks" / project / f"{stack}.json")

    def stacks(self, project: str) -> list[str]:
        """The names of a project's stacks."""
        return sorted(path.stem for path in (self.folder / ".pulumi" / "stacks" / project).glob("*.json"))
